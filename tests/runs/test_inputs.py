"""Poolings and layers as axes of a sweep, alone and side by side."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.cache.side_by_side import vectors_of
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.job import train_head
from tests.conftest import make_cache
from tests.runs.caches import labelled

OPTIONS: dict[str, Any] = {"hidden": [0, 8], "lr": 1e-2, "epochs": 4, "threads": 1}
POOLINGS = ["cls", "mean", "cls+mean", "max"]


def halves() -> tuple[list[str], dict[str, np.ndarray], list[str | None]]:
    """Each pooling has half of what tells the label, and a width of its own; max has nothing of it."""
    texts, _, labels = labelled()
    rng = np.random.default_rng(3)
    told = np.array([1.0 if label == "positive" else -1.0 for label in labels])
    cls, mean = (rng.normal(size=(len(texts), width)) for width in (6, 9))
    cls[:200, 0] += 3 * told[:200]
    mean[200:, 0] += 3 * told[200:]
    vectors = {"cls": cls, "mean": mean, "max": rng.normal(size=(len(texts), 4))}
    return texts, {name: one.astype(np.float16) for name, one in vectors.items()}, labels


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts, vectors, labels = halves()
    return make_cache(tmp_path_factory.mktemp("inputs") / "c.h5", texts, vectors, {"label": labels, "again": labels})


@pytest.fixture(scope="module")
def wide(cache: Path) -> Path:
    train_head(cache, cache.parent / "wide", label="label", pooling=POOLINGS, **OPTIONS)
    return cache.parent / "wide"


def same(one: TrainedHead, other: TrainedHead) -> bool:
    return one.weights.keys() == other.weights.keys() and all(
        np.array_equal(array, other.weights[name]) for name, array in one.weights.items()
    )


@pytest.mark.parametrize("number", range(len(POOLINGS)))
def test_a_head_of_the_wide_sweep_is_the_same_alone(cache: Path, wide: Path, tmp_path: Path, number: int) -> None:
    train_head(cache, tmp_path / "alone", label="label", pooling=POOLINGS[number], **OPTIONS)
    every, alone = load_heads(wide), load_heads(tmp_path / "alone")
    assert len(every) == 8 and len(alone) == 2
    for i, head in enumerate(alone.values()):
        twin = every[f"head-{i * len(POOLINGS) + number:03d}"]
        assert same(head, twin) and head.spec == twin.spec
        np.testing.assert_equal(head.history, twin.history)
        assert (head.reads, twin.reads) == (None, POOLINGS[number])


def test_the_validation_rows_choose_what_is_read(cache: Path, wide: Path) -> None:
    run = load_run(wide)
    assert (run.info["pooling"], run.info["layer"], run.info["dim"]) == ("cls+mean", -1, 15)
    assert run.info["inputs"] == {"cls": 6, "mean": 9, "cls+mean": 15, "max": 4}
    with (wide / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["pooling"] == "cls+mean" and {row["pooling"] for row in rows} == set(POOLINGS)
    losses = {row["pooling"]: float(row["val_loss"]) for row in reversed(rows)}  # the best of each
    assert losses["cls+mean"] < min(losses["cls"], losses["mean"]) < losses["max"]
    with open_cache(cache) as opened:  # the scores are those of the saved head on what it reads
        x, y = np.asarray(vectors_of(opened, "cls+mean", -1)), np.asarray(opened.labels("label").codes)
    import pyarrow.parquet as pq

    test = np.array(pq.read_table(wide / "predictions.parquet")["side"].to_pylist()) == "test"
    assert run.info["best"]["test_accuracy"] == pytest.approx((run.best.logits(x).argmax(1) == y)[test].mean())
    assert {row["name"] for row in rows[:5]} <= set(run.info["heads"])


def test_side_by_side_is_a_cache_of_such_vectors(cache: Path, wide: Path, tmp_path: Path) -> None:
    texts, vectors, labels = halves()
    joined = np.hstack([vectors["cls"], vectors["mean"]])
    other = make_cache(tmp_path / "joined.h5", texts, {"cls": joined}, {"label": labels})
    train_head(other, tmp_path / "run", **OPTIONS)
    for i, head in enumerate(load_heads(tmp_path / "run").values()):
        assert same(head, load_heads(wide)[f"head-{i * len(POOLINGS) + 2:03d}"])


def test_folds_and_resume(cache: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "label": "label", "folds": 3}
    train_head(cache, tmp_path / "run", pooling="cls", **options)
    report = train_head(cache, tmp_path / "run", pooling="cls,cls+mean", resume=True, **options)
    assert report.kept == 6 and report.heads == 4 and report.pooling == "cls+mean"
    assert {name.split("/")[1] for name in load_heads(tmp_path / "run")} == {"fold-0", "fold-1", "fold-2"}
    assert load_run(tmp_path / "run").best.dim == 15


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "cls,mean", "label": "label,again"}, "columns that share a run read the same vectors"),
        ({"pooling": "cls,cls"}, "name cls vectors of layer -1 twice"),
        ({"pooling": "cls+"}, r"--pooling cls\+: name poolings"),
        ({"pooling": "cls+last"}, "has no last vectors, only cls, max, mean"),
        ({"layer": "-1,-2"}, r"has no cls \(layer -2\) vectors"),
        ({"layer": "one"}, "--layers one: give whole numbers"),
    ],
)
def test_what_cannot_be_read_is_refused(cache: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(EmbedcacheError, match=said):
        train_head(cache, tmp_path / "run", **{"label": "label", **OPTIONS, **options})
    assert not (tmp_path / "run").exists()


def test_int8_vectors_do_not_stand_side_by_side(tmp_path: Path) -> None:
    from embedcache.common.int8_rows import Int8Rows, to_int8

    texts, vectors, labels = halves()
    stored = {name: Int8Rows(*to_int8(vectors[name])) for name in ("cls", "mean")}
    made = make_cache(tmp_path / "c.h5", texts, stored, {"label": labels})
    train_head(made, tmp_path / "run", pooling="cls,mean", **OPTIONS)
    with pytest.raises(EmbedcacheError, match="stores its vectors as int8, which cannot stand side by side"):
        train_head(made, tmp_path / "run", pooling="cls+mean", **OPTIONS)


@pytest.mark.parametrize(("pooling", "told"), [(None, 1), ("cls", 0)])
def test_what_is_stored_and_not_read_is_told_once(cache: Path, tmp_path: Path, pooling: str | None, told: int) -> None:
    lines: list[str] = []
    train_head(cache, tmp_path / "run", label="label,again", pooling=pooling, tell=lines.append, **OPTIONS)
    said = "heads read cls vectors; stored, too: max, mean; --pooling cls,max,mean lets the validation rows choose"
    assert lines.count(said) == told
