"""A cache's rows as an Arrow table: texts, codes and vectors stay where they are, in the map of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache.labels import unlabelled
from embedcache.cache.strings import Strings
from embedcache.common.frames import frame, free_names
from embedcache.common.int8_rows import Matrix
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from embedcache.cache.file import Cache

Rows = slice | range | Sequence[int] | np.ndarray | None


def row_numbers(cache: Cache, rows: Rows) -> range | np.ndarray:
    """Which rows are meant: a run of them (no step) as a range, others as int64 [n].

    Raises:
        EmbedcacheError: there is no such row, or it is not a row number.
    """
    if rows is None:
        return range(cache.rows)
    if isinstance(rows, slice):
        rows = range(*rows.indices(cache.rows))
    if isinstance(rows, range) and rows.step == 1 and rows.start >= 0 and rows.stop <= cache.rows:
        return range(rows.start, max(rows.start, rows.stop))
    numbers = np.asarray(rows)
    if numbers.dtype == bool and numbers.shape == (cache.rows,):
        return np.flatnonzero(numbers)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise EmbedcacheError(f"rows must be a slice, row numbers or {cache.rows:,} booleans, not {rows!r:.80}")
    wrong = (numbers < 0) | (numbers >= cache.rows)
    if wrong.any():
        row = numbers[wrong.argmax()]
        raise EmbedcacheError(f"{cache.path} has no row {row}: it has {cache.rows:,}, counted from 0")
    return numbers.astype(np.int64)


def cache_table(cache: Cache, rows: Rows, vectors: str | Sequence[str], layer: int) -> pa.Table:
    """See ``Cache.to_arrow``."""
    import pyarrow as pa

    numbers = row_numbers(cache, rows)
    poolings = [vectors] if isinstance(vectors, str) else list(vectors)
    outputs = {pooling: cache.embeddings(pooling, layer) for pooling in poolings}
    kept = [name for name in cache.column_names if name not in cache.label_names]
    first = [name for name in kept if name == cache.id_column]
    rest = [name for name in kept if name != cache.id_column]
    places = free_names((), [*first, "text", *cache.label_names, *rest, *poolings])
    columns: dict[str, Any] = {places[name]: _strings(cache.column(name), numbers) for name in first}
    columns[places["text"]] = _strings(cache.texts, numbers)
    for name in cache.label_names:
        columns[places[name]] = _labels(*cache.labels(name), numbers)
    columns |= {places[name]: _strings(cache.column(name), numbers) for name in rest}
    columns |= {places[name]: _vectors(array, numbers) for name, array in outputs.items()}
    return pa.table(columns)


def cache_frame(cache: Cache, rows: Rows, vectors: str | Sequence[str], layer: int) -> pd.DataFrame:
    """The same as a DataFrame; its index has the row numbers."""
    found, numbers = frame(cache_table(cache, rows, vectors, layer)), row_numbers(cache, rows)
    found.index = found.index + numbers.start if isinstance(numbers, range) else numbers
    found.index.name = "row"
    return found


def _strings(strings: Strings, rows: range | np.ndarray) -> pa.Array:
    """Raises EmbedcacheError where the file is damaged: what is not UTF-8 must not get into a text of Arrow's."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(strings.offsets), pa.py_buffer(strings.data)]
    if isinstance(rows, range):
        found = pa.Array.from_buffers(pa.large_string(), len(rows), buffers, -1, rows.start)
    else:
        found = pa.Array.from_buffers(pa.large_string(), len(strings), buffers).take(pa.array(rows))
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        for row in rows:
            strings[int(row)]  # says which
        raise
    return found


def _labels(codes: np.ndarray, classes: list[str], rows: range | np.ndarray) -> pa.Array:
    """Names: numbered by a dictionary, or lists of them; null where a row has no label."""
    import pyarrow as pa

    codes = np.asarray(codes[rows.start : rows.stop] if isinstance(rows, range) else codes[rows])
    names, missing = pa.array(classes, pa.string()), unlabelled(codes)
    if codes.ndim == 1:
        valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
        numbers = pa.Array.from_buffers(pa.int32(), len(codes), [valid, pa.py_buffer(np.ascontiguousarray(codes))])
        return pa.DictionaryArray.from_arrays(numbers, names)
    there = codes > 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    values = names.take(pa.array(np.nonzero(there)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(missing) if missing.any() else None)


def _vectors(array: Matrix, rows: range | np.ndarray) -> pa.Array:
    """Fixed-size lists [D], of float16 or float32 (of vectors stored as int8, too)."""
    import pyarrow as pa

    some = np.ascontiguousarray(array[rows.start : rows.stop] if isinstance(rows, range) else array[rows])
    flat = pa.Array.from_buffers(pa.from_numpy_dtype(some.dtype), some.size, [None, pa.py_buffer(some.reshape(-1))])
    return pa.FixedSizeListArray.from_arrays(flat, some.shape[1])
