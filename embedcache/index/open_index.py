"""The index that a search uses: the one named, that of the cache's own name, or the vectors themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.index.ownership import default_path
from embedcache.index.search_index import SearchIndex, stored_output


def open_index(
    cache: Cache, index: str | Path | None, pooling: str | None, layer: int | None, center: bool | None
) -> SearchIndex:
    """The index of the vectors that are asked for; None means whichever the index has.

    Raises:
        EmbedcacheError: the index named cannot be read, is not of this cache, or has other vectors.
    """
    if index is not None or default_path(cache.path).exists():
        found = SearchIndex.load(index or default_path(cache.path), cache)
        asked: dict[str, Any] = {"pooling": pooling, "layer": layer, "center": center}
        differs = [name for name, value in asked.items() if value not in (None, getattr(found, name))]
        if not differs:
            return found
        if index is not None:
            raise EmbedcacheError(
                f"{index} has another {' and '.join(differs)} than asked: build one with embedcache index, or leave "
                "out --index"
            )
    return SearchIndex.build(cache, *stored_output(cache, pooling, layer), kind="exact", center=bool(center))
