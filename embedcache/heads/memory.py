"""Where the weights of a bank's heads are while it trains: in memory, or in a file where they are too many."""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.machine import check_memory, memory_free, size, usable_cores
from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import weight_names

STATE = 16  # bytes a weight, of a head in training: itself, two moments, a copy
CAREFREE = 100_000_000  # bytes that are taken without looking
LINE = 64  # bytes of a processor's cache line, on which each head begins
SHARE = 0.5  # of the memory that is free, for weights; the rest is for data and for the training itself


def fitting_threads(threads: int, largest: int) -> int:
    """At most so many ``threads`` (0: one a core) as memory lets train heads of ``largest`` weights at once.

    Raises:
        EmbedcacheError: it does not hold one.
    """
    each = STATE * largest
    if each * (threads or usable_cores()) <= CAREFREE:
        return threads
    check_memory(each, f"the training of a head of {largest:,} weights", "use a smaller --hidden")
    return max(1, min(threads or usable_cores(), int(memory_free() // each)))


class WeightRoom:
    """Zeros for the weights of ``heads`` heads, ``count`` bytes in all, in one piece that nobody clears.

    Fresh pages of the system are zeros; the engine's threads touch them first, when they write. The pages of a head go
    back to the system when its last array goes, whatever becomes of the other heads.

    Attributes:
        note: where they are, if that is worth a note; else "".
    """

    def __init__(self, count: int, heads: int, folder: Path | None = None) -> None:
        self._used, self.note = 0, ""
        self._anonymous = False
        free = memory_free()
        count += LINE * heads
        if count <= SHARE * free:
            self._memory: Any = _fresh_pages(count)
            self._anonymous = hasattr(self._memory, "madvise")
            return
        folder = Path(tempfile.gettempdir()) if folder is None else folder
        what = f"{heads:,} heads take {size(count)}, and {size(free)} of memory are free"
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, count)
                else:
                    file.truncate(count)
                self._memory = mmap.mmap(file.fileno(), count)
        except OSError as error:
            raise EmbedcacheError(
                f"{what}, and {folder} has no room for them either ({error.strerror}): train fewer heads, or smaller "
                "ones, at a time"
            ) from None
        self.note = f"{what}: their weights are kept in a file in {folder} while they train"

    def zeros(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """float32 arrays of these shapes, one after the other, of one head."""
        sizes = [math.prod(shape) for shape in shapes.values()]
        start, bytes_ = self._used, 4 * sum(sizes)
        self._used = -(-(start + bytes_) // LINE) * LINE
        piece = (ctypes.c_ubyte * bytes_).from_buffer(self._memory, start)
        if self._anonymous:
            weakref.finalize(piece, _give_back, self._memory, start, start + bytes_).atexit = False
        whole = np.frombuffer(memoryview(piece), np.float32)
        ends = list(itertools.accumulate(sizes))
        return {
            name: whole[end - size : end].reshape(shape)
            for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
        }


def _fresh_pages(count: int) -> Any:
    """So many zeros: private memory of its own mapping where the system has such, else a bytearray."""
    if sys.platform == "win32":
        return bytearray(count)
    # Large pages are not asked for: a virtual machine whose host takes free ones back pays for them dearly.
    return mmap.mmap(-1, max(count, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(memory: Any, start: int, end: int) -> None:
    """Frees the whole pages between two places of fresh pages."""
    if sys.platform == "win32":  # nor has it such pages
        return
    first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if first < last:
        memory.madvise(mmap.MADV_DONTNEED, first, last - first)


MakeRoom = Callable[[int, int], WeightRoom]  # of so many bytes, for so many heads


def read_weights(file: Any, hidden: Mapping[str, int], room: MakeRoom) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Heads of an open safetensors file, one at a time: (head, its weights), the weights in a place of ``room``.

    hidden: head -> its hidden units; its tensors are called HEAD/w1. Those that are not float32 are given as they are:
    they are for the caller to refuse.
    """
    shapes = {
        head: {name: tuple(file.get_slice(f"{head}/{name}").get_shape()) for name in weight_names(units)}
        for head, units in hidden.items()
    }
    place = room(4 * sum(math.prod(shape) for one in shapes.values() for shape in one.values()), len(shapes))
    for head, one in shapes.items():
        weights = place.zeros(one)
        for name, array in weights.items():
            found = file.get_tensor(f"{head}/{name}")
            if found.dtype == array.dtype:
                array[...] = found
            else:
                weights[name] = found
        yield head, weights
