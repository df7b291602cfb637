"""Where an export goes: a folder that appears whole or not at all, and that replaces nothing but an export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedcache.common.checked import SchemaError, read_json
from embedcache.common.whole_file import refuse_stream
from embedcache.common.whole_folder import is_full, whole_folder
from embedcache.errors import EmbedcacheError

FORMAT = "embedcache-export"
ABOUT = "embedcache.json"


def check_target(output: Path, overwrite: bool) -> None:
    """Check that an export may be written there.

    Raises:
        EmbedcacheError: something else is there, or an export that ``overwrite`` does not allow to replace.
    """
    if not output.is_dir():
        refuse_stream(output, "an export", "folder")
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir():
        raise EmbedcacheError(f"{output} is a file: name a new folder with -o")
    if not any(output.iterdir()):
        return
    if not _is_export(output):
        raise EmbedcacheError(
            f"{output} is not empty and is not an embedcache export; nothing was changed: name another folder with -o"
        )
    if not overwrite:
        raise EmbedcacheError(
            f"{output} exists already: name another folder with -o, or pass --overwrite to replace it"
        )


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A new folder that takes the name ``output`` once it is full. Raises EmbedcacheError, too, where the disk is full.

    torch and others hide the disk's error behind errors of their own; a full disk is reported all the same.
    """
    output = output.resolve()
    with whole_folder(output, _discard) as part:
        try:
            yield part
        except Exception as error:
            if isinstance(error, MemoryError) or not is_full(part):
                raise
            raise _no_space(output) from error
        _same_mode(part)


def check_space(part: Path, output: Path, needed: int) -> None:
    """Check, before anything is written, that so many bytes fit.

    Raises:
        EmbedcacheError: they do not.
    """
    free = shutil.disk_usage(part).free
    if free < needed:
        raise _no_space(output, f": {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free")


def _no_space(output: Path, why: str = "") -> EmbedcacheError:
    return EmbedcacheError(
        f"cannot write {output}: no space left on its disk{why}; nothing was changed: make room, or name another "
        "folder with -o"
    )


def _discard(old: Path, new: Path) -> None:
    """An export has no other files, so a replaced one is removed as a whole."""
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", "utf-8")


def list_files(folder: Path) -> list[str]:
    """Every file below the folder, by its path in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _is_export(folder: Path) -> bool:
    try:
        about = read_json(folder / ABOUT)
    except (OSError, SchemaError):
        return False
    return isinstance(about, dict) and about.get("format") == FORMAT


def _same_mode(folder: Path) -> None:
    """safetensors gives its files to their owner alone."""
    mode = (folder / ABOUT).stat().st_mode
    for name in list_files(folder):
        (folder / name).chmod(mode)
