"""What the HDF5 reader reads with: errors, bytes in a row, little-endian numbers, the checksum of the structure."""

from __future__ import annotations

import struct


class InvalidError(Exception):
    """Says what is wrong with the structure; the caller knows the path."""


class OlderFormatError(InvalidError):
    """The format that h5repack writes unless it is told otherwise; its structure has no checksums."""


class Bytes:
    """Bytes to be read one after another, and never past their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._here = data, 0

    def __len__(self) -> int:
        return len(self._data) - self._here

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self):
            raise InvalidError("a part of its structure is too short")
        self._here += size
        return self._data[self._here - size : self._here]

    def number(self, size: int) -> int:
        return number(self.take(size))


def number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def width(limit: int) -> int:
    """Bytes in which HDF5 writes numbers up to ``limit``."""
    return (max(1, limit).bit_length() - 1) // 8 + 1


def lookup3(data: bytes) -> int:
    """Bob Jenkins' checksum of a whole block of structure, in one call."""
    mask = 0xFFFFFFFF
    a = b = c = 0xDEADBEEF + len(data) & mask
    whole = max(0, (len(data) - 1) // 12 * 12)
    words = struct.unpack_from(f"<{whole // 4}I", data)
    for i in range(0, whole // 4, 3):
        a, b, c = a + words[i] & mask, b + words[i + 1] & mask, c + words[i + 2] & mask
        a, c = (a - c & mask) ^ (c << 4 & mask | c >> 28), c + b & mask
        b, a = (b - a & mask) ^ (a << 6 & mask | a >> 26), a + c & mask
        c, b = (c - b & mask) ^ (b << 8 & mask | b >> 24), b + a & mask
        a, c = (a - c & mask) ^ (c << 16 & mask | c >> 16), c + b & mask
        b, a = (b - a & mask) ^ (a << 19 & mask | a >> 13), a + c & mask
        c, b = (c - b & mask) ^ (b << 4 & mask | b >> 28), b + a & mask
    if not data:
        return c
    x, y, z = struct.unpack("<3I", data[whole:].ljust(12, b"\0"))
    a, b, c = a + x & mask, b + y & mask, c + z & mask
    c = (c ^ b) - (b << 14 & mask | b >> 18) & mask
    a = (a ^ c) - (c << 11 & mask | c >> 21) & mask
    b = (b ^ a) - (a << 25 & mask | a >> 7) & mask
    c = (c ^ b) - (b << 16 & mask | b >> 16) & mask
    a = (a ^ c) - (c << 4 & mask | c >> 28) & mask
    b = (b ^ a) - (a << 14 & mask | a >> 18) & mask
    return (c ^ b) - (b << 24 & mask | b >> 8) & mask
