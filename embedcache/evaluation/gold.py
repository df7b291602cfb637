"""What a run is held against: the rows of a table or a cache, with their gold labels and groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.labels import unlabelled
from embedcache.cache.side_by_side import vectors_of
from embedcache.cache.strings import first_rows, hash_texts
from embedcache.cache.where import rows_where
from embedcache.common.reading import Reading
from embedcache.errors import EmbedcacheError
from embedcache.labelling.opened import open_labelled
from embedcache.prediction.classifier import Classifier, check_same_encoder
from embedcache.prediction.together import Encode, encode_of, shared_passes, vectors_key
from embedcache.runs.folder import Run
from embedcache.tables.rows import Columns, Label, column_names, read_rows
from embedcache.tables.stream import Table

ENCODED_ROWS = 4096  # of a table, encoded at a time
Tell = Callable[[int, int, int], None]


@dataclass
class Gold:
    """The rows that carry a gold label.

    Attributes:
        source: the table or cache. rows: all its rows (those that --where leaves). unlabelled: rows left out.
        places: int64 [n], the number of each labelled row in the source, from 0. texts: theirs.
        labels: their gold, one label, a tuple of labels, or a number as text.
        hashes: uint8 [n, 16] of the texts. groups: int64 [n], -1 for none, or None.
        vectors: run -> its vectors [n, D] of these rows, read from a cache or encoded.
        readings: what each encoder that was asked for vectors read of the texts.
        columns: of those that were asked for as well, the ones that are there: name -> n values without outer blanks.
        labels_from: of a cache, the journal that lies over its labels: ``Cache.labels_from``.
    """

    source: str
    rows: int
    unlabelled: int
    places: np.ndarray
    texts: Sequence[str]
    labels: list[Any]
    hashes: np.ndarray
    groups: np.ndarray | None
    vectors: Callable[[Run], np.ndarray] = field(repr=False)
    readings: list[Reading] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    labels_from: dict[str, Any] | None = None

    @property
    def units(self) -> np.ndarray | None:
        """int64 [n], equal for rows of one group, or of one text where a row has no group; None without groups."""
        if self.groups is None:
            return None
        alone = self.groups < 0
        return np.where(alone, first_rows(self.hashes), self.groups + len(self.groups))

    def keep(self, which: np.ndarray) -> Gold:
        """Only some of the rows. which: bool [n]."""
        rows = np.flatnonzero(which)
        get = self.vectors
        return Gold(
            self.source,
            self.rows,
            self.unlabelled,
            self.places[rows],
            [self.texts[i] for i in rows.tolist()],
            [self.labels[i] for i in rows.tolist()],
            self.hashes[rows],
            None if self.groups is None else self.groups[rows],
            lambda run: get(run)[rows],
            self.readings,
            {name: [values[i] for i in rows.tolist()] for name, values in self.columns.items()},
            self.labels_from,
        )


def read_cache(
    path: str | Path,
    label: str,
    group: str | None,
    where: Sequence[str],
    also: Collection[str] = (),
    labels: str | Path | None = None,
) -> Gold:
    """The labelled rows of a cache, whose vectors need no encoder.

    also: columns to read where there are such. labels: see ``open_labelled``.

    Raises EmbedcacheError where there is no such column, or no row with a label meets ``where``.
    """
    cache = open_labelled(path, labels)
    known = _cache_labels(cache, label)
    among = rows_where(cache, where) if where else np.ones(cache.rows, bool)
    given = np.array([one is not None for one in known], bool)
    rows = np.flatnonzero(among & given)
    _check_rows(path, label, rows)
    groups = None if group is None else _numbers(_cache_strings(cache, group, "--group"))[rows]

    def vectors(run: Run) -> np.ndarray:
        check_same_encoder(run, cache)
        return vectors_of(cache, run.info["pooling"], run.info["layer"])[rows]

    texts = cache.texts
    return Gold(
        str(path),
        int(among.sum()),
        int((among & ~given).sum()),
        rows,
        [texts[i] for i in rows.tolist()],
        [known[i] for i in rows.tolist()],
        cache.hashes[rows],
        groups,
        vectors,
        columns={name: _of_cache(cache, name, rows) for name in also if _has_strings(cache, name)},
        labels_from=cache.labels_from,
    )


def read_table(
    path: Table,
    label: str,
    group: str | None,
    text: str,
    classifiers: Callable[[Run], Classifier],
    tell: Tell | None,
    also: Collection[str] = (),
    runs: Sequence[Run] = (),
    **reading: Any,
) -> Gold:
    """The labelled rows of a table, encoded when their vectors are asked for: once for all runs of one encoder.

    classifiers: loads that of a run. runs: that will be asked for; of tuned ones of one base the layers that none has
    trained are computed once. also: columns to read where there are such. reading: as ``read_rows`` takes it.
    """
    texts: list[str] = []
    labels: list[Label] = []
    kept: dict[str, list[str]] = {} if group is None else {group: []}
    kept |= {name: [] for name in also if name in column_names(path, **reading)}
    columns = Columns(text, labels=(label,), keep=tuple(kept))
    for part in read_rows([path], columns, **reading):
        texts += part.texts.to_pylist()
        labels += part.labels[label]
        for name, values in kept.items():
            values += part.keep[name].to_pylist()
    rows = [i for i, one in enumerate(labels) if one is not None]
    _check_rows(path, label, np.array(rows))
    chosen = [texts[i] for i in rows]
    encoded: dict[tuple[Any, ...], np.ndarray] = {}
    readings: list[Reading] = []

    def encode(some: Encode, keys: Sequence[tuple[Any, ...]]) -> None:
        parts, read = [], None
        for start in range(0, len(chosen), ENCODED_ROWS):
            found, counted = some(chosen[start : start + ENCODED_ROWS], None)
            parts.append(found)
            read = counted if read is None else read + counted
            if tell is not None:
                done = min(start + ENCODED_ROWS, len(chosen))
                tell(done, len(chosen), done)
        encoded.update(zip(keys, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        if read is not None:
            readings.append(read)

    def vectors(run: Run) -> np.ndarray:
        if vectors_key(run) not in encoded:
            some = shared_passes([run, *runs])[0]
            encode(encode_of(some, classifiers), list(map(vectors_key, some)))
        return encoded[vectors_key(run)]

    return Gold(
        str(path),
        len(texts),
        len(texts) - len(rows),
        np.array(rows),
        chosen,
        [labels[i] for i in rows],
        hash_texts([one.encode() for one in chosen]),
        None if group is None else _numbers([kept[group][i] for i in rows]),
        vectors,
        readings,
        {name: [kept[name][i].strip() for i in rows] for name in also if name in kept},
    )


def _check_rows(path: Table, label: str, rows: np.ndarray) -> None:
    if not len(rows):
        raise EmbedcacheError(f"no row of {path} has a label in column {label!r}: there is nothing to score")


def _cache_labels(cache: Cache, label: str) -> list[Any]:
    """Every row's label, tuple of labels, or None."""
    if label not in cache.label_names:
        return [value if value.strip() else None for value in _cache_strings(cache, label, "--label")]
    codes, names = cache.labels(label)
    if codes.ndim == 1:
        return [names[code] if code >= 0 else None for code in codes.tolist()]
    missing = unlabelled(codes)
    return [
        None if none else tuple(names[c] for c in np.flatnonzero(row > 0))
        for row, none in zip(codes, missing, strict=True)
    ]


def _has_strings(cache: Cache, name: str) -> bool:
    """Whether there is a column of that name with one value a row."""
    return name in cache.column_names or (name in cache.label_names and not cache.holds_lists(name))


def _of_cache(cache: Cache, name: str, rows: np.ndarray) -> list[str]:
    """Values of some rows, without outer blanks."""
    values = _cache_strings(cache, name, "")
    return [values[i].strip() for i in rows.tolist()]


def _cache_strings(cache: Cache, name: str, option: str) -> Sequence[str]:
    if name in cache.column_names:
        return cache.column(name)
    if _has_strings(cache, name):
        codes, names = cache.labels(name)
        return [names[code] if code >= 0 else "" for code in codes.tolist()]
    known = ", ".join([*cache.label_names, *cache.column_names]) or "none"
    raise EmbedcacheError(f"{option} {name}: {cache.path} has no such column; it has {known}")


def _numbers(values: Sequence[str]) -> np.ndarray:
    """int64 [n]: the same number for the same value, -1 for a blank one."""
    number: dict[str, int] = {"": -1}
    return np.array([number.setdefault(value.strip(), len(number)) for value in values], np.int64)
