"""A run directory: best and all heads (safetensors), leaderboard.csv, history.csv and run.json. Nothing executable.

The run of several label columns is a folder of such folders, one a column, and a run.json that lists them. A run is
written beside its place and moved there whole, so what stands under its name is never half a run. A run that already
stands there is replaced, with other files in it kept; a folder that is no run is never touched.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from embedcache.common.checked import SchemaError, conform, read_json
from embedcache.common.signed import CARD, REPORT, is_signed
from embedcache.common.tensors import save_tensors
from embedcache.common.whole_file import refuse_stream
from embedcache.common.whole_folder import beside, folder_lock, others, read_whole, recover, whole_folder
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.memory import MakeRoom, WeightRoom, read_weights
from embedcache.heads.task import weight_shapes
from embedcache.runs.predictions import FILE as PREDICTIONS
from embedcache.runs.predictions import Predictions
from embedcache.runs.schema import Columns, check_info, damaged
from embedcache.runs.versions import RUN_VERSION, info_of_today

T = TypeVar("T")
Names = Iterable[str] | None

FORMAT = "embedcache-run"
BEST, HEADS, INFO = "best.safetensors", "heads.safetensors", "run.json"
LEADERBOARD, HISTORY, EVALUATIONS = "leaderboard.csv", "history.csv", "evaluations.json"
FILES = (BEST, HEADS, LEADERBOARD, HISTORY, EVALUATIONS, PREDICTIONS, INFO)
LATER = (HISTORY, EVALUATIONS, PREDICTIONS)  # the first runs had none
LONGEST_NAME = 150  # bytes of a column's folder; file systems take 255


@dataclass(eq=False)
class Run:
    """A run as read: info is run.json, as today's version would have written it.

    ``columns``: label column -> its run, in the order of the training; a run of one column holds itself. Where there
    are several, info and best are those of the first. ``version``: the format of its files.
    """

    path: Path
    info: dict[str, Any]
    best: TrainedHead
    columns: dict[str, Run] = field(default_factory=dict, repr=False)
    version: int = RUN_VERSION

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
    if not path.is_dir():
        refuse_stream(path, "a run", "folder")
    if others(path.resolve(), "old"):
        with suppress(OSError), run_lock(path):
            recover(path.resolve(), _carry_over)
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
    probe = beside(parent / path.name, "probe")
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
        files = {f"{folder}/{INFO}": _sha256(part / folder / INFO) for folder in folders.values()}
        _write_info(part, {**info, "columns": folders, "files": files})


@contextmanager
def _staged(path: str | Path, columns: Sequence[str]) -> Iterator[Path]:
    """A new folder that takes the name path once it is full."""
    with run_lock(path):
        check_target(path, columns)
        with whole_folder(path, _carry_over) as part:
            yield part


@contextmanager
def run_lock(path: str | Path) -> Iterator[None]:
    """Be the only one who writes a run, or into its folder; of a column's folder: into the whole run.

    Raises EmbedcacheError where another process does.
    """
    path = Path(path).resolve()
    with folder_lock(path.parent if path.name in _folders(path.parent) else path):
        yield


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
    document = {"format": FORMAT, "format_version": RUN_VERSION, **info}
    _save_json(folder / INFO, document)
    _sync(folder / INFO)


def _save_json(path: Path, document: Mapping[str, Any], indent: int | None = 1) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False), "utf-8")


def load_run(path: str | Path) -> Run:
    """Read run.json and the best head of every column, checked. Raises EmbedcacheError: what is missing or damaged."""
    return with_run(path, lambda run: run)


def with_run(path: str | Path, use: Callable[[Run], T]) -> T:
    """What ``use`` makes of a run and its files: all of one run, although another may take its place meanwhile.

    ``use`` is called again where that happened. Raises EmbedcacheError as load_run.
    """
    return read_whole(path, lambda: use(_load(Path(path))), _carry_over)


def _load(path: Path) -> Run:
    info = _read_info(path)
    if "columns" not in info:
        return _load_column(path, info)
    try:
        columns = conform(info, Columns)
    except SchemaError as error:
        raise damaged(path / INFO, error) from None
    folders = _folders(path)
    if len(folders) != len(columns.columns):
        raise damaged(path / INFO, SchemaError("its columns are no folders"))
    for file, digest in columns.files.items() if isinstance(columns.files, dict) else ():  # the first runs had none
        if (path / file).is_file() and _sha256(path / file) != digest:
            raise damaged(path / file, SchemaError(f"its checksum is not the one in {path / INFO}"))
    runs = {name: _load_column(path / one, _read_info(path / one)) for name, one in columns.columns.items()}
    first = next(iter(runs.values()))
    return Run(path, first.info, first.best, runs, first.version)


def _read_info(path: Path) -> dict[str, Any]:
    """run.json of a folder that has all its files."""
    if not path.is_dir():
        raise EmbedcacheError(f"no run at {path}: embedcache train-head CACHE -o {path} makes one")
    missing = [name for name in FILES if name not in LATER and not (path / name).is_file()]
    if INFO in missing or (missing and not _folders(path)):
        raise EmbedcacheError(f"{path} is incomplete: {', '.join(missing)} is missing; train it again with train-head")
    try:
        info: dict[str, Any] = read_json(path / INFO)
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise SchemaError("it is not an embedcache run")
        version = conform(info.get("format_version"), int, "format_version")
    except (SchemaError, OSError) as error:
        raise damaged(path / INFO, error) from None
    if version > RUN_VERSION:
        raise EmbedcacheError(f"{path} has run format {version}, newer than this embedcache reads: upgrade embedcache")
    return info


def _load_column(path: Path, info: dict[str, Any]) -> Run:
    version = info["format_version"]
    info = info_of_today(info, version)
    try:
        check_info(info)
    except SchemaError as error:
        raise damaged(path / INFO, error) from None
    if _sha256(path / BEST) != info["files"].get(BEST):
        raise damaged(path / BEST, SchemaError(f"its checksum is not the one in {INFO}"))
    best = TrainedHead.load(path / BEST)
    _check_head(path / BEST, best, info)
    run = Run(path, info, best, version=version)
    run.columns = {str(info.get("label", "label")): run}
    return run


def read_file(run: Run, name: str) -> bytes:
    """A file of one column's run, as its training wrote it; b"" for one that the run never had.

    Raises EmbedcacheError where it is missing or changed.
    """
    path, digest = run.path / name, run.info["files"].get(name)
    if digest is None and name in LATER:
        return b""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EmbedcacheError(f"cannot read {path}: {error.strerror}; train it again") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise damaged(path, SchemaError(f"its checksum is not the one in {INFO}"))
    return data


def require_keys(run: Run, *names: str) -> None:
    """Raises EmbedcacheError where run.json of a column lacks one of these."""
    for one in run.columns.values():
        for name in names:
            if name not in one.info:
                raise damaged(one.path / INFO, SchemaError(f"{name} is missing"))


def load_heads(path: str | Path, names: Names = None, room: MakeRoom = WeightRoom) -> dict[str, TrainedHead]:
    """All heads of a run, or those named: name -> head, in the order of training; ``room`` holds their weights.

    Of a run of several columns: "column/name" -> head, always all. Raises EmbedcacheError as load_run.
    """

    def read(run: Run) -> dict[str, TrainedHead]:
        if len(run.columns) == 1:
            return _read_heads(run, names, room)
        columns = {column: _read_heads(one, None, room) for column, one in run.columns.items()}
        return {f"{column}/{name}": head for column, heads in columns.items() for name, head in heads.items()}

    return with_run(path, read)


def _read_heads(run: Run, names: Names, room: MakeRoom) -> dict[str, TrainedHead]:
    from safetensors import SafetensorError, safe_open

    file_path, heads = run.path / HEADS, dict[str, TrainedHead]()
    try:
        if _sha256(file_path) != run.info["files"].get(HEADS):
            raise SchemaError(f"its checksum is not the one in {INFO}")
        with safe_open(str(file_path), framework="numpy") as file:
            about = run.info["heads"]
            hidden = {name: about[name]["spec"]["hidden"] for name in (about if names is None else names)}
            for name, weights in read_weights(file, hidden, room):
                heads[name] = TrainedHead.from_metadata({**about[name], "classes": run.classes}, weights)
                _check_head(file_path, heads[name], run.info)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise damaged(file_path, error) from None
    return heads


def _is_run(path: Path) -> bool:
    try:
        info = read_json(path / INFO)
    except (OSError, SchemaError):
        return False
    return isinstance(info, dict) and info.get("format") == FORMAT


def _folders(path: Path) -> list[str]:
    """The folders of a run of several columns; none for any other. Only plain names: nothing outside is touched."""
    if not _is_run(path):
        return []
    columns = read_json(path / INFO).get("columns")
    names = columns.values() if isinstance(columns, dict) else ()
    fit = [name for name in names if isinstance(name, str) and name not in ("", "..") and Path(name).name == name]
    return [name for name in fit if not (path / name).is_symlink()]


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


def _save_heads(path: Path, heads: dict[str, TrainedHead]) -> None:
    """One file of tensors "head-003/w1"; their settings and histories are in run.json."""
    tensors = {f"{name}/{weight}": array for name, head in heads.items() for weight, array in head.weights.items()}
    save_tensors(path, tensors)


def _save_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _check_head(path: Path, head: TrainedHead, info: Mapping[str, Any]) -> None:
    if head.kind != info.get("kind", head.kind):
        raise damaged(path, SchemaError(f"it is a head of the kind {head.kind}, {INFO} has {info['kind']}"))
    for name, shape in weight_shapes(head.spec, info["dim"], len(info["classes"])).items():
        array = head.weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise damaged(path, SchemaError(f"{name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}"))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
