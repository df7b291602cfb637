"""The rows that are compared: those of a cache, read as they are, or of a table, encoded by the cache's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.fingerprint import differences, for_pooling
from embedcache.cache.strings import hash_texts
from embedcache.cache.where import rows_where
from embedcache.common.int8_rows import as_stored, stored_type
from embedcache.common.progress import Progress
from embedcache.encoder.load_again import encoder_of
from embedcache.errors import EmbedcacheError
from embedcache.labelling import open_labelled
from embedcache.prediction.rows import is_cache
from embedcache.tables.rows import Columns, column_names, read_rows, text_column
from embedcache.tables.stream import Table, stored

MOST = 10_000  # rows that are compared on each side, drawn where there are more
ENCODED = 2048  # texts of a table, encoded at a time


@dataclass(frozen=True)
class ComparedRows:
    """One side.

    Attributes:
        name: of the cache or table. rows: all its rows.
        places: int64 [n], the numbers of those that are compared.
        texts: theirs. hashes: uint8 [n, 16] of the texts.
        vectors: float [n, D].
        labels: label columns of one label a row, kept: the other columns; name -> n values, "" for none.
        labels_from: of a cache, the journal that lies over its labels: ``Cache.labels_from``.
    """

    name: str
    rows: int
    places: np.ndarray
    texts: list[str]
    hashes: np.ndarray
    vectors: np.ndarray
    labels: dict[str, list[str]]
    kept: dict[str, list[str]]
    labels_from: dict[str, Any] | None = None


def sampled(rows: np.ndarray) -> np.ndarray:
    """int64, ascending: at most 10,000 of these rows, the same at every call."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:MOST])


def rows_of_cache(cache: Cache, output: tuple[str, int], where: Sequence[str] = ()) -> ComparedRows:
    """Those of a cache; where: conditions. Raises EmbedcacheError where none meets them."""
    every = np.flatnonzero(rows_where(cache, where)) if where else np.arange(cache.rows)
    places = sampled(every)
    texts, numbers = cache.texts, places.tolist()
    labels = {}
    for name in cache.label_names:
        if not cache.holds_lists(name):
            codes, names = cache.labels(name)
            labels[name] = [names[code] if code >= 0 else "" for code in codes[places].tolist()]
    values = {name: cache.column(name) for name in cache.column_names if name not in labels and name != cache.id_column}
    return ComparedRows(
        str(cache.path),
        len(every),
        places,
        [texts[i] for i in numbers],
        cache.hashes[places],
        np.asarray(cache.embeddings(*output)[places]),
        labels,
        {name: [column[i].strip() for i in numbers] for name, column in values.items()},
        cache.labels_from,
    )


def rows_of(
    new: str | Path,
    like: Cache,
    output: tuple[str, int],
    text: str | None,
    progress: Progress,
    load: dict[str, Any],
    labels: str | None = None,
    **reading: Any,
) -> ComparedRows:
    """Those of a cache of the same encoder, or of a table.

    Args:
        new: The cache or table; "-" is standard input.
        like: The old cache, whose columns are looked for.
        output: The (pooling, layer) that is compared.
        text: The column of texts of a table.
        progress: Hears of encoded texts.
        load: ``model``, ``device`` and ``trust_remote_code`` of the encoder.
        labels: of a cache, see ``open_labelled``.
        reading: encoding, separator and sheet of a table.

    Raises:
        EmbedcacheError: It cannot be read; a cache of another encoder.
    """
    if is_cache(new):
        with open_labelled(new, labels) as cache:
            if differs := differences(for_pooling(cache.encoder, output[0]), for_pooling(like.encoder, output[0])):
                raise EmbedcacheError(
                    f"the vectors of {new} and {like.path} are of different encoders ({differs}): name the table "
                    "itself, and it is encoded as the cache was"
                )
            return rows_of_cache(cache, output)
    with stored(new) as table:
        return _rows_of_table(table, like, output, text, progress, load, reading)


def _rows_of_table(
    table: Table,
    like: Cache,
    output: tuple[str, int],
    text: str | None,
    progress: Progress,
    load: dict[str, Any],
    reading: dict[str, Any],
) -> ComparedRows:
    there = column_names(table, **reading)
    text = text_column(text, like.text_column, lambda: there)
    labels = tuple(name for name in like.label_names if name in there and not like.holds_lists(name))
    kept = tuple(name for name in like.column_names if name in there and name not in labels and name != like.id_column)
    texts: list[str] = []
    found: dict[str, list[str]] = {name: [] for name in (*labels, *kept)}
    for part in read_rows([table], Columns(text, labels=labels, keep=kept), **reading):
        texts += part.texts.to_pylist()
        for name in labels:
            found[name] += [one if isinstance(one, str) else "" for one in part.labels[name]]
        for name in kept:
            found[name] += [value.strip() for value in part.keep[name].to_pylist()]
    places = sampled(np.arange(len(texts)))
    chosen = [texts[i] for i in places.tolist()]
    encoder = encoder_of(like.encoder, str(like.path), output[0], has_option=True, **load)
    parts = []
    for start in range(0, len(chosen), ENCODED):
        parts.append(encoder.encode_texts(chosen[start : start + ENCODED], [output])[0])
        done = min(start + ENCODED, len(chosen))
        progress(done, len(chosen), done)
    vectors = np.concatenate(parts) if parts else np.zeros((0, like.width(output)), np.float32)
    some = {name: [values[i] for i in places.tolist()] for name, values in found.items()}
    return ComparedRows(
        str(table),
        len(texts),
        places,
        chosen,
        hash_texts([one.encode() for one in chosen]),
        as_stored(vectors, stored_type(like.embeddings(*output))),
        {name: some[name] for name in labels},
        {name: some[name] for name in kept},
    )


def check_path(path: str | Path) -> None:
    """Raises EmbedcacheError unless the old rows are those of a cache."""
    if Path(path).exists() and not is_cache(path):  # of one that is not there, opening it says so
        raise EmbedcacheError(f"{path} is not a cache: name the cache of the old rows first, then the new rows")
