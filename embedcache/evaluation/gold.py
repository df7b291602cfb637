"""What a run is held against: the rows of a table or a cache, with their gold labels and groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.cache.labels import unlabelled
from embedcache.cache.strings import first_rows, hash_texts
from embedcache.classifier import Classifier, check_same_encoder
from embedcache.common.reading import Reading
from embedcache.errors import EmbedcacheError
from embedcache.heads.run import Run
from embedcache.table import Columns, Label, read_rows
from embedcache.tables.stream import Table
from embedcache.where import rows_where

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
        )


def read_cache(path: str | Path, label: str, group: str | None, where: Sequence[str]) -> Gold:
    """The labelled rows of a cache, whose vectors need no encoder.

    Raises EmbedcacheError where there is no such column, or no row with a label meets ``where``.
    """
    cache = open_cache(path)
    labels = _cache_labels(cache, label)
    among = rows_where(cache, where) if where else np.ones(cache.rows, bool)
    given = np.array([one is not None for one in labels], bool)
    rows = np.flatnonzero(among & given)
    _check_rows(path, label, rows)
    groups = None if group is None else _numbers(_cache_strings(cache, group, "--group"))[rows]

    def vectors(run: Run) -> np.ndarray:
        check_same_encoder(run, cache)
        return cache.embeddings(run.info["pooling"], run.info["layer"])[rows]

    texts = cache.texts
    return Gold(
        str(path),
        int(among.sum()),
        int((among & ~given).sum()),
        rows,
        [texts[i] for i in rows.tolist()],
        [labels[i] for i in rows.tolist()],
        cache.hashes[rows],
        groups,
        vectors,
    )


def read_table(
    path: Table,
    label: str,
    group: str | None,
    text: str,
    classifiers: Callable[[Run], Classifier],
    tell: Tell | None,
    **reading: Any,
) -> Gold:
    """The labelled rows of a table, encoded when their vectors are asked for: once for all runs of one encoder.

    reading: as ``read_rows`` takes it.
    """
    texts: list[str] = []
    labels: list[Label] = []
    groups: list[str] = []
    columns = Columns(text, labels=(label,), keep=() if group is None else (group,))
    for part in read_rows([path], columns, **reading):
        texts += part.texts.to_pylist()
        labels += part.labels[label]
        groups += part.keep[group].to_pylist() if group is not None else []
    rows = [i for i, one in enumerate(labels) if one is not None]
    _check_rows(path, label, np.array(rows))
    chosen = [texts[i] for i in rows]
    encoded: dict[tuple[Any, ...], np.ndarray] = {}
    readings: list[Reading] = []

    def vectors(run: Run) -> np.ndarray:
        info = run.info
        key = (str(sorted(info["encoder"]["identity"].items(), key=str)), info["pooling"], info["layer"], info["dtype"])
        if key not in encoded:
            classifier = classifiers(run)
            parts, read = [], None
            for start in range(0, len(chosen), ENCODED_ROWS):
                found, some = classifier.encode_counted(chosen[start : start + ENCODED_ROWS])
                parts.append(found)
                read = some if read is None else read + some
                if tell is not None:
                    done = min(start + ENCODED_ROWS, len(chosen))
                    tell(done, len(chosen), done)
            encoded[key] = np.concatenate(parts)
            if read is not None:
                readings.append(read)
        return encoded[key]

    return Gold(
        str(path),
        len(texts),
        len(texts) - len(rows),
        np.array(rows),
        chosen,
        [labels[i] for i in rows],
        hash_texts([one.encode() for one in chosen]),
        None if group is None else _numbers([groups[i] for i in rows]),
        vectors,
        readings,
    )


def _check_rows(path: Table, label: str, rows: np.ndarray) -> None:
    if not len(rows):
        raise EmbedcacheError(f"no row of {path} has a label in column {label!r}: there is nothing to score")


def _cache_labels(cache: Cache, label: str) -> list[Any]:
    """Of every row: a label, a tuple of labels, or None."""
    if label not in cache.labels_names:
        return [value if value.strip() else None for value in _cache_strings(cache, label, "--label")]
    codes, names = cache.labels(label)
    if codes.ndim == 1:
        return [names[code] if code >= 0 else None for code in codes.tolist()]
    missing = unlabelled(codes)
    return [
        None if none else tuple(names[c] for c in np.flatnonzero(row > 0))
        for row, none in zip(codes, missing, strict=True)
    ]


def _cache_strings(cache: Cache, name: str, option: str) -> Sequence[str]:
    if name in cache.column_names:
        return cache.column(name)
    if name in cache.labels_names and cache.label_kind(name) == "classification":
        codes, names = cache.labels(name)
        return [names[code] if code >= 0 else "" for code in codes.tolist()]
    known = ", ".join([*cache.labels_names, *cache.column_names]) or "none"
    raise EmbedcacheError(f"{option} {name}: {cache.path} has no such column; it has {known}")


def _numbers(values: Sequence[str]) -> np.ndarray:
    """int64 [n]: the same number for the same value, -1 for a blank one."""
    number: dict[str, int] = {"": -1}
    return np.array([number.setdefault(value.strip(), len(number)) for value in values], np.int64)
