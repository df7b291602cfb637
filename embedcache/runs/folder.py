"""A run directory: best and all heads (safetensors), leaderboard.csv, history.csv and run.json. Nothing executable.

The run of several label columns is a folder of such folders, one a column, and a run.json that lists them. It is
written whole (write_folder.py), so what stands under its name is never half a run; here it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from embedcache.common.checked import SchemaError, conform, read_json
from embedcache.common.digest import file_sha256
from embedcache.common.display import html_table
from embedcache.common.open_files import rename
from embedcache.common.signed import CARD, REPORT, is_signed
from embedcache.common.whole_folder import folder_lock, read_whole
from embedcache.encoder.tuned import FILE as TUNED
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.memory import MakeRoom, WeightRoom, read_weights
from embedcache.heads.task import weight_shapes
from embedcache.runs.calibration_set import FILE as CALIBRATION_SET
from embedcache.runs.predictions import FILE as PREDICTIONS
from embedcache.runs.schema import Columns, check_info, damaged
from embedcache.runs.scores import main_score
from embedcache.runs.versions import RUN_VERSION, info_of_today

T = TypeVar("T")
Names = Iterable[str] | None

FORMAT = "embedcache-run"
BEST, HEADS, INFO = "best.safetensors", "heads.safetensors", "run.json"
LEADERBOARD, HISTORY, EVALUATIONS = "leaderboard.csv", "history.csv", "evaluations.json"
FILES = (BEST, HEADS, LEADERBOARD, HISTORY, EVALUATIONS, PREDICTIONS, CALIBRATION_SET, INFO)
LATER = (HISTORY, EVALUATIONS, PREDICTIONS, CALIBRATION_SET)  # the first runs had none
OWN_ENCODER = TUNED  # of runs that finetune made: what was trained of the encoder


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
        return describe_run(self)

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def classes(self) -> list[str]:
        """The label of each class."""
        return list(self.info["classes"])

    @property
    def text_column(self) -> str | None:
        """As ``Cache.text_column``, of the cache that it was trained on."""
        name: str | None = self.info.get("cache", {}).get("text_column")
        return name


@contextmanager
def run_lock(path: str | Path) -> Iterator[None]:
    """Hold the lock of a run, to write it or into its folder; for a column's folder, that of the whole run.

    Raises EmbedcacheError where another process does.
    """
    path = Path(path).resolve()
    with folder_lock(path.parent if path.name in column_paths(path.parent) else path):
        yield


def load_run(path: str | Path) -> Run:
    """Read run.json and the best head of every column, checked. Raises EmbedcacheError: what is missing or damaged."""
    return with_run(path, lambda run: run)


def with_run(path: str | Path, use: Callable[[Run], T]) -> T:
    """What ``use`` makes of a run and its files: all of one run, although another may take its place meanwhile.

    ``use`` is called again where that happened. Raises EmbedcacheError as load_run.
    """
    return read_whole(path, lambda: use(_load(Path(path))), carry_over)


def _load(path: Path) -> Run:
    info = _read_info(path)
    if "columns" not in info:
        return _load_column(path, info)
    try:
        columns = conform(info, Columns)
    except SchemaError as error:
        raise damaged(path / INFO, error) from None
    folders = column_paths(path)
    if len(folders) != len(columns.columns):
        raise damaged(path / INFO, SchemaError("its columns are not folders"))
    for file, digest in columns.files.items() if isinstance(columns.files, dict) else ():  # the first runs had none
        if (path / file).is_file() and file_sha256(path / file) != digest:
            raise damaged(path / file, SchemaError(f"its checksum is not the one in {path / INFO}"))
    runs = {name: _load_column(path / one, _read_info(path / one)) for name, one in columns.columns.items()}
    first = next(iter(runs.values()))
    return Run(path, first.info, first.best, runs, first.version)


def _read_info(path: Path) -> dict[str, Any]:
    """run.json of a folder that has all its files."""
    if not path.is_dir():
        raise EmbedcacheError(f"no run at {path}: embedcache train-head CACHE -o {path} makes one")
    missing = [name for name in FILES if name not in LATER and not (path / name).is_file()]
    if INFO in missing or (missing and not column_paths(path)):
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
    if file_sha256(path / BEST) != info["files"].get(BEST):
        raise damaged(path / BEST, SchemaError(f"its checksum is not the one in {INFO}"))
    if "tuned" in info:
        _own_encoder(path, info)
    best = TrainedHead.load(path / BEST)
    _check_head(path / BEST, best, info)
    run = Run(path, info, best, version=version)
    run.columns = {str(info.get("label", "label")): run}
    return run


def _own_encoder(path: Path, info: dict[str, Any]) -> None:
    """A tuned run is the folder of its encoder, wherever it lies now."""
    if not (path / OWN_ENCODER).is_file():
        raise EmbedcacheError(f"{path} is incomplete: {OWN_ENCODER} is missing; run finetune again")
    if file_sha256(path / OWN_ENCODER) != info["files"].get(OWN_ENCODER):
        raise damaged(path / OWN_ENCODER, SchemaError(f"its checksum is not the one in {INFO}"))
    info["encoder"] = {**info["encoder"], "source": str(path.resolve())}


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
    """Raises EmbedcacheError where one of these is missing in run.json of a column."""
    for one in run.columns.values():
        for name in names:
            if name not in one.info:
                raise damaged(one.path / INFO, SchemaError(f"{name} is missing"))


def load_heads(path: str | Path, names: Names = None, room: MakeRoom = WeightRoom) -> dict[str, TrainedHead]:
    """All heads of a run, or those named: name -> head, in the order of training; ``room`` holds their weights.

    A run of several columns gives "column/name" -> head, always all. Raises EmbedcacheError as load_run.
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
        if file_sha256(file_path) != run.info["files"].get(HEADS):
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


def is_run(path: Path) -> bool:
    try:
        info = read_json(path / INFO)
    except (OSError, SchemaError):
        return False
    return isinstance(info, dict) and info.get("format") == FORMAT


def column_paths(path: Path) -> list[str]:
    """The folders of a run of several columns; none for any other. Only plain names: nothing outside is touched."""
    if not is_run(path):
        return []
    columns = read_json(path / INFO).get("columns")
    names = columns.values() if isinstance(columns, dict) else ()
    fit = [name for name in names if isinstance(name, str) and name not in ("", "..") and Path(name).name == name]
    return [name for name in fit if not (path / name).is_symlink()]


def carry_over(old: Path, new: Path) -> None:
    """Move what is not of the old run to the new folder, and remove the old one."""
    folders = column_paths(old)
    for folder in folders:
        if (old / folder).is_dir():
            carry_over(old / folder, new / folder)
    for name in (*FILES, OWN_ENCODER, *(name for name in (REPORT, CARD) if is_signed(old / name))):
        (old / name).unlink(missing_ok=True)
    for entry in list(old.iterdir()):
        new.mkdir(exist_ok=True)
        rename(entry, new / entry.name)
    old.rmdir()


def _check_head(path: Path, head: TrainedHead, info: Mapping[str, Any]) -> None:
    dim = info.get("inputs", {}).get(head.reads, info["dim"])
    if head.kind != info.get("kind", head.kind):
        raise damaged(path, SchemaError(f"it is a head of the kind {head.kind}, {INFO} has {info['kind']}"))
    for name, shape in weight_shapes(head.spec, dim, len(info["classes"])).items():
        array = head.weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise damaged(path, SchemaError(f"{name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}"))


def describe_run(run: Run) -> str:
    columns = ", ".join(f"{name!r}: {one.best.kind}" for name, one in run.columns.items())
    return f"Run({str(run.path)!r}, {{{columns}}}, {_best(run)})"


def run_html(run: Run) -> str:
    """The best head of every label column, with its scores and the baselines'."""
    rows: list[Sequence[Any]] = []
    for name, one in run.columns.items():
        best, main = one.info.get("best", {}), main_score(one.best.kind)
        scores = [best.get(f"{side}_{main}") for side in ("val", "test")]
        second: dict[str, Any] = next((s for key, s in one.info.get("baselines", {}).items() if "tfidf" in key), {})
        rows.append((name, one.best.kind, best.get("name"), main, *scores, second.get(f"test_{main}")))
    title = f"Run {run.path}: {run.info.get('engine', '')}, trained {run.info.get('created', '-')}"
    return html_table(title, ("label column", "task", "head", "score", "val", "test", "TF-IDF, test"), rows)


def _best(run: Run) -> str:
    best, main = run.info.get("best", {}), main_score(run.best.kind)
    scores = [f"{side}_{main} {best[f'{side}_{main}']:.4f}" for side in ("val", "test") if best.get(f"{side}_{main}")]
    return ", ".join(["best " + str(best.get("name", "-")), *scores])
