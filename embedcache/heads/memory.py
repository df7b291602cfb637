"""Where the weights of a bank's heads are while it trains: in memory, or in a file where they are too many."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.machine import check_memory, memory_free, size, usable_cores
from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import weight_names

STATE = 16  # bytes a weight, of a head in training: itself, two moments, a copy
CAREFREE = 100_000_000  # bytes that are taken without looking
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
    """Zeros for the weights of ``heads`` heads, ``count`` bytes in all.

    Attributes:
        note: where they are, if that is worth a note; else "".
    """

    def __init__(self, count: int, heads: int, folder: Path | None = None) -> None:
        self._bytes: np.ndarray | None = None
        self._used, self.note = 0, ""
        free = memory_free()
        if count <= SHARE * free:
            return
        folder = Path(tempfile.gettempdir()) if folder is None else folder
        what = f"{heads:,} heads take {size(count)}, and {size(free)} of memory are free"
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, count)
                else:
                    file.truncate(count)
                self._bytes = np.asarray(np.memmap(file, np.uint8, "r+", shape=(count,)))
        except OSError as error:
            raise EmbedcacheError(
                f"{what}, and {folder} has no room for them either ({error.strerror}): train fewer heads, or smaller "
                "ones, at a time"
            ) from None
        self.note = f"{what}: their weights are kept in a file in {folder} while they train"

    def zeros(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """float32 arrays of these shapes."""
        if self._bytes is None:
            return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        found = {}
        for name, shape in shapes.items():
            start, self._used = self._used, self._used + 4 * math.prod(shape)
            found[name] = self._bytes[start : self._used].view(np.float32).reshape(shape)
        return found


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
