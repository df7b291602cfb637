"""Open a cache for reading: everything is a view into one read-only memory map, nothing is copied.

No HDF5 handle stays open, so readers never block a writer, survive a fork and can be shared by threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import frames
from embedcache.cache import layout as lay
from embedcache.cache.fingerprint import fingerprint, output_fingerprint
from embedcache.cache.hdf5_structure import DamagedCacheError, parse_output, structure_of, unreadable
from embedcache.cache.label_columns import LabelColumns, LabelSource, known
from embedcache.cache.labels import label_counts, label_of, unlabelled, valid_codes
from embedcache.cache.layout import Output, block_path, quote
from embedcache.cache.map_file import map_file
from embedcache.cache.state_files import open_states
from embedcache.cache.stored_rows import joined
from embedcache.cache.strings import Strings, valid_offsets
from embedcache.cache.token_states import TokenStates
from embedcache.common.display import html_table
from embedcache.common.encoder_schema import parse_encoder
from embedcache.common.frames import Tabular
from embedcache.common.int8_rows import Int8Rows, Matrix
from embedcache.common.outputs import Layer, parts_of
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def open_cache(path: str | os.PathLike[str], *, labels: LabelSource | None = None) -> Cache:
    """Open the cache at ``path`` for reading.

    Args:
        path: the file.
        labels: what lies over the labels of the file, such as an ``Overlay`` of those that people gave; None: nothing.

    Raises:
        EmbedcacheError: it is missing, unreadable, not an embedcache file, of a newer format version, cut short or
            damaged in its structure. The vectors' own checksums are looked at by ``verify``, not here.
    """
    cache = Cache(path, labels)
    if not cache.sealed:
        raise _damaged(cache.path, "its attributes have changed")
    cache.check_contents()
    return cache


class Cache(LabelColumns, Tabular):
    """An open cache of N rows. Use ``open_cache``; close it, or use it as a context manager.

    The constructor alone only makes sure that the structure can be mapped; writers and ``verify`` start from there.

    Attributes:
        path: the file, as an absolute path.
        layout: names, types and shapes of all datasets.
        encoder: ``{"source": where the model was, "identity": {...}, "store": "float16"}``.
        fingerprint: hex digest of what makes vectors comparable (identity, store dtype, format version).
        created: when the file was made, ISO 8601.
        sealed: whether the attributes are as they were written.
    """

    def __init__(self, path: str | os.PathLike[str], labels: LabelSource | None = None) -> None:
        self.path = Path(path).absolute()
        structure, self._map, self.inode = map_file(self.path, structure_of)
        self.layout, self._offsets, self.created, seal = structure
        encoder = parse_encoder(str(self.layout.attrs["encoder"]))
        version = lay.version_of(encoder["store"]) if encoder else None
        self.sealed = seal == self.layout.seal(self.created) and version == self.layout.attrs["format_version"]
        self.encoder: dict[str, Any] = encoder or {"source": "", "identity": {}, "store": "float16"}
        self.fingerprint = fingerprint(self.encoder)
        found = [path for path in self.layout.datasets if lay.is_embedding(path)]
        self.output_paths: dict[Output, str] = {parse_output(path): path for path in found}
        self.side_by_side: dict[tuple[str, int | str], np.ndarray] = {}  # see side_by_side.vectors_of
        super().__init__(labels)

    def __repr__(self) -> str:
        labels = ", ".join(map(repr, self.label_names)) or "none"
        kept = f"{self.rows:,} rows x {self.dim}, {'+'.join(self.poolings)}, labels {labels}"
        return f"Cache({str(self.path)!r}, {kept}{'' if self._map.size else ', closed'})"

    def _repr_html_(self) -> str:
        """For notebooks: the first rows."""
        title = f"{self.path.name}: {self.rows:,} rows x {self.dim}, {', '.join(map(lay.output_name, self.outputs))}"
        title += f"; encoder {Path(self.encoder['source']).name}"
        if not self._map.size:
            return html_table(title, (), [], "closed")
        coded = {name: self.labels(name) for name in self.label_names}
        rows = (
            (i, self.texts[i], *(label_of(codes[i], names) for codes, names in coded.values()))
            for i in range(self.rows)
        )
        return html_table(
            title, ("row", "text", *coded), rows, f"kept columns: {', '.join(self.column_names) or 'none'}"
        )

    def __len__(self) -> int:
        return self.rows

    def __bool__(self) -> bool:
        return True  # also without rows: it is there

    def to_arrow(self, rows: frames.Rows = None, *, vectors: str | Sequence[str] = (), layer: int = -1) -> pa.Table:
        """The rows as a pyarrow.Table: the id column, text, label columns, kept columns, and vectors if asked for.

        Texts, codes of labels and vectors are not copied where ``rows`` is a slice; they stay valid after ``close``.
        Labels are names (dictionary-encoded, or lists of names), null where a row has none. Vectors are fixed-size
        lists named by their pooling. A column whose name is taken already gets _2.

        Args:
            rows: a slice, row numbers, or booleans [N]; None is all.
            vectors: poolings, "cls" or ["cls", "mean"], of ``layer``.
            layer: the layer of the vectors; -1 is the last.

        Raises:
            EmbedcacheError: no such row or vectors, vectors that are still missing, a damaged text.
        """
        return frames.cache_table(self, rows, vectors, layer)

    def to_pandas(
        self, rows: frames.Rows = None, *, vectors: str | Sequence[str] = (), layer: int = -1
    ) -> pd.DataFrame:
        """The same as a pandas.DataFrame, whose index has the row numbers."""
        return frames.cache_frame(self, rows, vectors, layer)

    @property
    def rows(self) -> int:
        """N."""
        return self.layout.rows

    @property
    def dim(self) -> int:
        """D, the width of the encoder's vectors; those of ``model`` may have another, see ``width``."""
        return self.width(self.outputs[0])

    def width(self, output: Output) -> int:
        """The width of the vectors of a stored (pooling, layer)."""
        return self.layout.datasets[self.output_paths[output]][1][1]

    @property
    def outputs(self) -> list[Output]:
        """The stored (pooling, layer) pairs."""
        return list(self.output_paths)

    @property
    def poolings(self) -> list[str]:
        return list(dict.fromkeys(pooling for pooling, _ in self.output_paths))

    def preferred(self, layer: Layer = -1) -> str:
        """The pooling that is used where none is named: ``model``, else ``cls``, else the first that has the layer.

        Of layers side by side, the first one tells.
        """
        (_, first), *_ = parts_of("", layer)
        there = [pooling for pooling, number in self.outputs if number == first] or self.poolings
        return next((name for name in ("model", "cls") if name in there), there[0])

    @property
    def texts(self) -> Strings:
        """The N texts, read when they are asked for."""
        return self._strings(lay.TEXT, "text")

    @property
    def hashes(self) -> np.ndarray:
        """[N, 16] uint8, BLAKE2b of each text."""
        return self.array(lay.HASH)

    @property
    def truncated(self) -> np.ndarray:
        """[N] uint8, 1 where the text was longer than the encoder's max_length (once it is encoded)."""
        return self.array(lay.TRUNCATED)

    @property
    def text_column(self) -> str | None:
        """What the texts were called in the table; None: "text", or nothing is known of it."""
        name = self.layout.attrs.get("text_column")
        return None if name is None else str(name)

    @property
    def id_column(self) -> str | None:
        name = self.layout.attrs.get("id_column")
        return None if name is None else str(name)

    @property
    def shard(self) -> str | None:
        """ "I/N" where it holds only part I of N of an input."""
        name = self.layout.attrs.get("shard")
        return None if name is None else str(name)

    @property
    def ids(self) -> Strings | None:
        """The N values of the id column, if there is one."""
        return None if self.id_column is None else self.column(self.id_column)

    def embeddings(self, pooling: str | None = None, layer: int = -1, *, allow_incomplete: bool = False) -> Matrix:
        """[N, D] float16 or float32, a read-only view of the file; without a name those of ``preferred``.

        Where they are stored as int8, an ``Int8Rows`` of views of the file: the rows that are read of it are float32.

        Raises:
            EmbedcacheError: this pooling and layer are not stored, or vectors are still missing (which then are zeros
                under ``allow_incomplete``).
        """
        pooling = pooling or self.preferred(layer)
        path = self._output(pooling, layer)
        missing = 0 if allow_incomplete else self.missing_rows(pooling, layer)
        if missing:
            raise EmbedcacheError(
                f"{self.path} is not complete: {missing:,} of {self.rows:,} rows have no vector; "
                "run the same extract again: it continues where it stopped"
            )
        return self._vectors(path)

    def stored_rows(self, path: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of the vectors at ``path`` as a file takes them, see ``stored_rows.py``."""
        first, *scales = (self.array(dataset)[rows] for dataset in self.vector_datasets(path))
        return joined(first, *scales) if scales else first

    def vector_datasets(self, path: str) -> list[str]:
        """The datasets that the vectors at ``path`` are made of: themselves, and their scales where they are int8."""
        scales = lay.scales_path(path)
        return [path, scales] if scales in self.layout.datasets else [path]

    def _vectors(self, path: str) -> Matrix:
        first, *scales = (self.array(dataset) for dataset in self.vector_datasets(path))
        return Int8Rows(first, *scales) if scales else first

    def token_states(self) -> TokenStates:
        """What the last layers of the encoder read of every row's tokens, from the files beside the cache.

        Raises:
            EmbedcacheError: it has none, not those of all rows, or they are another encoder's or damaged.
        """
        return TokenStates(open_states(self.path, self.encoder), self.hashes)

    def missing_rows(self, pooling: str | None = None, layer: int = -1) -> int:
        """Rows in blocks that have no checksum yet."""
        absent = self.absent_blocks(self._output(pooling or self.preferred(layer), layer))
        sizes = np.full(len(absent), lay.BLOCK_ROWS)
        sizes[-1:] = self.rows - (len(absent) - 1) * lay.BLOCK_ROWS
        return int(sizes[absent].sum())

    @property
    def complete(self) -> bool:
        """Whether every row has all its vectors."""
        return not any(self.missing_rows(*output) for output in self.outputs)

    def column(self, name: str) -> Strings:
        """The N values of a kept column, read when they are asked for."""
        given = self.source is not None and name not in self.own_label_names and name in self.source.columns
        if given and name in self.column_names and name != self.id_column:
            return self.corrected_cells(name)
        return self.own_column(name)

    def own_column(self, name: str) -> Strings:
        """The same, as it is in the file."""
        if name not in self.column_names:
            raise EmbedcacheError(f"{self.path} has no kept column {name!r}; {known(self.column_names)}")
        return self._strings(f"{lay.COLUMNS}/{quote(name)}", f"column {name!r}")

    def array(self, path: str) -> np.ndarray:
        """A dataset (or its checksums under ``blocks/``) as a read-only view of the file."""
        checksums = "|u1", (self.layout.blocks, lay.DIGEST_BYTES)
        kind, shape = checksums if path.startswith(lay.BLOCKS + "/") else self.layout.datasets[path]
        start = self._offsets[path]
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return self._map[start : start + size].view(kind).reshape(shape)

    def checksums(self, path: str) -> np.ndarray:
        """[blocks, 16] uint8, all zero where a block is absent."""
        return self.array(block_path(path))

    def absent_blocks(self, path: str) -> np.ndarray:
        """[blocks] bool, True where nothing was ever committed."""
        return np.logical_not(self.checksums(path).any(axis=1))

    def offset(self, path: str) -> int:
        """Where the dataset begins in the file, in bytes."""
        return self._offsets[path]

    def salt(self, path: str) -> bytes:
        """What a block's checksum binds besides the bytes: the encoder, or else the name of the dataset."""
        if lay.is_embedding(path):
            return output_fingerprint(self.encoder, parse_output(path))
        return path.encode("utf-8", "surrogateescape")

    def info(self) -> dict[str, Any]:
        """What `embedcache info` prints."""
        labels = {}
        for name in self.label_names:
            codes, classes = self.labels(name)
            labels[name] = {
                "kind": self.label_kind(name),
                "missing": int(np.count_nonzero(unlabelled(codes))),
                "classes": dict(zip(classes, label_counts(codes, len(classes)).tolist(), strict=True)),
            }
        return {
            "cache": str(self.path),
            "rows": self.rows,
            "dim": self.dim,
            "poolings": self.poolings,
            "outputs": [
                {"pooling": p, "layer": k, "dim": self.width((p, k)), "missing_rows": self.missing_rows(p, k)}
                for p, k in self.outputs
            ],
            "labels": labels,
            "columns": self.column_names,
            "id_column": self.id_column,
            "text_column": self.text_column,
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
            "shard": self.shard,
            "blocks": self.layout.blocks,
            "complete": self.complete,
            "truncated": int(np.count_nonzero(self.truncated)),
            "created": self.created,
            "bytes": self._map.size,
        }

    def check_whole(self) -> None:
        """Raise EmbedcacheError where the file has been cut short since it was opened.

        The system silently fills the rest of the last page with zeros; pages after it end the process (a command
        reports it: common/guard.py). A file that a writer has put in its place does no harm.
        """
        with suppress(OSError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self.inode and status.st_size < self._map.size:
                raise unreadable(self.path, "it was cut short while it was read")

    def close(self) -> None:
        """Release the map; arrays that were handed out stay valid."""
        self._map = np.empty(0, np.uint8)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _output(self, pooling: str, layer: int) -> str:
        try:
            return self.output_paths[pooling, layer]
        except KeyError:
            known = ", ".join(map(lay.output_name, self.outputs))
            name = lay.output_name((pooling, layer))
            option = f"--pooling {pooling}" + ("" if layer == -1 else f" --layers {layer}")
            raise EmbedcacheError(
                f"{self.path} has no {name} vectors, only {known}; run extract with {option} to add them"
            ) from None

    def _strings(self, group: str, name: str) -> Strings:
        return Strings(self.array(f"{group}/bytes"), self.array(f"{group}/offsets"), name)

    def check_contents(self) -> None:
        """Offsets and codes must be usable as such: they index other arrays."""
        for path in self.layout.datasets:
            if path.startswith((lay.TEXT, lay.COLUMNS)) and path.endswith("/offsets"):
                end = self.layout.datasets[path.removesuffix("offsets") + "bytes"][1][0]
                if not valid_offsets(self.array(path), end):
                    raise _damaged(self.path, f"{path} is not in order")
        for column, classes in self.layout.classes.items():
            if not valid_codes(self.array(f"{lay.LABELS}/{quote(column)}"), len(classes)):
                raise _damaged(self.path, f"codes of label {column!r} are out of range")


def _damaged(path: Path, reason: str) -> DamagedCacheError:
    return DamagedCacheError(f"{path} is damaged: {reason}; run the same extract again to repair it")
