"""Spoilt files from sound ones: bytes of HDF5 structure with their checksums made right again, hostile structures."""

from __future__ import annotations

import io
import random
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embedcache.cache.hdf5_bytes import InvalidError, lookup3

# What h5py raises where HDF5 does not allow a change.
REFUSALS = (OSError, ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, AttributeError, MemoryError)
INTERESTING = [0, 1, 2, 7, 8, 16, 127, 128, 255, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63]
INTERESTING += [(1 << 63) - 1, (1 << 64) - 1]


# ---- bytes ----


def spoil(rng: random.Random, data: bytes, places: list[int]) -> bytes:
    """A few of: flipped bits, numbers that matter, a stretch copied elsewhere, a cut; mostly at ``places``."""
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        place = rng.choice(places) if places and rng.random() < 0.95 else rng.randrange(len(data))
        if place >= len(spoilt):
            continue
        way = rng.random()
        if way < 0.35:
            spoilt[place] ^= 1 << rng.randrange(8)
        elif way < 0.5:
            spoilt[place] = rng.randrange(256)
        elif way < 0.8:
            width = rng.choice([1, 2, 4, 8])
            number = rng.choice([*INTERESTING, len(data), rng.choice(places or [0]), rng.randrange(1 << 16)])
            spoilt[place : place + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif way < 0.97:
            source, width = rng.choice(places or [0]), rng.choice([2, 8, 24, 100])
            spoilt[place : place + width] = data[source : source + width]
        else:
            del spoilt[rng.randrange(8, len(spoilt)) :]
    return bytes(spoilt)


# ---- HDF5 metadata ----


class Metadata:
    """Where an HDF5 file keeps its structure, and which stretches of it end with a checksum of themselves."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        taken = np.zeros(len(data), bool)

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and (start := item.id.get_offset()) is not None:
                taken[start : start + item.id.get_storage_size()] = True

        with h5py.File(io.BytesIO(data)) as file:
            file.visititems(visit)
        filled = np.frombuffer(data, np.uint8) != 0
        near = np.convolve(filled, np.ones(17), "same") > 0  # zeros among them are numbers, too
        self.places = np.flatnonzero(near & ~taken).tolist()
        self.blocks = [(0, 48)] if data[8] >= 2 else []
        self.blocks += [self._header(found.start()) for found in re.finditer(b"OHDR", data)]
        for name in (b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN", b"FSHD", b"FSSE"):
            self.blocks += [block for found in re.finditer(name, data) if (block := self._search(found.start()))]
        self.blocks = [block for block in self.blocks if self._sound(*block)]

    def seal(self, spoilt: bytes) -> bytes:
        """With the checksums that belong to it, so that HDF5 believes it."""
        sealed = bytearray(spoilt)
        for start, stop in self.blocks:
            if stop <= len(sealed) and sealed[start:stop] != self.data[start:stop]:
                sealed[stop - 4 : stop] = struct.pack("<I", lookup3(sealed[start : stop - 4]))
        return bytes(sealed)

    def _header(self, start: int) -> tuple[int, int]:
        flags = self.data[start + 5]
        width = 1 << (flags & 3)
        here = start + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        size = int.from_bytes(self.data[here : here + width], "little")
        return start, here + width + size + 4

    def _search(self, start: int) -> tuple[int, int] | None:
        ends = range(start + 12, min(start + 1200, len(self.data)))
        return next(((start, end) for end in ends if self._sound(start, end)), None)

    def _sound(self, start: int, stop: int) -> bool:
        return lookup3(self.data[start : stop - 4]) == int.from_bytes(self.data[stop - 4 : stop], "little")


# ---- hostile structures, built by HDF5 itself ----


def _values(rng: random.Random) -> dict[str, Any]:
    """Arguments of ``create_dataset``, most of them for something that no cache holds."""
    rows = rng.choice([0, 1, 10, 1099, 1100, 1101, 1 << 20, 1 << 40])
    shape = rng.choice([(rows,), (rows, 4), (rows, 16), (rows, 1 << 20), (), (rows, 2, 2), (2, 16)])
    kinds: list[Any] = ["<f2", "<f4", "<f8", ">f2", "<i4", "<i8", "|u1", "|i1", "?", "<c8", "S7", "V3"]
    kinds += [np.dtype([("a", "u1"), ("b", "<f2")]), np.dtype(("<f2", (4,))), h5py.enum_dtype({"a": 1}, "i1")]
    kinds += [h5py.string_dtype(), h5py.string_dtype("ascii", 5), h5py.vlen_dtype("i4"), h5py.ref_dtype]
    kinds += [h5py.regionref_dtype]
    made: dict[str, Any] = {"shape": shape, "dtype": rng.choice(kinds)}
    number = np.dtype(made["dtype"]).kind in "fiu"
    way = rng.random()
    if way < 0.3 and shape:
        filters = [{}, {"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True}]
        made |= {"chunks": tuple(max(1, min(n, 64)) for n in shape), **rng.choice(filters)}
    elif way < 0.4 and shape and number:
        made["external"] = [("secret", 0, h5py.h5f.UNLIMITED)]
    elif way < 0.7:
        made["shape"] = tuple(min(n, 2000 if i == 0 else 16) for i, n in enumerate(shape))
        made |= {"data": np.ones(made["shape"], made["dtype"])} if number else {}
    return made


def _attribute(rng: random.Random) -> Any:
    names = np.array(["a", "b", "ü", "\U0001f600"] * 5, object)
    encoder = '{"identity": {}, "source": "", "store": "float16"}'
    values = [0, -1, 1 << 62, 1.5, "", "embedcache", "x" * 60_000, b"\xff\xfe", [1, 2], names, names[:3], True]
    values += [np.zeros(8000, "u1"), h5py.Empty("f4"), np.array(["a"] * 3, h5py.string_dtype()), "[" * 50_000, encoder]
    values += [np.void(b"abc"), np.array([b"\xff\xff", b"a"], h5py.string_dtype()), "\x1b[2J", np.ones((3, 3, 3))]
    return rng.choice(values)


def rebuild(rng: random.Random, path: Path, reseal: Callable[[Path], None]) -> None:
    """Change the structure of the cache at ``path`` a few times, in ways that HDF5 allows and we should not."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            names: list[str] = []
            file.visit(names.append)
            name, other = rng.choice(names), rng.choice(names)
            with suppress(*REFUSALS):
                _change(rng, file, name, other)
    if rng.random() < 0.7:
        with suppress(InvalidError, *REFUSALS):  # most cannot be sealed any more
            reseal(path)


def _change(rng: random.Random, file: h5py.File, name: str, other: str) -> None:
    way = rng.randrange(9)
    if way == 0:
        del file[name]
    elif way in (1, 2):
        attrs = dict(file[name].attrs)
        made = _values(rng)
        del file[name]
        file.create_dataset(name, **made).attrs.update(attrs)
    elif way == 3:
        where = rng.choice([file, file[name]])
        key = rng.choice([*where.attrs, "classes", "kind", "format", "encoder", "seal", "id_column"])
        where.attrs[key] = _attribute(rng)
    elif way == 4:
        targets = [h5py.SoftLink("/" + other), h5py.SoftLink("/" + name), h5py.ExternalLink("/etc/passwd", "/")]
        target = rng.choice([*targets, h5py.ExternalLink("c.h5", "/" + name), file[other], file["/"], np.dtype("f4")])
        del file[name]
        file[name] = target
    elif way == 5:
        place = rng.choice([name + "/x", "columns/new/bytes", "columns/new", "labels/new", "embeddings/new"])
        file[place] = rng.choice([file[other], file["/"], h5py.SoftLink("/"), np.zeros(1100, "<i4")])
    elif way == 6:
        layout = h5py.VirtualLayout(shape=(1100, 32), dtype="<f2")
        layout[:] = h5py.VirtualSource("secret.h5", "x", shape=(1100, 32))
        del file[name]
        file.create_virtual_dataset(name, layout)
    elif way == 7:
        where = file[name]
        if isinstance(where, h5py.Dataset) and 0 < where.size < 1 << 20:  # data: offsets, codes, hashes, checksums
            values = where[()].reshape(-1)
            for _ in range(rng.choice([1, 3, 100])):
                values[rng.randrange(len(values))] = np.array(rng.choice(INTERESTING), "u8").astype(values.dtype)
            where[()] = values.reshape(where.shape)
    else:
        del file.attrs[rng.choice(list(file.attrs))]


# ---- JSON ----


def spoil_json(rng: random.Random, value: Any) -> Any:
    """With one to three of its values replaced, removed or added."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        nodes = [node for node in _containers(value) if node]
        if not nodes:
            return value
        node = rng.choice(nodes)
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        hostile = [None, -1, 0, 1, 3, 1 << 31, 1 << 62, 1e300, float("nan"), "", "x" * 1000, "bert", "../../etc/passwd"]
        hostile += [[], {}, [[]], True, {"a": 1}, "AutoModel", -1.5, "\ud800"]
        if rng.random() < 0.15:
            del node[key]
        elif isinstance(node, dict) and rng.random() < 0.1:
            node[rng.choice(["auto_map", "quantization_config", "architectures", "type", "model_type"])] = rng.choice(
                hostile
            )
        else:
            node[key] = rng.choice(hostile)
    return value


def _containers(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return ([value] if isinstance(value, (dict, list)) else []) + [node for one in inner for node in _containers(one)]
