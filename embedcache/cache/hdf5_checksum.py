"""The checksum of HDF5's structure: Bob Jenkins' lookup3."""

from __future__ import annotations

import struct


def lookup3(data: bytes) -> int:
    """Of a whole block, in one call."""
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
