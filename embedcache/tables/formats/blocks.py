"""Blocks of text that C code parses at once."""

from __future__ import annotations

from typing import Any

BLOCK = 1 << 22  # bytes of whole lines that are parsed together
QUOTE, NEWLINE = ord('"'), ord("\n")


def read_block(file: Any) -> bytes:
    """Some MB of whole lines that end outside of quotes, if the file has such."""
    block = bytearray(file.read(BLOCK))
    block += file.readline()
    quoted = block.count(QUOTE) % 2
    while quoted and len(block) < 4 * BLOCK and (line := file.readline()):
        block += line
        quoted ^= line.count(QUOTE) % 2
    return bytes(block)


def is_utf8(block: bytes) -> bool:
    import numpy as np
    import pyarrow as pa

    if len(block) > 8 * BLOCK:  # one enormous line; Arrow has limits that Python has not
        return False
    ends = pa.py_buffer(np.array([0, len(block)], np.int32))
    try:
        pa.StringArray.from_buffers(1, ends, pa.py_buffer(block)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
