"""Read the HDF5 structure of a file that may be broken or hostile, and refuse it before anything is mapped.

Only plain data is accepted: contiguous datasets of the known types, inside the file, apart from each other, reached
by hard links. Everything else in the file is ignored.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.layout import Layout, Shape, block_path, quote, unquote
from embedcache.errors import EmbedcacheError


class NotACacheError(EmbedcacheError):
    """The file is something else, and none of our business."""


class DamagedCacheError(EmbedcacheError):
    """The file is, or looks like, an embedcache file that cannot be read."""


class InvalidError(Exception):
    """Says what is wrong with the structure; the caller knows the path."""


# What h5py raises for broken files.
HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def check_format(file: h5py.File, path: Path) -> None:
    """Is it ours, and can this version read it?"""
    try:
        name = _text(file, "format")
    except (InvalidError, *HDF5_ERRORS):
        name = ""
    if name != lay.FORMAT:
        raise NotACacheError(f"{path} is an HDF5 file but not an embedcache file; name another one")
    version = _integer(file, "format_version")
    if version > lay.FORMAT_VERSION:
        raise NotACacheError(
            f"{path} has format version {version}, this embedcache reads {lay.FORMAT_VERSION}; upgrade embedcache"
        )
    if version < 1:
        raise InvalidError(f"format_version {version}")


def read_structure(file: h5py.File, size: int) -> tuple[Layout, dict[str, int], str, str]:
    """Layout, the offset in the file of every dataset (0 for empty ones), ``created`` and ``seal``.

    Raises:
        InvalidError: with the reason, for everything that a correct file does not do.
    """
    attrs: dict[str, str | int] = {
        "format": lay.FORMAT,
        "format_version": _integer(file, "format_version"),
        "encoder": _text(file, "encoder"),
    }
    if "id_column" in file.attrs:
        attrs["id_column"] = _text(file, "id_column")
    layout = Layout(attrs)
    offsets: dict[str, int] = {}

    def add(path: str, types: tuple[str, ...], shape: tuple[int | None, ...]) -> None:
        layout.datasets[path], offsets[path] = _dataset(file, path, types, shape, size)

    add(lay.HASH, ("|u1",), (None, lay.DIGEST_BYTES))
    rows = layout.rows
    add(lay.TRUNCATED, ("|u1",), (rows,))
    for path in _embedding_paths(file):
        add(path, ("<f2", "<f4"), (rows, None))
    for link in _links(file, lay.LABELS):
        path, column = f"{lay.LABELS}/{link}", unquote(link)
        dataset = _object(file, path, h5py.Dataset)
        layout.classes[column] = _classes(dataset, size)
        if "kind" in dataset.attrs:
            layout.kinds[column] = _kind(dataset)
            add(path, ("|i1",), (rows, len(layout.classes[column])))
        else:
            add(path, ("<i4",), (rows,))
    for group in [lay.TEXT, *(f"{lay.COLUMNS}/{link}" for link in _links(file, lay.COLUMNS))]:
        add(f"{group}/bytes", ("|u1",), (None,))
        add(f"{group}/offsets", ("<i8",), (rows + 1,))
    for path in layout.checked:
        expected = (layout.blocks, lay.DIGEST_BYTES)
        _, offsets[block_path(path)] = _dataset(file, block_path(path), ("|u1",), expected, size)
    _check_whole(layout, offsets)
    return layout, offsets, _text(file, "created"), _text(file, "seal")


def _check_whole(layout: Layout, offsets: dict[str, int]) -> None:
    """What concerns several datasets at once."""
    embeddings = {value for path, value in layout.datasets.items() if lay.is_embedding(path)}
    if len(embeddings) != 1:
        raise InvalidError("embeddings are missing or differ in shape or type")
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


def parse_encoder(text: str) -> dict[str, Any] | None:
    """The encoder description, if that is what the text holds."""
    try:
        encoder = json.loads(text)
        sound = isinstance(encoder["identity"], dict) and isinstance(encoder["source"], str)
        return encoder if sound and encoder["store"] in ("float16", "float32") else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def nbytes(kind: str, shape: Shape) -> int:
    return math.prod(shape) * np.dtype(kind).itemsize


def _links(file: h5py.File, path: str) -> list[str]:
    """The names in a group, without following any."""
    return sorted(_object(file, path, h5py.Group)) if path in file else []


def _embedding_paths(file: h5py.File) -> list[str]:
    paths = []
    for name in _links(file, lay.EMBEDDINGS):
        path = f"{lay.EMBEDDINGS}/{name}"
        if isinstance(_object(file, path, (h5py.Group, h5py.Dataset)), h5py.Dataset):
            paths.append(path)
        else:
            paths += [f"{path}/{layer}" for layer in _links(file, path)]
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


def _object(file: h5py.File, path: str, kind: Any) -> Any:
    """The object at ``path``, reached by hard links alone: other links can lead out of the file."""
    here: Any = file
    for name in path.split("/"):
        if not isinstance(here, h5py.Group) or here.get(name, getlink=True) is None:
            raise InvalidError(f"{path} is missing")
        if not isinstance(here.get(name, getlink=True), h5py.HardLink):
            raise InvalidError(f"{path} is a link to somewhere else")
        here = here[name]
    if not isinstance(here, kind):
        raise InvalidError(f"{path} is not what it should be")
    return here


def _dataset(
    file: h5py.File, path: str, types: tuple[str, ...], shape: tuple[int | None, ...], size: int
) -> tuple[tuple[str, Shape], int]:
    """((type, shape), offset) of a dataset that is one plain stretch of the file."""
    dataset = _object(file, path, h5py.Dataset)
    plist = dataset.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count():
        raise InvalidError(f"{path} is not contiguous")
    kind, found = dataset.dtype.str, dataset.shape
    if kind not in types or dataset.dtype.names or found is None or len(found) != len(shape):
        raise InvalidError(f"{path} has type {dataset.dtype} and shape {found}")
    if any(want is not None and have != want for have, want in zip(found, shape, strict=True)):
        raise InvalidError(f"{path} has shape {found}")
    found = tuple(map(int, found))
    if nbytes(kind, found) == 0:
        return (kind, found), 0
    offset = dataset.id.get_offset()
    if offset is None or offset + nbytes(kind, found) > size:
        raise InvalidError(f"{path} reaches past the end of the file")
    return (kind, found), int(offset)


def _text(where: Any, name: str) -> str:
    attr = h5py.h5a.open(where.id, name.encode())
    info = h5py.check_string_dtype(attr.dtype)
    if attr.shape != () or info is None or info.length is not None:
        raise InvalidError(f"attribute {name} is not a string")
    return str(where.attrs[name])


def _integer(where: Any, name: str) -> int:
    attr = h5py.h5a.open(where.id, name.encode())
    if attr.shape != () or attr.dtype.kind not in "iu":
        raise InvalidError(f"attribute {name} is not an integer")
    return int(where.attrs[name])


def _kind(dataset: h5py.Dataset) -> str:
    kind = _text(dataset, "kind")
    if kind != lay.MULTILABEL:
        raise InvalidError(f"{dataset.name} is of the unknown kind {kind!r}")
    return kind


def _classes(dataset: h5py.Dataset, size: int) -> list[str]:
    attr = h5py.h5a.open(dataset.id, b"classes")
    info = h5py.check_string_dtype(attr.dtype)
    if attr.shape is None or len(attr.shape) != 1 or info is None or attr.shape[0] > size:
        raise InvalidError(f"attribute classes of {dataset.name} is not a list of strings")
    return [str(name) for name in dataset.attrs["classes"]] if attr.shape[0] else []
