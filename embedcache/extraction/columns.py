"""Which columns of the input a cache keeps: those asked for, and those that it already has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.cache.file import Cache
from embedcache.errors import EmbedcacheError
from embedcache.tables.rows import Columns, column_names, missing_labels
from embedcache.tables.stream import Table


@dataclass(frozen=True)
class Asked:
    """The columns that the user named. ``labels``: None means the column ``label`` where there is one."""

    text: str
    labels: str | Sequence[str] | None
    id: str | None
    keep: tuple[str, ...]


def choose_columns(
    paths: Sequence[Table], asked: Asked, cache: Path | None, na: Sequence[str] | None, reading: dict[str, Any]
) -> tuple[Columns, list[str]]:
    """Choose the columns to read.

    An existing cache keeps its label columns, its id and its kept columns without naming them again, as it keeps its
    poolings. A column that is no longer in the input is dropped, with a note.

    Args:
        paths: the input's tables.
        asked: the columns that the user named.
        cache: the cache to continue; None: keep no columns of a cache.
        na: label cells that mean "not labelled", see ``extract``.
        reading: how files are read, as arguments of ``column_names``.

    Returns:
        (columns, notes for the user).

    Raises:
        EmbedcacheError: a table cannot be read.
    """
    there: list[str] = []
    if paths and (asked.labels is None or (cache is not None and cache.exists())):
        files = [column_names(path, **reading) for path in (paths if cache and cache.exists() else paths[:1])]
        there = [name for name in files[0] if all(name in names for names in files)]
        default = "label" in files[0] and "label" not in (asked.text, asked.id)
    else:
        default = False
    named = (asked.labels,) if isinstance(asked.labels, str) else asked.labels
    labels = list(named) if named is not None else ["label"] if default else []
    keep, id = list(asked.keep), asked.id
    old_labels, old_id, old_keep = _of_cache(cache)
    taken = {asked.text, asked.id, *labels, *keep}
    stay = [name for name in (*old_labels, *old_keep, *([old_id] if old_id else [])) if name not in taken]
    gone = [name for name in stay if name not in there]
    labels += [name for name in old_labels if name not in taken and name in there]
    if old_id in there and old_id not in taken:
        keep, id = (keep, old_id) if id is None else ([*keep, old_id], id)
    keep += [name for name in old_keep if name not in taken and name in there]
    notes = []
    if stayed := [name for name in stay if name in there]:
        which = f"{', '.join(map(repr, stayed))}: {'a column' if len(stayed) == 1 else 'columns'} of the cache"
        notes.append(f"{which}, kept although not named again; with --overwrite only the named columns are kept")
    if gone:
        which = f"{', '.join(map(repr, gone))}: {'a column' if len(gone) == 1 else 'columns'} of the cache"
        notes.append(f"{which}, dropped because the input no longer has {'it' if len(gone) == 1 else 'them'}")
    return Columns(asked.text, tuple(labels), id, tuple(keep), missing_labels(na)), notes


def _of_cache(path: Path | None) -> tuple[list[str], str | None, list[str]]:
    """Label columns, id column and other kept columns of a cache; none where it is missing or damaged."""
    with suppress(EmbedcacheError):
        if path is not None and path.exists():
            with Cache(path) as cache:
                if cache.sealed:
                    kept = [name for name in cache.column_names if name != cache.id_column]
                    return cache.label_names, cache.id_column, kept
    return [], None, []
