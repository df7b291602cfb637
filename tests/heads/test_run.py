"""A run directory is whole or absent, never takes another folder's place, and says what it lacks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads import run as run_module
from embedcache.heads.run import FILES, LATER, Contents, check_target, load_heads, load_run, write_run
from embedcache.heads.spec import HeadSpec
from embedcache.heads.trained import TrainedHead

INFO = {"classes": ["悪い", "良い", "so so"], "dim": 4}


def make_head(hidden: int, seed: int = 0) -> TrainedHead:
    rng = np.random.default_rng(seed)
    wide = {"w1": (hidden, 4), "b1": (hidden,), "w2": (3, hidden), "b2": (3,)}
    shapes = wide if hidden else {"w2": (3, 4), "b2": (3,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return TrainedHead(HeadSpec(hidden=hidden, seed=seed), weights, INFO["classes"], best_epoch=1, epochs_run=2)


def write(path: Path, **more: Any) -> dict[str, TrainedHead]:
    heads = {"head-000": make_head(5), "head-001": make_head(0, seed=1)}
    rows = [{"rank": i + 1, "name": name, "val_loss": 0.5} for i, name in enumerate(heads)]
    write_run(path, Contents({**INFO, **more}, heads["head-000"], heads, rows))
    return heads


def test_what_is_written_is_read(tmp_path: Path) -> None:
    heads = write(tmp_path / "run", note="映画")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == sorted(FILES)
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
    monkeypatch.setattr(run_module, "_save_table", full)
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
        ({"format": "other"}, "not ours"),
        ({"dim": 5}, r"w1 is float32 \[5, 4\], not float32 \[5, 5\]"),
        ({"classes": ["one"]}, "w2 is"),
        ({"files": {}}, "damaged"),
        (None, "damaged"),
    ],
)
def test_a_wrong_run_json_is_refused(tmp_path: Path, change: dict[str, Any] | None, message: str) -> None:
    write(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text("{" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EmbedcacheError, match=message):
        load_run(tmp_path / "run")
