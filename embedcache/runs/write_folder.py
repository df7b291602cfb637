"""Write a run directory, whole or not at all: beside its place, then moved there (common/whole_folder.py).

A run that already stands there is replaced, with other files in it kept; a folder that is not a run is never touched.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embedcache.common.digest import file_sha256
from embedcache.common.tensors import save_tensors
from embedcache.common.whole_file import refuse_stream
from embedcache.common.whole_folder import others, recover, whole_folder
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.runs.calibration_set import FILE as CALIBRATION_SET
from embedcache.runs.calibration_set import CalibrationSet
from embedcache.runs.folder import (
    BEST,
    EVALUATIONS,
    FILES,
    FORMAT,
    HEADS,
    HISTORY,
    INFO,
    LEADERBOARD,
    OWN_ENCODER,
    carry_over,
    column_paths,
    is_run,
    run_lock,
)
from embedcache.runs.predictions import FILE as PREDICTIONS
from embedcache.runs.predictions import StoredPredictions
from embedcache.runs.versions import RUN_VERSION

LONGEST_NAME = 150  # bytes of a column's folder; file systems take 255


@dataclass
class RunFiles:
    """What a run directory is to hold for one label column.

    info: JSON types, with "classes" (labels) and "dim"; format, heads and checksums are added. heads: name -> head,
    every one trained. leaderboard, history: rows with the same keys, one an entry and one an epoch. evaluations: JSON
    types by the entry's name. own_encoder: the file of tuned tensors, copied.
    """

    info: dict[str, Any]
    best: TrainedHead
    heads: dict[str, TrainedHead]
    leaderboard: Sequence[dict[str, Any]]
    history: Sequence[dict[str, Any]] = ()
    evaluations: Mapping[str, Any] = field(default_factory=dict)
    predictions: StoredPredictions | None = None
    calibration_set: CalibrationSet | None = None
    own_encoder: Path | None = None


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
            recover(path.resolve(), carry_over)
    there = is_run(path)
    if not there and (path.is_symlink() or path.exists()):
        if not path.is_dir():
            raise EmbedcacheError(f"{path} is a file: name a folder to be made with -o")
        if any(path.iterdir()):
            raise EmbedcacheError(
                f"{path} is not empty and is not an embedcache run; nothing was changed: name another folder with -o"
            )
    for folder in set(column_folders(columns).values()) - set(column_paths(path)) if len(columns) > 1 else ():
        if (path / folder).exists():
            raise EmbedcacheError(
                f"{path / folder} already exists and does not belong to this run: name another folder with -o"
            )
    _check_writable(path)
    return there


def _check_writable(path: Path) -> None:
    """Folders that are not there yet are made only when there is something to put into them."""
    parent = path.absolute().parent
    while not (parent.exists() or parent.is_symlink()):
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):  # it has no name, so that a kill leaves nothing
            pass
    except OSError as error:
        raise EmbedcacheError(f"cannot write to {parent}: {error.strerror}; name another place with -o") from None


def write_run(path: str | Path, contents: RunFiles) -> None:
    """Write a run directory at path, whole or not at all. Raises EmbedcacheError where path may not be replaced."""
    with _staged(path, ()) as part:
        _write_contents(part, contents)


def write_columns(path: str | Path, info: dict[str, Any], columns: Mapping[str, RunFiles]) -> None:
    """Write the run of several label columns, whole or not at all: a run directory for each in one folder.

    info: JSON types, what the columns share. Raises EmbedcacheError as write_run.
    """
    folders = column_folders(list(columns))
    with _staged(path, list(columns)) as part:
        for column, contents in columns.items():
            (part / folders[column]).mkdir()
            _write_contents(part / folders[column], contents)
        files = {f"{folder}/{INFO}": file_sha256(part / folder / INFO) for folder in folders.values()}
        _write_info(part, {**info, "columns": folders, "files": files})


@contextmanager
def _staged(path: str | Path, columns: Sequence[str]) -> Iterator[Path]:
    """A new folder that takes the name path once it is full."""
    with run_lock(path):
        check_target(path, columns)
        with whole_folder(path, carry_over) as part:
            yield part


def _write_contents(folder: Path, contents: RunFiles) -> None:
    contents.best.save(folder / BEST)
    _save_heads(folder / HEADS, contents.heads)
    _save_table(folder / LEADERBOARD, contents.leaderboard)
    _save_table(folder / HISTORY, contents.history)
    _save_json(folder / EVALUATIONS, contents.evaluations, indent=None)
    if contents.predictions is not None:
        contents.predictions.save(folder / PREDICTIONS)
    if contents.calibration_set is not None:
        contents.calibration_set.save(folder / CALIBRATION_SET)
    if contents.own_encoder is not None:
        shutil.copyfile(contents.own_encoder, folder / OWN_ENCODER)
    files = {name: file_sha256(folder / name) for name in (*FILES, OWN_ENCODER) if (folder / name).exists()}
    about = {name: {**head.metadata(), "classes": None} for name, head in contents.heads.items()}  # info has them
    _write_info(folder, {**contents.info, "heads": about, "files": files})
    mode = (folder / INFO).stat().st_mode  # safetensors gives its files to their owner alone
    for name in (*files, INFO):
        (folder / name).chmod(mode)


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    document = {"format": FORMAT, "format_version": RUN_VERSION, **info}
    _save_json(folder / INFO, document)


def _save_json(path: Path, document: Mapping[str, Any], indent: int | None = 1) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False), "utf-8")


def _save_heads(path: Path, heads: dict[str, TrainedHead]) -> None:
    """One file of tensors "head-003/w1"; their settings and histories are in run.json."""
    tensors = {f"{name}/{weight}": array for name, head in heads.items() for weight, array in head.weights.items()}
    save_tensors(path, tensors)


def _save_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
