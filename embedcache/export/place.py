"""Where an export goes: a folder that appears whole or not at all, and that replaces nothing but an export."""

from __future__ import annotations

import glob
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedcache.errors import EmbedcacheError

FORMAT = "embedcache-export"
ABOUT = "embedcache.json"


def check_target(output: Path, overwrite: bool) -> None:
    """Raises EmbedcacheError unless an export may be written there."""
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir():
        raise EmbedcacheError(f"{output} is a file: name a folder to be made with -o")
    if not any(output.iterdir()):
        return
    if not _is_export(output):
        raise EmbedcacheError(f"{output} holds files and is no export: it is left alone; name another folder with -o")
    if not overwrite:
        raise EmbedcacheError(f"{output} is there already: name another folder with -o, or --overwrite replaces it")


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A new folder that takes the name ``output`` once it is full."""
    output = output.resolve()
    part, old = _beside(output, "partial"), _beside(output, "old")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for killed in output.parent.glob(f".{glob.escape(output.name)}.partial-*"):
            shutil.rmtree(killed, ignore_errors=True)
        part.mkdir()
        yield part
        _same_mode(part)
        _replace(output, part, old)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {output}: {error.strerror or error}; nothing was changed") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(output: Path, part: Path, old: Path) -> None:
    if not output.exists():
        part.rename(output)
        return
    output.rename(old)
    try:
        part.rename(output)
    except OSError:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", "utf-8")


def list_files(folder: Path) -> list[str]:
    """Every file below the folder, by its path in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _is_export(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / ABOUT).read_text("utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _beside(path: Path, what: str) -> Path:
    return path.parent / f".{path.name}.{what}-{secrets.token_hex(4)}"


def _same_mode(folder: Path) -> None:
    """safetensors gives its files to their owner alone."""
    mode = (folder / ABOUT).stat().st_mode
    for name in list_files(folder):
        (folder / name).chmod(mode)
