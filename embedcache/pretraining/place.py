"""Where the finished folder goes: a new place with room for the work; a full disk is called that."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedcache.common.whole_folder import is_full
from embedcache.errors import EmbedcacheError

COPIES = 1 + 3 * 3  # of the weights: the result, and at most three checkpoints with AdamW's two numbers for each


def check_place(output: Path) -> None:
    """Raises EmbedcacheError where something is at the place of the new model."""
    if output.is_symlink() or (output.exists() and not (output.is_dir() and not any(output.iterdir()))):
        raise EmbedcacheError(f"{output} exists already, and nothing was changed: name a new folder with -o")


def check_room(output: Path, weights: int) -> None:
    """Raises EmbedcacheError where checkpoints and the result, of so many bytes of weights, do not fit on the disk."""
    place = next(folder for folder in output.absolute().parents if folder.exists())
    free, needed = shutil.disk_usage(place).free, COPIES * weights
    if free < needed:
        raise EmbedcacheError(
            f"cannot write {output}: training needs {needed / 1e6:,.0f} MB on its disk for checkpoints and the result, "
            f"and {free / 1e6:,.0f} MB are free: make room, or name another folder with -o"
        )


@contextmanager
def disk_faults(output: Path, folder: Path) -> Iterator[None]:
    """Say of what fails here that the disk is full, where it is: libraries hide it behind errors of their own."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (MemoryError, EmbedcacheError)) or not (folder.exists() and is_full(folder)):
            raise
        raise EmbedcacheError(
            f"cannot write {output}: no space left on its disk: make room; the same command with --resume continues"
        ) from error
