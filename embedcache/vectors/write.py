"""The vectors of a cache into a file that others read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from embedcache.common.int8_rows import Int8Rows, Matrix
from embedcache.common.machine import check_memory
from embedcache.common.progress import Progress, no_progress
from embedcache.common.whole_file import check_output, open_output
from embedcache.errors import EmbedcacheError
from embedcache.labelling.opened import NONE, notes_of, open_labelled
from embedcache.tables.read import suffixes
from embedcache.tables.write import WRITERS, TableLayout, output_format

if TYPE_CHECKING:
    from embedcache.cache import Cache

NAME = "vectors"  # of the array in .npz and .safetensors
ROWS = 4096  # that are written together


@dataclass(frozen=True)
class VectorsReport:
    """What write_vectors did: ``rows`` vectors ``dim`` wide of ``pooling`` and ``layer``, as numbers of ``dtype``.

    columns: those beside them, in a table. labels_from: the journal over their labels, see docs/labelling.md; notes:
    what it says.
    """

    output: str
    rows: int
    dim: int
    dtype: str
    pooling: str
    layer: int
    columns: list[str]
    seconds: float
    labels_from: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


def write_vectors(
    cache: str | Path,
    output: str | Path,
    *,
    pooling: str | None = None,
    layer: int = -1,
    labels: str | Path | None = None,
    progress: Progress | None = None,
) -> VectorsReport:
    """Write the vectors of a cache; into a table with the id, texts, labels and kept columns before them.

    The numbers are those of the cache (of int8 vectors float32), so that an import of the file has the same.

    Args:
        cache: the cache file.
        output: .npy, .npz or .safetensors for the vectors alone, or a table of any kind that predict writes.
        pooling: which vectors; None: model where it is stored, else cls.
        layer: -1 is the last.
        labels: of a table, a journal of labels that people gave, over the cache's own; "none"; None: that beside it, if
            any.
        progress: called with (done, total, done), in rows.

    Raises:
        EmbedcacheError: no such vectors, some are missing, or the output cannot be written.
    """
    started = time.perf_counter()
    suffix = suffixes(Path(output))[1]
    if suffix not in ARRAYS and suffix not in WRITERS:
        raise EmbedcacheError(
            f"{output}: vectors are not written as '{suffix}': name one of {', '.join([*ARRAYS, *WRITERS])}"
        )
    if suffix in ARRAYS and labels is not None:
        raise EmbedcacheError(f"{output} holds vectors alone: --labels is for a table, which has labels beside them")
    check_output(output, str(cache))
    with open_labelled(cache, NONE if suffix in ARRAYS else labels) as opened:
        pooling = pooling or opened.preferred(layer)
        vectors = opened.embeddings(pooling, layer)
        said = progress or no_progress
        columns: list[str] = []
        if suffix in ARRAYS:
            with open_output(output) as place, place.binary() as file:
                ARRAYS[suffix](file, vectors, said)
        else:
            columns = _write_table(opened, output, pooling, layer, said)
        opened.check_whole()
        rows, dim = vectors.shape
        return VectorsReport(
            str(output),
            rows,
            dim,
            _dtype(vectors).name,
            pooling,
            layer,
            columns,
            time.perf_counter() - started,
            opened.labels_from,
            notes_of(opened.labels_from),
        )


def _dtype(vectors: Matrix) -> np.dtype:
    return np.dtype(np.float32) if isinstance(vectors, Int8Rows) else vectors.dtype


def _parts(vectors: Matrix, progress: Progress) -> Iterator[np.ndarray]:
    """Arrays [n, D], in order."""
    for start in range(0, len(vectors), ROWS):
        yield np.ascontiguousarray(vectors[start : start + ROWS])
        done = min(start + ROWS, len(vectors))
        progress(done, len(vectors), done)


def _write_npy(file: BinaryIO, vectors: Matrix, progress: Progress) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(_dtype(vectors)), "fortran_order": False, "shape": vectors.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in _parts(vectors, progress):
        file.write(part.data)


def _write_npz(file: BinaryIO, vectors: Matrix, progress: Progress) -> None:
    import zipfile

    with zipfile.ZipFile(file, "w") as archive, archive.open(f"{NAME}.npy", "w", force_zip64=True) as member:
        _write_npy(member, vectors, progress)  # type: ignore[arg-type]


def _write_safetensors(file: BinaryIO, vectors: Matrix, progress: Progress) -> None:
    from safetensors.numpy import save

    size = vectors.shape[0] * vectors.shape[1] * _dtype(vectors).itemsize
    check_memory(2 * size, "a .safetensors file of these vectors", "write .npy, which needs none")
    file.write(save({NAME: np.concatenate(list(_parts(vectors, progress)))}))


ARRAYS: dict[str, Callable[[BinaryIO, Matrix, Progress], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}


def _write_table(cache: Cache, output: str | Path, pooling: str, layer: int, progress: Progress) -> list[str]:
    """Returns the columns beside the vectors."""
    import pyarrow as pa

    kind = output_format(output)
    first = cache.to_arrow(slice(0, 1), vectors=pooling, layer=layer)
    types = [one.value_type if pa.types.is_dictionary(one) else one for one in first.schema.types]
    with open_output(output) as place, kind.open(place, TableLayout(first.schema.names, types)) as writer:
        for start in range(0, cache.rows, ROWS):
            part = cache.to_arrow(slice(start, start + ROWS), vectors=pooling, layer=layer)
            columns = [
                column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in part.columns
            ]
            writer.write([one.dictionary_decode() if pa.types.is_dictionary(one.type) else one for one in columns])
            done = min(start + ROWS, cache.rows)
            progress(done, cache.rows, done)
    return first.schema.names[:-1]
