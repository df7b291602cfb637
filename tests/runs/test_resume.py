"""What Ctrl-C leaves, and what --resume makes of it: never another head than the one that would be trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.runs import trainer
from embedcache.runs.folder import load_run
from embedcache.runs.job import HeadReport, InterruptedTraining, train_head
from embedcache.runs.resume import find_heads, save_unfinished, unfinished_paths
from tests.runs.caches import make_labelled_cache

SWEEP: dict[str, Any] = {"hidden": [0, 8], "lr": [1e-3, 1e-2], "seed": [0, 1], "epochs": 3, "engine": "native"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("resume") / "cache.h5")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many heads each call of the engine trained; ``interrupt`` makes a call end early."""
    calls: list[int] = []
    train_bank = trainer.train_bank

    def count(tasks: Any, heads: Sequence[Any], **options: Any) -> Any:
        calls.append(len(heads))
        return train_bank(tasks, heads, **options)

    monkeypatch.setattr(trainer, "train_bank", count)
    return calls


def interrupt(monkeypatch: pytest.MonkeyPatch, *unfinished: int) -> None:
    """The next training is stopped before these heads are finished."""
    train_bank = trainer.train_bank

    def stop(*arguments: Any, **options: Any) -> Any:
        result = train_bank(*arguments, **options)
        for i in unfinished:
            result.heads[i].status, result.heads[i].best_epoch = "cancelled", 0
        monkeypatch.setattr(trainer, "train_bank", train_bank)
        return result

    monkeypatch.setattr(trainer, "train_bank", stop)


def assert_same_run(a: Path, b: Path) -> None:
    """To the bit, but for the times in run.json."""
    for name in ("best.safetensors", "heads.safetensors", "leaderboard.csv", "history.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    infos = [json.loads((path / "run.json").read_text()) for path in (a, b)]
    for info in infos:
        for name in ("created", "seconds", "train_seconds", "times", "head_rows_per_second", "kept"):
            del info[name]
        for one in info["baselines"].values():
            one.pop("seconds", None)
    assert infos[0] == infos[1]


@pytest.mark.parametrize("more", [{}, {"folds": 3}, {"label": ["label", "tone"]}], ids=["plain", "folds", "columns"])
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[int], more: dict[str, Any]
) -> None:
    sweep = {**SWEEP, **more}
    whole = train_head(cache, tmp_path / "whole", **sweep)
    total = trained[0]
    interrupt(monkeypatch, *range(1, total, 2))
    with pytest.raises(InterruptedTraining, match=rf"{(total + 1) // 2} of {total} heads are saved in .*--resume"):
        train_head(cache, tmp_path / "run", **sweep)
    assert [path.name for path in tmp_path.iterdir() if path.name != "whole"] == [".run.unfinished.safetensors"]
    trained.clear()
    said: list[str] = []
    report = train_head(cache, tmp_path / "run", **sweep, resume=True, tell=said.append)
    assert trained[0] == total // 2 and report.kept == (total + 1) // 2 and report.heads == whole.heads
    assert said == [f"--resume: {(total + 1) // 2} of {total} heads are there already"]
    assert not unfinished_paths(tmp_path / "run")[0].exists()
    for column in whole.columns if len(whole.columns) > 1 else ("",):
        assert_same_run(tmp_path / "run" / column, tmp_path / "whole" / column)


def test_a_real_interrupt(cache: Path, tmp_path: Path) -> None:
    """In the midst of the training, by the progress callback: where Ctrl-C arrives too."""
    sweep = {**SWEEP, "hidden": 512, "lr": 1e-3, "seed": range(10), "epochs": 300, "threads": 1}

    def stop(done: int, total: int, rows: int) -> None:
        if done > 0.3 * total:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedTraining) as caught:
        train_head(cache, tmp_path / "run", **sweep, progress=stop)
    assert not (tmp_path / "run").exists()
    report = train_head(cache, tmp_path / "run", **sweep, resume=True)
    assert 0 < report.kept < 10 and f"{report.kept} of 10 heads are saved" in str(caught.value)
    train_head(cache, tmp_path / "whole", **sweep)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_an_interrupt_after_the_training_loses_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[int]
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("embedcache.runs.column.run_baselines", stop)
        with pytest.raises(InterruptedTraining, match="8 of 8 heads are saved"):
            train_head(cache, tmp_path / "run", **SWEEP)
    trained.clear()
    assert train_head(cache, tmp_path / "run", **SWEEP, resume=True).kept == 8 and not trained


def test_nothing_finished_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, *range(8))
    with pytest.raises(InterruptedTraining, match="before a head was finished; the same command starts again"):
        train_head(cache, tmp_path / "run", **SWEEP)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_extended(cache: Path, tmp_path: Path, trained: list[int]) -> None:
    train_head(cache, tmp_path / "run", **SWEEP)
    more = {**SWEEP, "hidden": [0, 8, 16], "seed": [0, 1, 2]}
    report = train_head(cache, tmp_path / "run", **more, resume=True)
    assert trained == [8, 18 - 8] and (report.kept, report.heads) == (8, 18)
    train_head(cache, tmp_path / "whole", **more)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert train_head(cache, tmp_path / "run", **SWEEP, resume=True).kept == 8, "fewer heads, too"


def test_a_column_is_added(cache: Path, tmp_path: Path, trained: list[int]) -> None:
    train_head(cache, tmp_path / "run", **SWEEP)
    report = train_head(cache, tmp_path / "run", **SWEEP, label=["tone", "label"], resume=True)
    assert trained == [8, 8] and report.kept == 8
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["label", "run.json", "tone"]
    assert train_head(cache, tmp_path / "run", **SWEEP, label="tone", resume=True).kept == 8
    assert load_run(tmp_path / "run").info["label"] == "tone" and not (tmp_path / "run" / "tone").exists()


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 4}, {"batch_size": 16}, {"early_stop": 1}, {"standardize": False}, {"pooling": "mean"},
        {"val": 0.2}, {"group": "film"}, {"label": "tone"}, {"engine": "torch"}, {"folds": 2},
        {"class_weight": "balanced"}, {"lr": 3e-3}, {"schedule": "cosine"}, {"recipe": "article"},
    ],
    ids=str,
)  # fmt: skip
def test_other_heads_are_never_taken_for_these(cache: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    few = {**SWEEP, "hidden": 0, "lr": 1e-3, "seed": 0}
    train_head(cache, tmp_path / "run", **few)
    said: list[str] = []
    assert train_head(cache, tmp_path / "run", **{**few, **other}, resume=True, tell=said.append).kept == 0
    assert said == ["--resume: nothing of this sweep is there yet, so every head is trained"]


def test_what_makes_no_difference_keeps_them(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", **SWEEP)
    copy = shutil.copy(cache, tmp_path / "copy.h5")
    assert train_head(copy, tmp_path / "run", **SWEEP, threads=1, compute="float32", resume=True).kept == 8


def test_without_resume_it_starts_anew_and_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[int]
) -> None:
    interrupt(monkeypatch, 0)
    with pytest.raises(InterruptedTraining):
        train_head(cache, tmp_path / "run", **SWEEP)
    said: list[str] = []
    interrupt(monkeypatch, *range(1, 8))
    with pytest.raises(InterruptedTraining, match="1 of 8"):
        train_head(cache, tmp_path / "run", **SWEEP, tell=said.append)
    assert trained == [8, 8] and "--resume continues with them" in said[-1]
    assert train_head(cache, tmp_path / "run", **SWEEP, resume=True).kept == 8, "but nothing was lost"


def test_diverged_heads_are_kept_too(cache: Path, tmp_path: Path) -> None:
    sweep = {**SWEEP, "lr": [1e30, 1e-3]}
    report = train_head(cache, tmp_path / "run", **sweep)
    again = train_head(cache, tmp_path / "run", **sweep, resume=True)
    assert again.kept == 8 and [row["status"] for row in again.leaderboard] == ["ok"] * 4 + ["diverged"] * 4
    assert again.leaderboard == report.leaderboard


# ---- the file ----


def make_head(seed: int = 0, hidden: int = 3) -> TrainedHead:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (hidden, 4), "b1": (hidden,), "w2": (2, hidden), "b2": (2,)} if hidden else {"w2": (2, 4), "b2": 2}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    history = {"val_loss": [0.5, float("nan")], "train_loss": [1 / 3, 0.1]}
    return TrainedHead(HeadSpec(hidden=hidden, seed=seed), weights, None, 1, 2, "ok", 0.5, history=history)


def test_heads_are_read_as_they_were(tmp_path: Path) -> None:
    heads = {"a": make_head(), "b": make_head(1, hidden=0)}
    save_unfinished(tmp_path / "new folder" / "run", heads)
    found = find_heads(tmp_path / "new folder" / "run", ["a", "b", "c"])
    assert set(found.heads) == {"a", "b"} and not found.notes
    for key, head in heads.items():
        other = found.heads[key]
        assert other.spec == head.spec and (other.best_epoch, other.val_loss, other.status) == (1, 0.5, "ok")
        assert all(other.weights[name].tobytes() == head.weights[name].tobytes() for name in head.weights)
        assert np.array_equal(other.history["val_loss"], head.history["val_loss"], equal_nan=True)
        assert other.history["train_loss"] == head.history["train_loss"]


def test_a_damaged_head_is_left_out(tmp_path: Path) -> None:
    path = save_unfinished(tmp_path / "run", {"a": make_head(0), "b": make_head(1)})
    raw = path.read_bytes()
    flipped = make_head(1).weights["w1"].tobytes()
    assert raw.count(flipped) == 1
    path.write_bytes(raw.replace(flipped, flipped[:-1] + bytes([flipped[-1] ^ 1])))
    assert set(find_heads(tmp_path / "run", ["a", "b"]).heads) == {"a"}


@pytest.mark.parametrize("content", [b"", b"nonsense" * 9, None], ids=["empty", "nonsense", "cut"])
def test_a_damaged_file_is_said_and_replaced(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = save_unfinished(tmp_path / "run", {"a": make_head()})
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    said: list[str] = []
    interrupt(monkeypatch, 0)
    with pytest.raises(InterruptedTraining, match="7 of 8"):
        train_head(cache, tmp_path / "run", **SWEEP, resume=True, tell=said.append)
    assert ".run.unfinished.safetensors is damaged" in said[0] and "\n" not in said[0]
    assert train_head(cache, tmp_path / "run", **SWEEP, resume=True).kept == 7


def test_a_damaged_run_is_said_and_trained_again(cache: Path, tmp_path: Path) -> None:
    whole: HeadReport = train_head(cache, tmp_path / "run", **SWEEP)
    raw = (tmp_path / "run" / "heads.safetensors").read_bytes()
    (tmp_path / "run" / "heads.safetensors").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    said: list[str] = []
    again = train_head(cache, tmp_path / "run", **SWEEP, resume=True, tell=said.append)
    assert "heads.safetensors is damaged" in said[0] and again.kept == 0 and again.leaderboard == whole.leaderboard


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    old = save_unfinished(tmp_path / "run", {"a": make_head()}).read_bytes()
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(EmbedcacheError, match=r"No space left.*lost"):
        save_unfinished(tmp_path / "run", {"b": make_head(1)})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [old]
