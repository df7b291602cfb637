"""train-head --weight: what a column of weights changes, and what it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.job import train_head
from tests.conftest import make_cache
from tests.runs.caches import labelled

SETTINGS = {"hidden": [0, 8], "lr": 1e-2, "epochs": 3, "threads": 1}


def weighed_cache(path: Path, weights: list[str]) -> Path:
    texts, x, labels = labelled(len(weights))
    numbers = [str(i % 7 + 0.5 * (label == "positive")) for i, label in enumerate(labels)]
    columns = {"trust": weights, "one": ["1"] * len(weights), "number": numbers}
    return make_cache(path, texts, {"cls": x}, {"label": labels}, columns=columns)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    return weighed_cache(tmp_path_factory.mktemp("weights") / "c.h5", [f"{w:g}" for w in rng.choice([0, 0.5, 3], 400)])


def test_the_loss_is_weighed_and_the_other_scores_are_not(cache: Path, tmp_path: Path) -> None:
    from scipy.special import softmax
    from sklearn.metrics import accuracy_score, log_loss

    report = train_head(cache, tmp_path / "run", weight="trust", **SETTINGS)
    run = load_run(tmp_path / "run")
    assert run.info["options"]["weight"] == "trust"
    left_out = [note for note in report.notes if note.startswith("--weight trust: rows are weighed in training")]
    with open_cache(cache) as opened:
        x, y = opened.embeddings("cls").astype(np.float64), np.asarray(opened.labels("label").codes)
        trust = np.array([float(cell) for cell in opened.column("trust")])
    import pyarrow.parquet as pq

    sides = np.array(pq.read_table(tmp_path / "run" / "predictions.parquet")["side"].to_pylist())
    val = sides == "val"
    p = softmax(run.best.logits(x[val], np.float64), axis=1)
    assert report.best["val_loss"] == pytest.approx(log_loss(y[val], p, sample_weight=trust[val]), rel=1e-3)
    assert report.best["val_loss"] != pytest.approx(log_loss(y[val], p), rel=1e-2)
    assert report.best["val_accuracy"] == pytest.approx(accuracy_score(y[val], p.argmax(axis=1)))
    empty = int((trust[sides == "train"] == 0).sum())
    assert empty > 50 and left_out[0].endswith(f"left out by a weight of 0: {empty:,}")


def test_equal_weights_change_no_bit_and_others_do(cache: Path, tmp_path: Path) -> None:
    for name, weight in (("none", None), ("one", "one"), ("trust", "trust")):
        train_head(cache, tmp_path / name, weight=weight, **SETTINGS)
    none, one, trust = (load_heads(tmp_path / name) for name in ("none", "one", "trust"))
    for name, head in none.items():
        assert all(np.array_equal(head.weights[key], one[name].weights[key]) for key in head.weights)
        assert not any(np.array_equal(head.weights[key], trust[name].weights[key]) for key in ("w2", "b2"))


def test_resume_keeps_heads_of_the_same_weights_alone(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", weight="trust", **SETTINGS)
    assert train_head(cache, tmp_path / "run", weight="trust", resume=True, **SETTINGS).kept == 2
    assert train_head(cache, tmp_path / "run", weight="number", resume=True, **SETTINGS).kept == 0


@pytest.mark.parametrize("folds", [None, 3])
def test_numbers_and_folds(cache: Path, tmp_path: Path, folds: int | None) -> None:
    options = {"label": "number", "task": "regression", "weight": "trust", "folds": folds}
    report = train_head(cache, tmp_path / "run", **options, **SETTINGS)
    assert np.isfinite(report.best["val_loss"]) and report.kind == "regression"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", r"row 5 of .*, counted from 0, is blank there: give every labelled row a number from 0 up"),
        ("-1", "row 5 of .* has '-1' there"),
        ("much", "row 5 of .* has 'much' there"),
        ("inf", "row 5 of .* has 'inf' there"),
    ],
)
def test_a_cell_that_is_no_weight_is_named(tmp_path: Path, cell: str, said: str) -> None:
    weights = ["1"] * 60
    weights[5] = cell
    with pytest.raises(EmbedcacheError, match=f"--weight trust: {said}"):
        train_head(weighed_cache(tmp_path / "c.h5", weights), tmp_path / "run", weight="trust")
    assert not (tmp_path / "run").exists()


def test_columns_that_hold_no_weights(cache: Path, tmp_path: Path) -> None:
    for column, said in (
        ("label", "that is the label itself"),
        ("worth", "keeps no such column; it has number, one, trust"),
    ):
        with pytest.raises(EmbedcacheError, match=f"--weight {column}: .*{said}"):
            train_head(cache, tmp_path / "run", weight=column)
    nothing = weighed_cache(tmp_path / "c.h5", ["0"] * 60)
    with pytest.raises(EmbedcacheError, match=r"all .* training rows have a weight of 0"):
        train_head(nothing, tmp_path / "run", weight="trust")
