"""A run directory: best.safetensors, heads.safetensors, leaderboard.csv and run.json. No pickle, nothing executable.

It is written beside its place and moved there whole, so what stands under its name is never half a run. A run that
already stands there is replaced, with other files in it kept; a folder that is no run is never touched.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.bank import weight_shapes
from embedcache.heads.trained import TrainedHead

FORMAT = "embedcache-run"
VERSION = 1
BEST, HEADS, LEADERBOARD, INFO = "best.safetensors", "heads.safetensors", "leaderboard.csv", "run.json"
FILES = (BEST, HEADS, LEADERBOARD, INFO)


@dataclass
class Run:
    """A run as read: info is run.json."""

    path: Path
    info: dict[str, Any]
    best: TrainedHead

    @property
    def classes(self) -> list[str]:
        """The label of each class."""
        return list(self.info["classes"])


def check_target(path: str | Path) -> bool:
    """Whether a run already stands at path. Raises EmbedcacheError unless a run may be written there."""
    path = Path(path)
    is_run = _is_run(path)
    if not is_run and (path.is_symlink() or path.exists()):
        if not path.is_dir():
            raise EmbedcacheError(f"{path} is a file: name a folder to be made with -o")
        if any(path.iterdir()):
            raise EmbedcacheError(f"{path} holds files and is no run: it is left alone; name another folder with -o")
    probe = _beside(path, "probe")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise EmbedcacheError(f"cannot write to {probe.parent}: {error.strerror}; name another place with -o") from None
    return is_run


def write_run(
    path: str | Path,
    info: dict[str, Any],
    best: TrainedHead,
    heads: dict[str, TrainedHead],
    leaderboard: Sequence[dict[str, Any]],
) -> None:
    """Write a run directory at path, whole or not at all.

    info: JSON types, with "classes" (labels) and "dim"; format, heads and checksums are added. heads: name -> head,
    every one trained. leaderboard: rows with the same keys. Raises EmbedcacheError where path may not be replaced.
    """
    path = Path(path).resolve()
    check_target(path)
    part = _beside(path, "partial")
    for killed in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        shutil.rmtree(killed, ignore_errors=True)
    try:
        part.mkdir()
        best.save(part / BEST)
        _save_heads(part / HEADS, heads)
        _save_leaderboard(part / LEADERBOARD, leaderboard)
        files = {name: _sha256(part / name) for name in (BEST, HEADS, LEADERBOARD)}
        about = {name: {**head.metadata(), "classes": None} for name, head in heads.items()}  # info has the classes
        document = {"format": FORMAT, "format_version": VERSION, **info, "heads": about, "files": files}
        (part / INFO).write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False), "utf-8")
        mode = (part / INFO).stat().st_mode  # safetensors gives its files to their owner alone
        for name in FILES:
            (part / name).chmod(mode)
            _sync(part / name)
        _move_into_place(part, path)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {path}: {error.strerror or error}; nothing was changed") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_run(path: str | Path) -> Run:
    """Read run.json and the best head, checked. Raises EmbedcacheError naming what is missing or damaged."""
    path = Path(path)
    if not path.is_dir():
        raise EmbedcacheError(f"no run at {path}: embedcache train-head CACHE -o {path} makes one")
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise EmbedcacheError(f"{path} is no whole run: it lacks {', '.join(missing)}; train it again with train-head")
    try:
        info = json.loads((path / INFO).read_text("utf-8"))
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']!r}")
        version, classes, digest = int(info["format_version"]), list(info["classes"]), info["files"][BEST]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EmbedcacheError(f"{path / INFO} is damaged or not ours ({error}); train it again") from None
    if version > VERSION:
        raise EmbedcacheError(f"{path} has run format {version}, newer than this embedcache reads: upgrade embedcache")
    if _sha256(path / BEST) != digest:
        raise EmbedcacheError(f"{path / BEST} is damaged: its checksum is not the one in {INFO}; train it again")
    best = TrainedHead.load(path / BEST)
    _check_shapes(path / BEST, best, int(info["dim"]), len(classes))
    return Run(path, info, best)


def load_heads(path: str | Path) -> dict[str, TrainedHead]:
    """All heads of a run, name -> head, in the order in which they were trained. Raises EmbedcacheError as load_run."""
    from safetensors import SafetensorError, safe_open

    run = load_run(path)
    file_path = run.path / HEADS
    heads = {}
    try:
        if _sha256(file_path) != run.info["files"][HEADS]:
            raise ValueError(f"its checksum is not the one in {INFO}")
        with safe_open(str(file_path), framework="numpy") as file:
            for name, about in run.info["heads"].items():
                names = ("w1", "b1", "w2", "b2") if about["spec"]["hidden"] else ("w2", "b2")
                weights = {weight: file.get_tensor(f"{name}/{weight}") for weight in names}
                heads[name] = TrainedHead.from_metadata({**about, "classes": run.classes}, weights)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EmbedcacheError(f"{file_path} is damaged ({error}); train it again") from None
    return heads


def _is_run(path: Path) -> bool:
    try:
        return json.loads((path / INFO).read_text("utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _beside(path: Path, what: str) -> Path:
    """A new hidden name in the same folder, so that a rename moves it."""
    path = path.absolute()
    return path.parent / f".{path.name}.{what}-{secrets.token_hex(4)}"


def _move_into_place(part: Path, path: Path) -> None:
    """Rename part to path. The run that stood there goes; what else its folder held stays."""
    if not path.exists():
        part.rename(path)
        return
    old = _beside(path, "old")
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    for name in FILES:
        (old / name).unlink(missing_ok=True)
    for entry in list(old.iterdir()):
        entry.rename(path / entry.name)
    old.rmdir()


def _save_heads(path: Path, heads: dict[str, TrainedHead]) -> None:
    """One file of tensors "head-003/w1"; their settings and histories are in run.json."""
    from safetensors.numpy import save_file

    tensors = {f"{name}/{weight}": array for name, head in heads.items() for weight, array in head.weights.items()}
    save_file(tensors, str(path))


def _save_leaderboard(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _check_shapes(path: Path, head: TrainedHead, dim: int, classes: int) -> None:
    for name, shape in weight_shapes(head.spec, dim, classes).items():
        array = head.weights[name]
        if array.shape != shape or array.dtype != np.float32:
            found = f"{name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}"
            raise EmbedcacheError(f"{path} is damaged: {found}; train it again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
