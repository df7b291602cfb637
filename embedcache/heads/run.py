"""A run directory: best and all heads (safetensors), leaderboard.csv, history.csv and run.json. Nothing executable.

The run of several label columns is a folder of such folders, one a column, and a run.json that lists them. A run is
written beside its place and moved there whole, so what stands under its name is never half a run. A run that already
stands there is replaced, with other files in it kept; a folder that is no run is never touched.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.bank import weight_shapes
from embedcache.heads.predictions import FILE as PREDICTIONS
from embedcache.heads.predictions import Predictions
from embedcache.heads.trained import TrainedHead

FORMAT = "embedcache-run"
VERSION = 1
BEST, HEADS, INFO = "best.safetensors", "heads.safetensors", "run.json"
LEADERBOARD, HISTORY, EVALUATIONS = "leaderboard.csv", "history.csv", "evaluations.json"
FILES = (BEST, HEADS, LEADERBOARD, HISTORY, EVALUATIONS, PREDICTIONS, INFO)
LATER = (HISTORY, EVALUATIONS, PREDICTIONS)  # the first runs had none
REPORT, CARD = "report.html", "README.md"  # written of a run, into its folder; they go when another takes its place
SIGNATURE = "\n<!-- embedcache {} -->\n"  # their end: the SHA-256 of what stands before, so that an edited one is kept
LONGEST_NAME = 150  # bytes of a column's folder; file systems take 255


@dataclass(eq=False)
class Run:
    """A run as read: info is run.json.

    ``columns``: label column -> its run, in the order of the training; a run of one column holds itself. Where there
    are several, info and best are those of the first.
    """

    path: Path
    info: dict[str, Any]
    best: TrainedHead
    columns: dict[str, Run] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        from embedcache.heads.notebook import describe_run

        return describe_run(self)

    def _repr_html_(self) -> str:
        from embedcache.heads.notebook import run_html

        return run_html(self)

    @property
    def classes(self) -> list[str]:
        """The label of each class."""
        return list(self.info["classes"])


@dataclass
class Contents:
    """What a run directory is to hold for one label column.

    info: JSON types, with "classes" (labels) and "dim"; format, heads and checksums are added. heads: name -> head,
    every one trained. leaderboard, history: rows with the same keys, one an entry and one an epoch. evaluations: JSON
    types by the entry's name.
    """

    info: dict[str, Any]
    best: TrainedHead
    heads: dict[str, TrainedHead]
    leaderboard: Sequence[dict[str, Any]]
    history: Sequence[dict[str, Any]] = ()
    evaluations: Mapping[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None


def column_folders(columns: Sequence[str]) -> dict[str, str]:
    """A folder's name for each label column: the column's own where letters, digits, - and _ make it, else quoted."""
    folders: dict[str, str] = {}
    for i, column in enumerate(columns):
        folder = "".join(c if c.isalnum() or c in "-_" else quote(c, safe="").replace(".", "%2E") for c in column)
        taken = {other.casefold() for other in folders.values()}  # some file systems see no difference in case
        unfit = not folder or folder.casefold() in taken or len(folder.encode()) > LONGEST_NAME
        folders[column] = f"column%{i}" if unfit else folder
    return folders


def check_target(path: str | Path, columns: Sequence[str] = ()) -> bool:
    """Whether a run already stands at path. Raises EmbedcacheError unless a run may be written there.

    columns: the label columns, where there are several. A run that a kill left without its name gets it back.
    """
    path = Path(path)
    with suppress(OSError):  # said below, where it matters
        _recover(path.resolve())
    is_run = _is_run(path)
    if not is_run and (path.is_symlink() or path.exists()):
        if not path.is_dir():
            raise EmbedcacheError(f"{path} is a file: name a folder to be made with -o")
        if any(path.iterdir()):
            raise EmbedcacheError(f"{path} holds files and is no run: it is left alone; name another folder with -o")
    for folder in set(column_folders(columns).values()) - set(_folders(path)) if len(columns) > 1 else ():
        if (path / folder).exists():
            raise EmbedcacheError(f"{path / folder} is not of this run, and in its way: name another folder with -o")
    _check_writable(path)
    return is_run


def _check_writable(path: Path) -> None:
    """Folders that are not there yet are made only when there is something to put into them."""
    parent = path.absolute().parent
    while not (parent.exists() or parent.is_symlink()):
        parent = parent.parent
    probe = _beside(parent / path.name, "probe")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise EmbedcacheError(f"cannot write to {parent}: {error.strerror}; name another place with -o") from None


def write_run(path: str | Path, contents: Contents) -> None:
    """Write a run directory at path, whole or not at all. Raises EmbedcacheError where path may not be replaced."""
    with _staged(path, ()) as part:
        _write_contents(part, contents)


def write_columns(path: str | Path, info: dict[str, Any], columns: Mapping[str, Contents]) -> None:
    """Write the run of several label columns, whole or not at all: a run directory for each in one folder.

    info: JSON types, what the columns share. Raises EmbedcacheError as write_run.
    """
    folders = column_folders(list(columns))
    with _staged(path, list(columns)) as part:
        for column, contents in columns.items():
            (part / folders[column]).mkdir()
            _write_contents(part / folders[column], contents)
        _write_info(part, {**info, "columns": folders})


@contextmanager
def _staged(path: str | Path, columns: Sequence[str]) -> Iterator[Path]:
    """A new folder that takes the name path once it is full."""
    path = Path(path).resolve()
    check_target(path, columns)
    part = _beside(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for killed in _others(path, "partial"):
            shutil.rmtree(killed, ignore_errors=True)
        part.mkdir()
        yield part
        _move_into_place(part, path)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {path}: {error.strerror or error}; nothing was changed") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_contents(folder: Path, contents: Contents) -> None:
    contents.best.save(folder / BEST)
    _save_heads(folder / HEADS, contents.heads)
    _save_table(folder / LEADERBOARD, contents.leaderboard)
    _save_table(folder / HISTORY, contents.history)
    _save_json(folder / EVALUATIONS, contents.evaluations, indent=None)
    if contents.predictions is not None:
        contents.predictions.save(folder / PREDICTIONS)
    files = {name: _sha256(folder / name) for name in FILES if (folder / name).exists()}
    about = {name: {**head.metadata(), "classes": None} for name, head in contents.heads.items()}  # info has them
    _write_info(folder, {**contents.info, "heads": about, "files": files})
    mode = (folder / INFO).stat().st_mode  # safetensors gives its files to their owner alone
    for name in (*files, INFO):
        (folder / name).chmod(mode)
        _sync(folder / name)


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    document = {"format": FORMAT, "format_version": VERSION, **info}
    _save_json(folder / INFO, document)
    _sync(folder / INFO)


def _save_json(path: Path, document: Mapping[str, Any], indent: int | None = 1) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False), "utf-8")


def load_run(path: str | Path) -> Run:
    """Read run.json and the best head of every column, checked. Raises EmbedcacheError: what is missing or damaged."""
    path = Path(path)
    info = _read_info(path)
    if "columns" not in info:
        return _load_column(path, info)
    folders = _folders(path)
    if not folders or len(folders) != len(info["columns"]):
        raise EmbedcacheError(f"{path / INFO} is damaged: its columns are no folders; train it again")
    runs = {name: _load_column(path / folder, _read_info(path / folder)) for name, folder in info["columns"].items()}
    first = next(iter(runs.values()))
    return Run(path, first.info, first.best, runs)


def _read_info(path: Path) -> dict[str, Any]:
    """run.json of a folder that has all its files."""
    if not path.is_dir():
        raise EmbedcacheError(f"no run at {path}: embedcache train-head CACHE -o {path} makes one")
    missing = [name for name in FILES if name not in LATER and not (path / name).is_file()]
    if INFO in missing or (missing and not _folders(path)):
        raise EmbedcacheError(f"{path} is no whole run: it lacks {', '.join(missing)}; train it again with train-head")
    try:
        info: dict[str, Any] = json.loads((path / INFO).read_text("utf-8"))
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']!r}")
        version = int(info["format_version"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EmbedcacheError(f"{path / INFO} is damaged or not ours ({error}); train it again") from None
    if version > VERSION:
        raise EmbedcacheError(f"{path} has run format {version}, newer than this embedcache reads: upgrade embedcache")
    return info


def _load_column(path: Path, info: dict[str, Any]) -> Run:
    try:
        outputs, dim, digest = len(info["classes"]), int(info["dim"]), info["files"][BEST]
    except (ValueError, KeyError, TypeError) as error:
        raise EmbedcacheError(f"{path / INFO} is damaged or not ours ({error}); train it again") from None
    if _sha256(path / BEST) != digest:
        raise EmbedcacheError(f"{path / BEST} is damaged: its checksum is not the one in {INFO}; train it again")
    best = TrainedHead.load(path / BEST)
    _check_shapes(path / BEST, best, dim, outputs)
    run = Run(path, info, best)
    run.columns = {str(info.get("label", "label")): run}
    return run


def load_heads(path: str | Path, names: Iterable[str] | None = None) -> dict[str, TrainedHead]:
    """All heads of a run, or those named: name -> head, in the order in which they were trained.

    Of a run of several columns: "column/name" -> head, always all. Raises EmbedcacheError as load_run.
    """
    run = load_run(path)
    if len(run.columns) > 1:
        return {
            f"{column}/{name}": head for column, one in run.columns.items() for name, head in _read_heads(one).items()
        }
    return _read_heads(run, names)


def _read_heads(run: Run, names: Iterable[str] | None = None) -> dict[str, TrainedHead]:
    from safetensors import SafetensorError, safe_open

    file_path = run.path / HEADS
    heads = {}
    try:
        if _sha256(file_path) != run.info["files"][HEADS]:
            raise ValueError(f"its checksum is not the one in {INFO}")
        with safe_open(str(file_path), framework="numpy") as file:
            for name in run.info["heads"] if names is None else names:
                about = run.info["heads"][name]
                keys = ("w1", "b1", "w2", "b2") if about["spec"]["hidden"] else ("w2", "b2")
                weights = {weight: file.get_tensor(f"{name}/{weight}") for weight in keys}
                heads[name] = TrainedHead.from_metadata({**about, "classes": run.classes}, weights)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EmbedcacheError(f"{file_path} is damaged ({error}); train it again") from None
    return heads


def _is_run(path: Path) -> bool:
    try:
        return json.loads((path / INFO).read_text("utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _folders(path: Path) -> list[str]:
    """The folders of a run of several columns; none for any other. Only plain names: nothing outside is touched."""
    if not _is_run(path):
        return []
    columns = json.loads((path / INFO).read_text("utf-8")).get("columns")
    names = columns.values() if isinstance(columns, dict) else ()
    fit = [name for name in names if isinstance(name, str) and name not in ("", "..") and Path(name).name == name]
    return [name for name in fit if not (path / name).is_symlink()]


def _beside(path: Path, what: str) -> Path:
    """A new hidden name in the same folder, so that a rename moves it."""
    path = path.absolute()
    return path.parent / f".{path.name}.{what}-{secrets.token_hex(4)}"


def _others(path: Path, what: str) -> list[Path]:
    """Such names that killed writers left."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{what}-*"))


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
    _carry_over(old, path)


def _recover(path: Path) -> None:
    """End what a kill between two renames left: the old run gets its name back, or its other files go to the new."""
    for old in _others(path, "old"):
        if not path.exists():
            old.rename(path)
        elif _is_run(path):
            _carry_over(old, path)


def _carry_over(old: Path, new: Path) -> None:
    """Move what is not of the old run to the new folder, and remove the old one."""
    folders = _folders(old)
    for folder in folders:
        if (old / folder).is_dir():
            _carry_over(old / folder, new / folder)
    for name in (*FILES, *(name for name in (REPORT, CARD) if is_signed(old / name))):
        (old / name).unlink(missing_ok=True)
    for entry in list(old.iterdir()):
        new.mkdir(exist_ok=True)
        entry.rename(new / entry.name)
    old.rmdir()


def sign(text: str) -> str:
    """A document as it is written beside a run, in UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    return text + SIGNATURE.format(hashlib.sha256(text.encode()).hexdigest())


def is_signed(path: Path) -> bool:
    """Whether a file is such a document and nobody has changed it since."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    text = data[: -len(SIGNATURE.format("0" * 64))]
    return data.endswith(SIGNATURE.format(hashlib.sha256(text).hexdigest()).encode())


def _save_heads(path: Path, heads: dict[str, TrainedHead]) -> None:
    """One file of tensors "head-003/w1"; their settings and histories are in run.json."""
    from safetensors.numpy import save_file

    tensors = {f"{name}/{weight}": array for name, head in heads.items() for weight, array in head.weights.items()}
    save_file(tensors, str(path))


def _save_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
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
