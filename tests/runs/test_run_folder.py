"""A run directory is whole or absent, never takes another folder's place, and says what it lacks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.common import whole_folder
from embedcache.common.signed import CARD, REPORT, is_signed, sign
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.runs import write_folder
from embedcache.runs.calibration_set import FILE as CALIBRATION_SET
from embedcache.runs.folder import FILES, LATER, load_heads, load_run
from embedcache.runs.predictions import StoredPredictions
from embedcache.runs.write_folder import RunFiles, check_target, column_folders, write_columns, write_run

WRITTEN = [name for name in FILES if name != CALIBRATION_SET]  # of runs that were not validated
INFO = {"classes": ["悪い", "良い", "so so"], "dim": 4}


def make_head(hidden: int, seed: int = 0) -> TrainedHead:
    rng = np.random.default_rng(seed)
    wide = {"w1": (hidden, 4), "b1": (hidden,), "w2": (3, hidden), "b2": (3,)}
    shapes = wide if hidden else {"w2": (3, 4), "b2": (3,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return TrainedHead(HeadSpec(hidden=hidden, seed=seed), weights, INFO["classes"], best_epoch=1, epochs_run=2)


def make_contents(**more: Any) -> RunFiles:
    heads = {"head-000": make_head(5), "head-001": make_head(0, seed=1)}
    rows = [{"rank": i + 1, "name": name, "val_loss": 0.5} for i, name in enumerate(heads)]
    predictions = StoredPredictions(
        "classification",
        INFO["classes"],
        side=np.array([0, 2], np.int8),
        hashes=np.zeros((2, 16), np.uint8),
        ids=None,
        y=np.array([0, 1]),
        rows=np.array([1]),
        outputs=np.zeros((1, 3), np.float32),
        fold=np.array([-1]),
    )
    return RunFiles({**INFO, **more}, heads["head-000"], heads, rows, predictions=predictions)


def write(path: Path, **more: Any) -> dict[str, TrainedHead]:
    contents = make_contents(**more)
    write_run(path, contents)
    return contents.heads


def write_all(path: Path, *columns: str, **more: Any) -> None:
    write_columns(path, {}, {column: make_contents(label=column, **more) for column in columns})


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    heads = write(tmp_path / "run", note="映画")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == sorted(WRITTEN)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    assert len({file.stat().st_mode for file in (tmp_path / "run").iterdir()}) == 1
    run = load_run(tmp_path / "run")
    assert run.classes == INFO["classes"] and run.info["note"] == "映画"
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    assert np.array_equal(run.best.predict_log_proba(x), heads["head-000"].predict_log_proba(x))
    again = load_heads(tmp_path / "run")
    assert list(again) == list(heads)
    for name, head in heads.items():
        assert again[name].spec == head.spec
        assert all(np.array_equal(again[name].weights[key], head.weights[key]) for key in head.weights)
    with (tmp_path / "run" / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(heads)


def test_a_run_is_replaced_and_other_files_in_it_stay(tmp_path: Path) -> None:
    write(tmp_path / "run", note="first")
    (tmp_path / "run" / "report.html").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert check_target(tmp_path / "run")
    write(tmp_path / "link", note="second")
    assert load_run(tmp_path / "run").info["note"] == "second"
    assert (tmp_path / "run" / "report.html").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "run"]


def test_documents_of_the_old_run_go_unless_someone_edited_them(tmp_path: Path) -> None:
    write(tmp_path / "run", note="first")
    (tmp_path / "run" / REPORT).write_bytes(sign("<p>of the first").encode())
    (tmp_path / "run" / CARD).write_bytes((sign("of the first") + "and a word of mine").encode())
    assert is_signed(tmp_path / "run" / REPORT) and not is_signed(tmp_path / "run" / CARD)
    write(tmp_path / "run", note="second")
    assert not (tmp_path / "run" / REPORT).exists()
    assert (tmp_path / "run" / CARD).read_text("utf-8").endswith("and a word of mine")
    assert not is_signed(tmp_path / "run") and not is_signed(tmp_path / "nowhere")


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    for name in (".run.partial-0a1b", ".other.partial-0a1b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "heads.safetensors").write_text("half of it")
    write(tmp_path / "run")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.partial-0a1b", "run"]


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "run.json").write_text('{"format": "something else"}')
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    for path in ("precious", "file", "file/run"):
        with pytest.raises(EmbedcacheError, match=path.split("/")[0]):
            write(tmp_path / path)
    assert not check_target(tmp_path / "empty")
    write(tmp_path / "empty")
    assert load_run(tmp_path / "empty")
    assert (tmp_path / "precious" / "run.json").read_text() == '{"format": "something else"}'
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "file", "precious"]


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / "run", note="first")
    monkeypatch.setattr(write_folder, "_save_table", full)
    for name in ("run", "new"):
        with pytest.raises(EmbedcacheError, match="No space left"):
            write(tmp_path / name, note="second")
    assert load_run(tmp_path / "run").info["note"] == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", sorted({*FILES} - {*LATER}))
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(EmbedcacheError, match=name):
        load_run(tmp_path / "run")


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="nowhere"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["best.safetensors", "heads.safetensors"])
def test_a_flipped_bit_is_seen(tmp_path: Path, name: str) -> None:
    write(tmp_path / "run")
    path = tmp_path / "run" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(EmbedcacheError, match=f"{name} is damaged"):
        load_heads(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "format 9, newer"),
        ({"format": "other"}, "not an embedcache run"),
        ({"dim": 5}, r"w1 is float32 \[5, 4\], not float32 \[5, 5\]"),
        ({"classes": ["one"]}, "w2 is"),
        ({"files": {}}, "damaged"),
        (None, "damaged"),
    ],
)
def test_a_wrong_run_json_is_refused(tmp_path: Path, change: dict[str, Any] | None, message: str) -> None:
    write(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text("{" if change is None else json.dumps({**json.loads(path.read_text("utf-8")), **change}))
    with pytest.raises(EmbedcacheError, match=message):
        load_run(tmp_path / "run")


def test_folders_that_are_missing_are_made(tmp_path: Path) -> None:
    assert not check_target(tmp_path / "no" / "such" / "run")
    assert not list(tmp_path.iterdir()), "not before there is something to put into them"
    write(tmp_path / "no" / "such" / "run")
    assert load_run(tmp_path / "no" / "such" / "run").classes == INFO["classes"]


@pytest.mark.parametrize("moment", ["between the renames", "after them", "after the exchange"])
def test_a_kill_while_a_run_is_replaced_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Between: the old run has no name any more. After: its other files are not in the new one yet."""
    write(tmp_path / "run", note="first")
    (tmp_path / "run" / "report.html").write_text("mine")
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name == ("run" if moment == "between the renames" else "report.html"):
            raise SystemExit("killed")
        return replace(self, target)

    with monkeypatch.context() as patch:
        if moment != "after the exchange":
            patch.setattr(whole_folder, "exchange", lambda a, b: False)  # as on a file system that cannot
        patch.setattr(Path, "replace", killed)
        with pytest.raises(SystemExit):
            write(tmp_path / "run", note="second")
    assert any(name.startswith(".run.old-") for name in names(tmp_path))
    assert (tmp_path / "run").exists() == (moment != "between the renames")
    assert check_target(tmp_path / "run")
    assert names(tmp_path) == ["run"] and (tmp_path / "run" / "report.html").read_text() == "mine"
    assert load_run(tmp_path / "run").info["note"] == ("first" if moment == "between the renames" else "second")


# ---- several columns ----


def test_a_run_of_columns_is_written_and_read(tmp_path: Path) -> None:
    write_all(tmp_path / "run", "stars", "星 / ..")
    assert names(tmp_path / "run") == ["run.json", "stars", "星%20%2F%20%2E%2E"]
    run = load_run(tmp_path / "run")
    assert list(run.columns) == ["stars", "星 / .."]
    assert {name: one.info["label"] for name, one in run.columns.items()} == {"stars": "stars", "星 / ..": "星 / .."}
    assert run.info["label"] == "stars" and load_run(run.columns["星 / .."].path).classes == INFO["classes"]
    assert set(load_heads(tmp_path / "run")) == {f"{c}/head-00{i}" for c in run.columns for i in range(2)}
    one = load_run(tmp_path / "run" / "stars")
    assert list(one.columns) == ["stars"] and one.columns["stars"] is one


@pytest.mark.parametrize(
    "columns",
    [
        ["label", "Label", "LABEL"],
        [".", "..", "/", "a/b", "a\\b"],
        ["run.json", "best.safetensors", ".hidden"],
        ["x" * 300, "x" * 301, "評価" * 100],
        ["", " ", "column%0"],
        ["a b", "a%20b"],
    ],
    ids=lambda columns: columns[0][:12],
)
def test_every_column_has_a_folder_of_its_own(tmp_path: Path, columns: list[str]) -> None:
    folders = list(column_folders(columns).values())
    assert len({folder.casefold() for folder in folders}) == len(columns)
    for folder in folders:
        assert Path(folder).name == folder and not folder.startswith(".") and folder not in FILES
        (tmp_path / folder).mkdir()


def test_runs_of_one_and_of_several_columns_replace_each_other(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_all(run, "a", "b")
    (run / "a" / "notes.txt").write_text("on a")
    (run / "report.html").write_text("on all")
    write_all(run, "b", "c", note="second")
    assert names(run) == ["a", "b", "c", "report.html", "run.json"] and names(run / "a") == ["notes.txt"]
    assert load_run(run / "b").info["note"] == "second"
    write(run, note="third")
    assert names(run) == sorted(["a", "report.html", *WRITTEN]) and load_run(run).info["note"] == "third"
    (run / "a" / "notes.txt").unlink()
    (run / "a").rmdir()
    write_all(run, "a", "b")
    assert names(run) == ["a", "b", "report.html", "run.json"] and names(tmp_path) == ["run"]


def test_a_folder_in_a_column_s_place_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / "stars").mkdir()
    (tmp_path / "run" / "stars" / "thesis.txt").write_text("years of work")
    for check in (
        lambda: check_target(tmp_path / "run", ["a", "stars"]),
        lambda: write_all(tmp_path / "run", "a", "stars"),
    ):
        with pytest.raises(EmbedcacheError, match="stars already exists and does not belong to this run"):
            check()
    assert (tmp_path / "run" / "stars" / "thesis.txt").read_text() == "years of work"
    assert load_run(tmp_path / "run").classes == INFO["classes"]


@pytest.mark.parametrize("folder", ["../precious", "/etc", "..", "", 7, None])
def test_columns_of_a_run_json_never_lead_outside(tmp_path: Path, folder: Any) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "run.json").write_text("mine")
    write_all(tmp_path / "run", "a", "b")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "columns": {"a": "a", "b": folder}}))
    with pytest.raises(EmbedcacheError, match=r"columns are not folders|columns\[\.\.\.\] must be a text"):
        load_run(tmp_path / "run")
    write(tmp_path / "run")
    assert (tmp_path / "precious" / "run.json").read_text() == "mine"


@pytest.mark.parametrize(("lost", "message"), [("b/best.safetensors", "best.safetensors"), ("b", "no run at")])
def test_what_a_column_lacks_is_named(tmp_path: Path, lost: str, message: str) -> None:
    write_all(tmp_path / "run", "a", "b")
    path = tmp_path / "run" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(EmbedcacheError, match=message):
        load_run(tmp_path / "run")
