"""The door: from a file, a frame or an array to checked vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.encoder_schema import imported_name
from embedcache.errors import EmbedcacheError
from embedcache.tables.memory import Frame
from embedcache.tables.packing import PACKINGS
from embedcache.tables.read import OTHERS, suffixes
from embedcache.tables.source import existing_file
from embedcache.tables.stream import Stored
from embedcache.vectors.formats import VECTOR_FORMATS
from embedcache.vectors.formats.arrays import ArrayInMemory
from embedcache.vectors.formats.arrow_columns import ArrowFile
from embedcache.vectors.formats.base import VectorFile


def open_vectors(given: Any, column: str | None = None, **reading: Any) -> VectorFile:
    """Open vectors, by what was given, or by the last suffixes of its name.

    Args:
        given: a path, what came through a stream, a table in memory, or an array [N, D].
        column: which of several arrays or columns.
        reading: how text files are read, as in ``open_source``.

    Raises:
        EmbedcacheError: there is no such file, its kind is unknown, or it holds no such vectors.
    """
    if isinstance(given, Frame):
        return ArrowFile(given, column)
    if hasattr(given, "detach"):
        given = given.detach().cpu().numpy()  # torch's
    if isinstance(given, np.ndarray):
        return ArrayInMemory(given)
    compression, suffix = suffixes(Path(given.known_as or given.name if isinstance(given, Stored) else given))
    format = VECTOR_FORMATS.get(suffix)
    if format is None or (compression and suffix not in (".jsonl", ".ndjson", ".json")):
        if not isinstance(given, Stored):
            existing_file(Path(given))
        advice = OTHERS.get(suffix, "convert it, such as with numpy.save")
        packed = f"; .jsonl and .json also with {', '.join(PACKINGS)} after it"
        known = ", ".join(VECTOR_FORMATS)
        raise EmbedcacheError(
            f"{given}: no vectors are read from '{suffix + compression}': {advice}; known are {known}{packed}"
        )
    return format.open(given, column, **reading)


def holds_vectors_alone(path: object) -> bool:
    """Whether a file of this name holds arrays and no texts, so that nobody needs to say that it does."""
    if not isinstance(path, (str, Path)):
        return isinstance(path, np.ndarray)
    format = VECTOR_FORMATS.get(suffixes(Path(path))[1])
    return format is not None and not format.is_table and not suffixes(Path(path))[1].startswith((".h5", ".hdf5"))


def checked(file: VectorFile, first: int = 0, dim: int | None = None) -> Iterator[np.ndarray]:
    """Arrays [n, D] of float16, float32 or float64, from the row ``first`` on; ``dim``: how wide they must be.

    Raises:
        EmbedcacheError: a row that is not finite, or of another width; where it is.
    """
    row = first
    for part in file.batches(first):
        if part.dtype.kind not in "fiu" or part.ndim != 2:
            raise EmbedcacheError(f"{file.place(row)}: {part.dtype} {list(part.shape)} are no vectors of numbers")
        if dim is not None and part.shape[1] != dim:
            raise EmbedcacheError(f"{file.place(row)}: the vector has {part.shape[1]:,} numbers, not {dim:,}")
        dim = part.shape[1]
        if not dim:
            raise EmbedcacheError(f"{file.place(row)}: the vector is empty: leave the row out")
        native = part.astype(part.dtype.newbyteorder("="), copy=False)
        values = native if native.dtype.kind == "f" and native.itemsize <= 8 else native.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            kind = "NaN" if np.isnan(values[bad[0]]).any() else "infinity"
            raise EmbedcacheError(f"{file.place(row + int(bad[0]))}: the vector holds {kind}: leave the row out")
        yield values
        row += len(part)


def check_maker(name: str, encoder: str | None, about: Mapping[str, Any], owner: str) -> None:
    """Raise EmbedcacheError where a file says that its vectors are of another encoder than those of ``owner``.

    Args:
        name: the file's name.
        encoder: what it says, if anything.
        about: the owner's encoder description.
        owner: the cache or the run.
    """
    known = imported_name(about)
    if encoder is not None and known is not None and about["identity"]["imported"] == known != encoder:
        raise EmbedcacheError(f"{name} has vectors of {encoder}, {owner} of {known}: they cannot be compared")


@dataclass(frozen=True)
class Scanned:
    """What a pass over all vectors found.

    Attributes:
        rows: of each file. dim: D. dtype: "float16" where all numbers are that, else "float32".
        wide: whether some numbers have more digits than float32 keeps.
        zero: rows of zeros alone. digest: of the numbers, whatever the format.
    """

    rows: list[int]
    dim: int
    dtype: str
    wide: bool
    zero: int
    digest: str


def scan(files: Sequence[VectorFile]) -> Scanned:
    """Read all vectors once, before anything is made of them.

    Raises:
        EmbedcacheError: there are none, or one that cannot be used.
    """
    digest, dim = blake2b(digest_size=16), None
    counts, kinds, zero = [], set(), 0
    for file in files:
        rows = 0
        for part in checked(file, dim=dim):
            rows, dim = rows + len(part), part.shape[1]
            kinds.add(part.dtype.name)
            digest.update(np.ascontiguousarray(part).data)
            zero += int(np.count_nonzero(~part.any(axis=1)))
        if not rows:
            raise EmbedcacheError(
                f"{file.name} has no rows: there is nothing to import; check that it is the right file"
            )
        counts.append(rows)
    digest.update(f"{dim} {sorted(kinds)}".encode())
    assert dim is not None
    dtype = "float16" if kinds == {"float16"} else "float32"
    return Scanned(counts, dim, dtype, "float64" in kinds, zero, digest.hexdigest())
