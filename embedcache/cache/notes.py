"""What a user should know of the data in a cache before trusting what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from embedcache.cache.file import Cache
from embedcache.cache.labels import label_counts
from embedcache.cache.tokens import reading_of
from embedcache.common.label_names import label_notes


def data_notes(cache: Cache, columns: Sequence[str] | None = None) -> list[str]:
    """Sentences on texts that are not read or not known, and on odd classes of these label columns (None: of all)."""
    notes = reading_of(cache).notes()
    for name in cache.label_names if columns is None else columns:
        if name in cache.label_names:
            codes, classes = cache.labels(name)
            notes += label_notes(name, classes, label_counts(codes, len(classes)).tolist())
    return notes
