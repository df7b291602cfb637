"""Reads as much of the HDF5 format as a cache needs, and no more: links, attributes, and where contiguous data lies.

HDF5's own library trusts what it reads in places: one flipped bit in a heap of strings, which the format does not
checksum, sends HDF5 2.0 into an endless loop, and a forged structure can do worse. Here every number is compared with
the file before it is followed, every checksum is looked at, and the work is bounded by the size of the structure. HDF5
writes the files (create.py); tests/cache/test_hdf5_reader.py compares what both read.

After "HDF5 File Format Specification Version 3.0"; only what HDF5 1.10 and later write under ``libver="v110"``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from embedcache.cache.hdf5_bytes import Bytes, InvalidError, OlderFormatError, lookup3, number, width

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1
MOST_WORK = 1 << 26  # bytes of structure that are read in one file, checksums counted eightfold
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT, FILTERS = 1, 2, 3, 6, 7, 8, 11
ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO = 12, 16, 21
LINK_RECORDS, ATTRIBUTE_RECORDS, HUGE_RECORDS = 5, 8, 1  # types of B-trees

# The datatype messages of NumPy's types, without the version in the first byte.
TYPES = {
    bytes.fromhex("00000000 01000000 0000 0800"): "|u1",
    bytes.fromhex("00080000 01000000 0000 0800"): "|i1",
    bytes.fromhex("00080000 04000000 0000 2000"): "<i4",
    bytes.fromhex("00080000 08000000 0000 4000"): "<i8",
    bytes.fromhex("01200f00 02000000 0000 1000 0a05000a 0f000000"): "<f2",
    bytes.fromhex("01201f00 04000000 0000 2000 17080017 7f000000"): "<f4",
}


class Attribute(NamedTuple):
    """``shape`` None: no value at all. ``raw``: the value's bytes; strings are references into a heap."""

    datatype: bytes
    shape: tuple[int, ...] | None
    raw: bytes

    def integer(self) -> int | None:
        """The value of a scalar integer, None where it is something else."""
        kind = _unversioned(self.datatype)
        if len(kind) < 12 or kind[0] != 0 or number(kind[4:8]) != len(self.raw):
            return None
        return int.from_bytes(self.raw, "big" if kind[1] & 1 else "little", signed=bool(kind[1] & 8))


@dataclass
class Node:
    """A group or a dataset.

    Attributes:
        links: name -> address, None for links that lead elsewhere.
        data: (offset, bytes) of a dataset's values, None where they are not one contiguous stretch of this file.
    """

    links: dict[str, int | None]
    attributes: dict[str, Attribute]
    is_group: bool
    datatype: bytes = b""
    shape: tuple[int, ...] | None = None
    data: tuple[int, int] | None = None

    @property
    def kind(self) -> str | None:
        """NumPy's name of the type, None for one that no cache holds."""
        return TYPES.get(_unversioned(self.datatype))


class Hdf5:
    """The structure of the HDF5 file whose bytes are ``data`` (uint8, a memory map).

    Raises:
        InvalidError: by every method, where the file is broken or of a kind that embedcache does not write.
    """

    def __init__(self, data: np.ndarray) -> None:
        self._data, self._left = np.asarray(data).data, MOST_WORK
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        block = self.take(0, 48)
        if block[:8] == SIGNATURE and block[8] in (0, 1):
            raise OlderFormatError("it is in HDF5's older format")
        if block[:8] != SIGNATURE or block[8] not in (2, 3) or block[9:11] != b"\x08\x08" or number(block[12:20]):
            raise InvalidError("its HDF5 structure is of another kind than embedcache writes")
        self._check_sum(block, "superblock")
        if number(block[28:36]) > len(data):
            raise InvalidError("it is cut short")
        self._root_address = number(block[36:44])

    @cached_property
    def root(self) -> Node:
        return self.node(self._root_address)

    def node(self, address: int) -> Node:
        """The object whose header is at ``address``."""
        messages = list(self._messages(address))
        first = dict(reversed(messages))
        node = Node({}, {}, LINK_INFO in first)
        for kind, body in messages:
            if kind == LINK:
                _add(node.links, *_link(body))
            elif kind == ATTRIBUTE:
                _add(node.attributes, *_attribute(body))
        if LINK_INFO in first:
            node.links |= dict(_link(body) for body in self._dense(first[LINK_INFO], 8, LINK_RECORDS))
        if ATTRIBUTE_INFO in first:
            bodies = self._dense(first[ATTRIBUTE_INFO], 2, ATTRIBUTE_RECORDS)
            node.attributes |= dict(_attribute(body) for body in bodies)
        if {DATASPACE, DATATYPE, LAYOUT} <= first.keys():
            node.datatype, node.shape = first[DATATYPE], _shape(first[DATASPACE])
            layout = Bytes(first[LAYOUT])
            version, contiguous = layout.number(1), layout.number(1) == 1
            if version in (3, 4) and contiguous and not {EXTERNAL, FILTERS} & first.keys():
                node.data = layout.number(8), layout.number(8)
        return node

    def strings(self, attribute: Attribute) -> list[str] | None:
        """The strings of an attribute, None where it holds something else."""
        kind = _unversioned(attribute.datatype)
        if kind[:1] != b"\x09" or kind[1] & 15 != 1 or attribute.shape is None or len(attribute.shape) > 1:
            return None
        count = attribute.shape[0] if attribute.shape else 1
        if len(attribute.raw) != 16 * count:
            raise InvalidError("an attribute's value is not as long as its shape")
        texts, left = [], len(self._data)
        for size, heap, index in struct.iter_unpack("<IQI", attribute.raw):
            left -= size  # many names could point at one and the same long string
            if left < 0:
                raise InvalidError("its strings are longer than the file")
            texts.append(self._string(heap, index, size) if size else "")
        return texts

    def _string(self, heap: int, index: int, size: int) -> str:
        if heap not in self._heaps:
            self._heaps[heap] = self._heap(heap)
        start, length = self._heaps[heap].get(index, (0, -1))
        if size > length:
            raise InvalidError("a string is missing in its heap")
        try:
            return self.take(start, size).decode()
        except UnicodeDecodeError:
            raise InvalidError("a name or attribute is not UTF-8") from None

    def _heap(self, address: int) -> dict[int, tuple[int, int]]:
        """Where the objects of a global heap collection lie: number -> (offset, bytes)."""
        head = self.take(address, 16)
        size = number(head[8:16])
        if head[:5] != b"GCOL\1":
            raise InvalidError("a heap of strings is broken")
        block, here, found = self.take(address, size), 16, {}
        while here + 16 <= size:
            index, length = struct.unpack_from("<H6xQ", block, here)
            if index == 0:  # the free space, at the end
                break
            if length > size - here - 16 or index in found:
                raise InvalidError("a heap of strings is broken")
            found[index] = address + here + 16, length
            here += 16 + (length + 7) // 8 * 8
        return found

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """(type, body) of the messages of an object header."""
        prefix = self.take(address, 6)
        if prefix[:5] != b"OHDR\2":
            raise InvalidError("an object header is broken, or older than HDF5 1.8")
        flags, width = prefix[5], 1 << (prefix[5] & 3)
        start = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
        size = start + width + number(self.take(address + start, width)) + 4
        chunks = [(address, size, start + width)]
        while chunks:
            address, size, start = chunks.pop(0)
            block = self.block(address, size, b"OHDR" if start > 4 else b"OCHK")
            body = Bytes(block[start:-4])
            while len(body) >= (head := 6 if flags & 4 else 4):
                kind, length, how = body.number(1), body.number(2), body.number(1)
                body.take(head - 4)
                message = body.take(length)
                if kind == CONTINUATION:
                    chunks.append((number(message[:8]), number(message[8:16]), 4))
                elif kind and how & 2:
                    raise InvalidError("an object header shares its messages")
                elif kind:
                    yield kind, message

    def _dense(self, info: bytes, width: int, records: int) -> Iterator[bytes]:
        """The messages that an object with many of them keeps in a heap; ``info`` says where, if there are any."""
        body = Bytes(info)
        body.take(1)
        body.take(width * (body.number(1) & 1))
        heap, tree = body.number(8), body.number(8)
        if heap == UNDEFINED:
            return
        objects = FractalHeap(self, heap)
        for record in self.tree(tree, records):
            yield objects.get(record[4:] if records == LINK_RECORDS else record[: objects.id_bytes])

    def tree(self, address: int, kind: int) -> Iterator[bytes]:
        """All records of a version 2 B-tree."""
        head = Bytes(self.block(address, 38, b"BTHD\0" + bytes([kind]))[6:])
        node_bytes, record_bytes, depth = head.number(4), head.number(2), head.number(2)
        head.take(2)
        root, count = head.number(8), head.number(2)
        if root == UNDEFINED:
            return
        if not record_bytes or depth > 16:
            raise InvalidError("an index is broken")
        # For each depth: most records of a node, bytes of a child's count, bytes of the count of all below.
        most, sizes = [max(0, node_bytes - 10) // record_bytes], [(0, 0)]
        total = most[0]
        for level in range(1, depth + 1):
            sizes.append((width(most[0]), width(total) if level > 1 else 0))
            pointer = 8 + sum(sizes[-1])
            most.append(max(0, node_bytes - 10 - pointer) // (record_bytes + pointer))
            total = (most[-1] + 1) * total + most[-1]
        todo = [(root, count, depth)]
        while todo:
            address, count, level = todo.pop()
            if not 0 < count <= most[level]:
                raise InvalidError("an index is broken")
            used = 6 + count * record_bytes + (count + 1) * (8 + sum(sizes[level])) * bool(level)
            body = Bytes(self.block(address, used + 4, (b"BTIN\0" if level else b"BTLF\0") + bytes([kind]))[6:-4])
            for _ in range(count):
                yield body.take(record_bytes)
            for _ in range((count + 1) * bool(level)):
                todo.append((body.number(8), body.number(sizes[level][0]), level - 1))
                body.take(sizes[level][1])

    def block(self, address: int, size: int, signature: bytes, checksum: int | None = None) -> bytes:
        """A piece of the structure that ends with its checksum, or has it at ``checksum``."""
        self._left -= 8 * size
        block = self.take(address, size)
        if len(block) < 8 or not block.startswith(signature):
            raise InvalidError(f"its structure is broken at byte {address}")
        zeroed = block
        if checksum is not None:
            zeroed = block[:checksum] + bytes(4) + block[checksum + 4 :] + block[checksum : checksum + 4]
        self._check_sum(zeroed, f"byte {address}")
        return block

    def _check_sum(self, block: bytes, where: str) -> None:
        if lookup3(block[:-4]) != number(block[-4:]):
            raise InvalidError(f"its structure is broken at {where}: the checksum differs")

    def take(self, offset: int, size: int) -> bytes:
        self._left -= size + 32
        if offset + size > len(self._data):
            raise InvalidError("its structure reaches past the end of the file")
        if self._left < 0:
            raise InvalidError("its structure is too large")
        return bytes(self._data[offset : offset + size])


class FractalHeap:
    """Where a group with many links, or an object with large attributes, keeps their messages."""

    def __init__(self, file: Hdf5, address: int) -> None:
        self._file = file
        head = Bytes(file.block(address, 146, b"FRHP\0")[5:])
        self.id_bytes, filters, flags = head.number(2), head.number(2), head.number(1)
        largest = head.number(4)
        head.take(8)
        self._huge = head.number(8)
        head.take(80)
        self._columns, self._first, self._last, bits = head.number(2), head.number(8), head.number(8), head.number(2)
        head.take(2)
        root, rows = head.number(8), head.number(2)
        if filters or not flags & 2 or not self._columns or not self._first or self._last > 1 << 20:
            raise InvalidError("a heap is of another kind than embedcache writes")
        self._offset_bytes = (bits + 7) // 8
        self._length_bytes = width(min(self._last, largest))
        self._blocks = list(self._direct_blocks(root, rows)) if root != UNDEFINED else []
        self._read: dict[int, bytes] = {}

    def _direct_blocks(self, root: int, rows: int) -> Iterator[tuple[int, int, int]]:
        """(offset in the heap, bytes, address): one block, or rows of them in sizes that double."""
        if not rows:
            yield 0, self._first, root
            return
        table = Bytes(self._file.block(root, 17 + self._offset_bytes + 8 * self._columns * rows, b"FHIB\0")[13:-4])
        table.take(self._offset_bytes)
        offset = 0
        for row in range(rows):
            size = self._first << max(0, row - 1)
            for _ in range(self._columns):
                if (address := table.number(8)) != UNDEFINED:
                    if size > self._last:  # tables of tables: 5,000 columns with long names
                        raise InvalidError("it has too many columns")
                    yield offset, size, address
                offset += size

    def get(self, heap_id: bytes) -> bytes:
        """The object with this id: small ones lie in blocks, huge ones alone."""
        body = Bytes(heap_id[: self.id_bytes])
        kind = body.number(1) & 0xF0
        if kind == 0:
            offset, length = body.number(self._offset_bytes), body.number(self._length_bytes)
            for start, size, address in self._blocks:
                if start <= offset and offset + length <= start + size:
                    if address not in self._read:
                        self._read[address] = self._file.block(address, size, b"FHDB\0", 13 + self._offset_bytes)
                    return self._read[address][offset - start : offset - start + length]
        elif kind == 0x10:
            wanted = number(body.take(len(body)))
            for record in self._file.tree(self._huge, HUGE_RECORDS):
                address, size, found = (number(record[i : i + 8]) for i in (0, 8, 16))
                if found == wanted:
                    return self._file.take(address, size)
        raise InvalidError("an object of a heap is missing")


def _unversioned(datatype: bytes) -> bytes:
    return bytes([datatype[0] & 15]) + datatype[1:] if datatype else b""


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidError("a name is not UTF-8") from None


def _add(where: dict[str, Any], name: str, value: Any) -> None:
    if name in where:
        raise InvalidError(f"there are two of {name}")
    where[name] = value


def _shape(message: bytes) -> tuple[int, ...] | None:
    body = Bytes(message)
    version, rank, _, kind = (body.number(1) for _ in range(4))
    if version == 1:
        body.take(4)
    elif version != 2 or kind == 2:
        return None
    return tuple(body.number(8) for _ in range(rank))


def _link(message: bytes) -> tuple[str, int | None]:
    body = Bytes(message)
    version, flags = body.number(1), body.number(1)
    kind = body.number(1) if flags & 8 else 0
    body.take(8 * bool(flags & 4) + bool(flags & 16))
    name = _name(body.take(body.number(1 << (flags & 3))))
    if version != 1:
        raise InvalidError("a link is of an unknown version")
    return name, None if kind else body.number(8)


def _attribute(message: bytes) -> tuple[str, Attribute]:
    body = Bytes(message)
    version, flags = body.number(1), body.number(1)
    sizes = [body.number(2) for _ in range(3)]
    body.take(version == 3)
    if version not in (1, 2, 3) or flags:
        raise InvalidError("an attribute is of an unknown kind")
    padded = [(size + 7) // 8 * 8 if version == 1 else size for size in sizes]
    name, datatype, space = (body.take(pad)[:size] for size, pad in zip(sizes, padded, strict=True))
    return _name(name.rstrip(b"\0")), Attribute(datatype, _shape(space), body.take(len(body)))
