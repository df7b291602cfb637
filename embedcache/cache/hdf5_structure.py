"""Read the HDF5 structure of a file that may be broken or hostile, and refuse it before anything is mapped.

Only plain data is accepted: contiguous datasets of the known types, inside the file, apart from each other, reached
by hard links. Everything else in the file is ignored.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.hdf5_bytes import InvalidError, OlderFormatError
from embedcache.cache.hdf5_reader import SIGNATURE, Hdf5, Node
from embedcache.cache.layout import Layout, Shape, block_path, quote, unquote
from embedcache.errors import EmbedcacheError

# Root attributes that a file may have.
TEXTS, INTEGERS = ("id_column", "text_column", "shard", "shard_table"), ("shard_rows",)


class NotACacheError(EmbedcacheError):
    """The file is not an embedcache file."""


class DamagedCacheError(EmbedcacheError):
    """The file is, or looks like, an embedcache file that cannot be read."""


# What h5py raises where it cannot write.
HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def unreadable(path: Path, reason: str) -> DamagedCacheError:
    return DamagedCacheError(f"{path} is damaged: {reason}; restore a copy, or make it again with extract --overwrite")


def structure_of(path: Path, data: np.ndarray) -> tuple[Layout, dict[str, int], str, str]:
    """read_structure of the file whose bytes are ``data`` (uint8, a memory map); what is wrong in one line."""
    if bytes(data[:8]) != SIGNATURE:
        raise NotACacheError(f"{path} is not an HDF5 file, so not a cache; name another one")
    try:
        file = Hdf5(data)
        _check_format(file, path)
        return read_structure(file, data.size)
    except InvalidError as error:
        if lay.FORMAT.encode() in bytes(data[: 1 << 16]):
            if isinstance(error, OlderFormatError):
                raise NotACacheError(
                    f"{path} was rewritten in HDF5's older format, which has no checksums; "
                    f"h5repack -j 2 -k 2 {path} NEW.h5 makes a file that opens"
                ) from None
            raise unreadable(path, str(error)) from None
        raise NotACacheError(f"{path} is an HDF5 file but not an embedcache file ({error}); name another one") from None


def _check_format(file: Hdf5, path: Path) -> None:
    """Is it ours, and can this version read it?"""
    found = read_text(file, file.root, "format")
    if found == lay.STATES_FORMAT:
        raise NotACacheError(f"{path} is the index of a cache's token states; name the cache beside it")
    if found != lay.FORMAT:
        raise NotACacheError(f"{path} is an HDF5 file but not an embedcache file; name another one")
    version = read_integer(file.root, "format_version")
    if version > lay.INT8_VERSION:
        raise NotACacheError(
            f"{path} has format version {version}, this embedcache reads {lay.INT8_VERSION}; upgrade embedcache"
        )
    if version < 1:
        raise InvalidError(f"format_version {version}")


def read_structure(file: Hdf5, size: int) -> tuple[Layout, dict[str, int], str, str]:
    """Layout, the offset in the file of every dataset (0 for empty ones), ``created`` and ``seal``.

    Raises:
        InvalidError: with the reason, for everything that a correct file does not do.
    """
    root = file.root
    attrs: dict[str, str | int] = {
        "format": lay.FORMAT,
        "format_version": read_integer(root, "format_version"),
        "encoder": read_text(file, root, "encoder"),
    }
    attrs |= {name: read_text(file, root, name) for name in TEXTS if name in root.attributes}
    attrs |= {name: read_integer(root, name) for name in INTEGERS if name in root.attributes}
    layout = Layout(attrs)
    offsets: dict[str, int] = {}
    tree = Tree(file)

    def add(path: str, types: tuple[str, ...], shape: tuple[int | None, ...]) -> None:
        layout.datasets[path], offsets[path] = read_dataset(tree.node(path), path, types, shape, size)

    add(lay.HASH, ("|u1",), (None, lay.DIGEST_BYTES))
    rows = layout.rows
    add(lay.TRUNCATED, ("|u1",), (rows,))
    in_int8 = attrs["format_version"] == lay.INT8_VERSION
    for path in _embedding_paths(tree):
        add(path, ("|i1",) if in_int8 else ("<f2", "<f4"), (rows, None))
        if in_int8:
            add(lay.scales_path(path), ("<f4",), (rows,))
    for link in tree.links(lay.LABELS):
        path, column = f"{lay.LABELS}/{link}", unquote(link)
        dataset = tree.node(path)
        layout.classes[column] = _classes(file, dataset, path)
        if "kind" in dataset.attributes:
            layout.kinds[column] = _kind(file, dataset, path)
            add(path, ("|i1",), (rows, len(layout.classes[column])))
        else:
            add(path, ("<i4",), (rows,))
    for group in [lay.TEXT, *(f"{lay.COLUMNS}/{link}" for link in tree.links(lay.COLUMNS))]:
        add(f"{group}/bytes", ("|u1",), (None,))
        add(f"{group}/offsets", ("<i8",), (rows + 1,))
    if "tokens" in tree.links("rows"):
        add(lay.TOKENS, ("<i4",), (rows, 2))
        if "positions" in tree.node(lay.TOKENS).attributes:
            positions = read_integer(tree.node(lay.TOKENS), "positions")
            layout = replace(layout, positions=positions if 0 < positions < 1 << 31 else None)
    for path in layout.checked:
        expected = (layout.blocks, lay.DIGEST_BYTES)
        where = block_path(path)
        _, offsets[where] = read_dataset(tree.node(where), where, ("|u1",), expected, size)
    _check_whole(layout, offsets)
    return layout, offsets, read_text(file, root, "created"), read_text(file, root, "seal")


def _check_whole(layout: Layout, offsets: dict[str, int]) -> None:
    """What concerns several datasets at once."""
    embeddings = [value for path, value in layout.datasets.items() if lay.is_embedding(path)]
    if len({(kind, shape[0]) for kind, shape in embeddings}) != 1:
        raise InvalidError("embeddings are missing or differ in rows or type")
    id_column = layout.attrs.get("id_column")
    if id_column is not None and f"{lay.COLUMNS}/{quote(str(id_column))}/bytes" not in layout.datasets:
        raise InvalidError("the id column is missing")
    extents = sorted(
        (offsets[path], offsets[path] + nbytes(kind, shape))
        for path, (kind, shape) in layout.with_checksums().items()
        if nbytes(kind, shape)
    )
    if any(stop > start for (_, stop), (start, _) in pairwise(extents)):
        raise InvalidError("datasets overlap")


def nbytes(kind: str, shape: Shape) -> int:
    return math.prod(shape) * np.dtype(kind).itemsize


class Tree:
    """The objects of a file by path, each read once, reached by hard links alone: other links can lead elsewhere."""

    def __init__(self, file: Hdf5) -> None:
        self._file, self._nodes = file, {"": file.root}

    def node(self, path: str) -> Node:
        if path not in self._nodes:
            group, _, name = path.rpartition("/")
            links = self.node(group).links
            if name not in links:
                raise InvalidError(f"{path} is missing")
            address = links[name]
            if address is None:
                raise InvalidError(f"{path} is a link to somewhere else")
            self._nodes[path] = self._file.node(address)
        return self._nodes[path]

    def links(self, path: str) -> list[str]:
        """The names in a group, none where there is no such group."""
        group, _, name = path.rpartition("/")
        return sorted(self.node(path).links) if name in self.node(group).links else []


def _embedding_paths(tree: Tree) -> list[str]:
    paths = []
    for name in tree.links(lay.EMBEDDINGS):
        path = f"{lay.EMBEDDINGS}/{name}"
        layers = [f"{path}/{layer}" for layer in tree.links(path)]
        paths += layers if tree.node(path).is_group else [path]
    for path in paths:
        parse_output(path)
    return paths


def parse_output(path: str) -> lay.Output:
    """``embeddings/cls/layer-4`` is ("cls", -4)."""
    _, pooling, *layer = path.split("/")
    try:
        return pooling, int(layer[0].removeprefix("layer")) if layer else -1
    except ValueError:
        raise InvalidError(f"unknown dataset {path}") from None


def read_dataset(
    node: Node, path: str, types: tuple[str, ...], shape: tuple[int | None, ...], size: int
) -> tuple[tuple[str, Shape], int]:
    """((type, shape), offset) of a dataset that is one plain stretch of the file."""
    kind, found = node.kind, node.shape
    if kind not in types or found is None or len(found) != len(shape):
        raise InvalidError(f"{path} has type {kind or 'unknown'} and shape {found}")
    if any(want is not None and have != want for have, want in zip(found, shape, strict=True)):
        raise InvalidError(f"{path} has shape {found}")
    needed = nbytes(kind, found)
    if node.data is None:
        raise InvalidError(f"{path} is not contiguous")
    offset, stored = node.data
    if needed and (stored != needed or offset + needed > size):
        raise InvalidError(f"{path} reaches past the end of the file")
    return (kind, found), offset if needed else 0


def read_text(file: Hdf5, node: Node, name: str) -> str:
    attribute = node.attributes.get(name)
    found = file.strings(attribute) if attribute and attribute.shape == () else None
    if found is None:
        raise InvalidError(f"attribute {name} is not a string")
    return found[0]


def read_integer(node: Node, name: str) -> int:
    attribute = node.attributes.get(name)
    found = attribute.integer() if attribute and attribute.shape == () else None
    if found is None:
        raise InvalidError(f"attribute {name} is not an integer")
    return found


def _kind(file: Hdf5, dataset: Node, path: str) -> str:
    kind = read_text(file, dataset, "kind")
    if kind != lay.MULTILABEL:
        raise InvalidError(f"{path} is of the unknown kind {kind!r}")
    return kind


def _classes(file: Hdf5, dataset: Node, path: str) -> list[str]:
    attribute = dataset.attributes.get("classes")
    found = file.strings(attribute) if attribute and attribute.shape and len(attribute.shape) == 1 else None
    if attribute and attribute.shape == (0,):
        return []
    if found is None:
        raise InvalidError(f"attribute classes of {path} is not a list of strings")
    return found
