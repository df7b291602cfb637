"""What an embedcache file is made of: names, types, block spans and the seal over its attributes.

docs/cache-file.md tells the same story for people. Nothing here touches a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.int8_rows import INT8
from embedcache.common.outputs import Layer

FORMAT, STATES_FORMAT = "embedcache", "embedcache token states"
FORMAT_VERSION = 1  # of files whose vectors are float16 or float32, which the first versions read too
INT8_VERSION = 2  # of files whose vectors are int8 with scales; older versions refuse it by its number
STORES = ("float16", "float32", INT8)  # the types of stored vectors
MULTILABEL = "multilabel"  # the kind of a label column that holds lists
BLOCK_ROWS = 1024
DIGEST_BYTES = 16
ALIGNMENT = 4096

TEXT, HASH, TRUNCATED, TOKENS = "text", "rows/hash", "rows/truncated", "rows/tokens"
EMBEDDINGS, SCALES, LABELS, COLUMNS, BLOCKS = "embeddings", "scales", "labels", "columns", "blocks"

Output = tuple[str, int]  # (pooling, layer), layer -1 is the last
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Everything of a file that is fixed at its creation, apart from the bytes of the datasets.

    Attributes:
        attrs: root attributes, without ``created`` and ``seal``.
        classes: class names of every label column, in the order of their codes.
        datasets: path -> (NumPy type string, shape), checksums under ``blocks/`` left out.
        kinds: MULTILABEL for every label column that holds lists; the others are not in it.
        positions: how many tokens the encoder can read at most; None where that is not known.
    """

    attrs: dict[str, str | int]
    classes: dict[str, list[str]] = field(default_factory=dict)
    datasets: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    positions: int | None = field(default=None, compare=False)

    @property
    def counted(self) -> bool:
        """Whether the tokens of each text are kept; files of the first versions do not have them."""
        return TOKENS in self.datasets

    def uncounted(self) -> Layout:
        """The same without them."""
        return replace(self, datasets={path: what for path, what in self.datasets.items() if path != TOKENS})

    @property
    def rows(self) -> int:
        return self.datasets[HASH][1][0]

    @property
    def blocks(self) -> int:
        """The number of blocks of every dataset."""
        return -(-self.rows // BLOCK_ROWS)

    def seal(self, created: str) -> str:
        """Digest of all names, types, shapes and attributes: HDF5 itself does not checksum long attributes.

        Token counts are left out, so that versions that do not know them read the file too.
        """
        datasets = self.uncounted().datasets
        parts = [self.attrs, self.classes, {k: [t, list(s)] for k, (t, s) in datasets.items()}, created]
        parts += [self.kinds] if self.kinds else []  # as it was before there were any
        return blake2b(canonical_json(parts).encode(), digest_size=DIGEST_BYTES).hexdigest()

    @property
    def checked(self) -> list[str]:
        """The datasets that have checksums of their own; the vectors' ones bind the scales and the truncation flags."""
        return [path for path in self.datasets if path != TRUNCATED and not path.startswith(SCALES + "/")]

    def with_checksums(self) -> dict[str, tuple[str, Shape]]:
        """The datasets and their ``blocks/<path>``."""
        digests = {block_path(path): ("|u1", (self.blocks, DIGEST_BYTES)) for path in self.checked}
        return {**self.datasets, **digests}


def canonical_json(value: Any) -> str:
    """The same text for the same value, in pure ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def sibling(cache: Path, kind: str) -> Path:
    """A hidden file beside the cache: ``.reviews.h5.lock``."""
    return cache.with_name(f".{cache.name}.{kind}")


def block_path(path: str) -> str:
    return f"{BLOCKS}/{path}"


def is_embedding(path: str) -> bool:
    return path.startswith(EMBEDDINGS + "/")


def scales_path(path: str) -> str:
    """Where the scales of the int8 vectors at ``path`` lie: ``scales/cls`` of ``embeddings/cls``."""
    return SCALES + path.removeprefix(EMBEDDINGS)


def version_of(store: str) -> int:
    """The format version of a file whose vectors are of this type."""
    return INT8_VERSION if store == INT8 else FORMAT_VERSION


def comes_with_vectors(path: str) -> bool:
    """Whether a dataset is filled block by block with the vectors, rather than before the file gets its name."""
    return is_embedding(path) or path == TOKENS


def output_paths(outputs: Sequence[Output]) -> dict[Output, str]:
    """Where each (pooling, layer) lies: ``embeddings/cls``, or ``embeddings/cls/layer-4`` beside other layers."""
    layers: dict[str, list[int]] = {}
    for pooling, layer in outputs:
        layers.setdefault(pooling, []).append(layer)
    return {
        (pooling, layer): f"{EMBEDDINGS}/{pooling}" + ("" if layers[pooling] == [-1] else f"/layer{layer}")
        for pooling, layer in outputs
    }


def output_name(output: tuple[str, Layer]) -> str:
    """How people call it: ``cls``, ``mean (layer -4)``."""
    pooling, layer = output
    return pooling if layer == -1 else f"{pooling} (layer {layer})"


_QUOTED = {c: f"%{ord(c):02X}" for c in "%/\0"}


def quote(name: str) -> str:
    """A column name as an HDF5 link name, which may be neither empty nor ``.`` and holds no slash."""
    if name in ("", "."):
        return "%" + name.replace(".", "2E")
    return "".join(_QUOTED.get(c, c) for c in name)


def unquote(link: str) -> str:
    if link in ("%", "%2E"):
        return link[1:].replace("2E", ".")
    for char in "/\0%":
        link = link.replace(_QUOTED[char], char)
    return link


def block_span(path: str, block: int, rows: int, offsets: Callable[[str], np.ndarray]) -> slice:
    """The elements of dataset ``path`` that belong to a block.

    ``offsets(group)`` gives the text offsets of a group; a block of text is the bytes of its rows, and a block of
    offsets has both ends.
    """
    start, stop = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, rows)
    group, _, leaf = path.rpartition("/")
    if leaf == "offsets":
        return slice(start, stop + 1)
    if leaf == "bytes":
        return slice(int(offsets(group)[start]), int(offsets(group)[stop]))
    return slice(start, stop)
