"""train-head's job: from a cache to a run directory."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.runs.data import load_data
from embedcache.runs.folder import FILES, load_heads, load_run
from embedcache.runs.job import HeadReport, train_head
from embedcache.runs.metrics import evaluate
from embedcache.runs.split import make_split
from embedcache.runs.tables import read_leaderboard
from tests.conftest import make_cache
from tests.runs.caches import labelled, make_labelled_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("job") / "cache.h5")


@pytest.fixture(scope="module")
def sweep(cache: Path) -> HeadReport:
    """hidden 0 and 16, two rates, two seeds."""
    return train_head(cache, cache.parent / "run", hidden=[0, 16], lr=[1e-3, 1e-2], seed=[0, 1], epochs=4)


def test_report_has_the_pinned_fields(sweep: HeadReport) -> None:
    document = json.loads(json.dumps(sweep.to_dict(), allow_nan=False))
    assert {"run", "heads", "engine", "train_seconds", "head_rows_per_second", "split", "best", "baselines"} <= set(
        document
    )
    best = document["best"]
    assert {"name", "hyperparameters", "val_accuracy", "val_loss", "test_accuracy"} <= set(best)
    assert document["heads"] == 8 and document["engine"] and document["head_rows_per_second"] > 0
    assert {side: document["split"][side] for side in ("train", "val", "test")} == {"train": 316, "val": 36, "test": 41}
    assert document["split"]["unlabelled"] == 7
    low, high = best["test_accuracy_interval"]
    assert 0.8 < low < best["test_accuracy"] <= high
    assert best["test_accuracy"] > document["baselines"]["majority"]["test_accuracy"] + 0.2
    assert document["baselines"]["tfidf_logreg"]["test_accuracy"] > 0.5
    assert any("no label in 'label': 7" in note for note in sweep.notes)


def test_run_directory_holds_all_heads_ranked(cache: Path, sweep: HeadReport) -> None:
    run, heads = load_run(sweep.run), load_heads(sweep.run)
    assert sorted(path.name for path in Path(sweep.run).iterdir()) == sorted(FILES)
    with (run.path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 9)]
    assert {row["name"] for row in rows} == set(heads) == {f"head-{i:03d}" for i in range(8)}
    losses = [float(row["val_loss"]) for row in rows]
    assert losses == sorted(losses) and rows[0]["name"] == sweep.best["name"]
    assert {(row["hidden"], row["lr"], row["seed"]) for row in rows} == {
        (hidden, lr, seed) for hidden in ("0", "16") for lr in ("0.001", "0.01") for seed in "01"
    }
    best = heads[sweep.best["name"]]
    assert best.spec == run.best.spec and best.classes == run.classes == ["negative", "positive"]
    for name, weights in best.weights.items():
        assert np.array_equal(weights, run.best.weights[name])
    assert all(len(head.history["val_loss"]) == head.epochs_run == 4 for head in heads.values())


def test_the_reported_scores_are_those_of_the_saved_head(cache: Path, sweep: HeadReport) -> None:
    """On the raw vectors of the rows that run.json describes: the standardization is in the weights."""
    run = load_run(sweep.run)
    with open_cache(cache) as opened:
        x, (y, classes), hashes = opened.embeddings(), opened.labels("label"), opened.hashes
        split = make_split(y, hashes, seed=run.info["split"]["seed"])
        val, test = (evaluate(y[rows], run.best.logits(x[rows]), classes).scores for rows in (split.val, split.test))
    assert classes == run.classes
    for name in ("accuracy", "macro_f1"):
        assert val[name] == pytest.approx(sweep.best[f"val_{name}"])
    assert val["loss"] == pytest.approx(sweep.best["val_loss"], abs=2e-3)
    for name in ("accuracy", "macro_f1", "loss"):
        assert test[name] == pytest.approx(sweep.best[f"test_{name}"])


def test_run_json_repeats_the_run(cache: Path, sweep: HeadReport, tmp_path: Path) -> None:
    info = load_run(sweep.run).info
    settings, options = dict(info["settings"]), info["options"]
    assert settings.pop("eps") == [1e-8]
    again = train_head(info["cache"]["path"], tmp_path / "again", recipe=info["recipe"], **settings, **options)
    assert (tmp_path / "again" / "best.safetensors").read_bytes() == (Path(sweep.run) / "best.safetensors").read_bytes()
    other = load_run(again.run).info
    assert other["split"] == info["split"] and other["heads"] == info["heads"] and other["files"] == info["files"]
    with open_cache(cache) as opened:
        assert info["cache"]["fingerprint"] == opened.fingerprint and info["encoder"] == opened.encoder
    assert info["versions"]["numpy"] == np.__version__ and len(info["split"]["digests"]["train"]) == 32


def test_combinations_that_are_the_same_head_are_trained_once(cache: Path, tmp_path: Path) -> None:
    """A linear probe has no dropout: two probes (by their seeds) and six heads of eight units."""
    report = train_head(cache, tmp_path / "run", hidden=[0, 8], dropout=[0, 0.1, 0.3], seed=[0, 1], epochs=2)
    said = [note for note in report.notes if "combinations" in note]
    assert said == [
        "12 combinations are 8 different heads: linear probes (hidden 0) have no dropout, so those that differ in it "
        "alone are one"
    ]
    rows = read_leaderboard(load_run(report.run))
    assert report.heads == len(rows) == len(load_heads(report.run)) == 8
    assert sorted(row["dropout"] for row in rows if not row["hidden"]) == [0, 0]
    assert {row["dropout"] for row in rows if row["hidden"]} == {0, 0.1, 0.3}
    assert len({head.weights["w2"].tobytes() for head in load_heads(report.run).values()}) == 8
    drawn = train_head(cache, tmp_path / "drawn", hidden=[0, 8], dropout=[0, 0.1, 0.3], random=5, epochs=1)
    assert drawn.heads == 4 and "--random 5: there are only 4 combinations" in drawn.notes[0]
    assert drawn.notes[1].startswith("6 combinations are 4 different heads")
    assert not [note for note in train_head(cache, tmp_path / "one", hidden=0, epochs=1).notes if "combin" in note]
    gammas = train_head(cache, tmp_path / "gammas", hidden=0, loss=["nll", "focal"], focal_gamma=[1, 2], epochs=1)
    assert gammas.heads == 3 and gammas.notes[0] == (
        "4 combinations are 3 different heads: heads with another loss than focal have no focal-gamma, so those that "
        "differ in it alone are one"
    )


def test_a_focal_loss_is_swept_kept_and_shown(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", hidden=8, loss=["nll", "focal"], focal_gamma=[0.5], epochs=2)
    rows = {row["loss"]: row for row in read_leaderboard(load_run(report.run))}
    assert {name: row["focal_gamma"] for name, row in rows.items()} == {"nll": 2, "focal": 0.5}
    heads = {head.spec.loss: head for head in load_heads(report.run).values()}
    assert heads["focal"].spec.focal_gamma == 0.5 and rows["focal"]["val_loss"] == heads["focal"].val_loss
    alone = train_head(cache, tmp_path / "alone", hidden=8, loss="focal", focal_gamma=0.5, epochs=2)
    assert alone.best["hyperparameters"]["loss"] == "focal" and alone.best["val_loss"] == rows["focal"]["val_loss"]
    with pytest.raises(EmbedcacheError, match="--focal-gamma is for --loss focal: add that, or leave it out"):
        train_head(cache, tmp_path / "none", focal_gamma=1)


def test_settings_of_every_kind_are_heads(cache: Path, tmp_path: Path) -> None:
    lists = {"label_smoothing": [0, 0.1], "schedule": ["constant", "cosine"], "warmup": [0, 0.2]}
    lists |= {"class_weight": ["none", "balanced"]}
    report = train_head(cache, tmp_path / "run", hidden=8, epochs=3, lr=1e-2, **lists)
    assert report.heads == 16
    with (tmp_path / "run" / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("label_smoothing", "schedule", "warmup", "class_weight")
    assert len({tuple(row[name] for name in names) for row in rows}) == 16
    heads = load_heads(report.run)
    assert len({head.weights["w2"].tobytes() for head in heads.values()}) == 16, "every setting has its effect"
    assert {spec["schedule"] for spec in (about["spec"] for about in load_run(report.run).info["heads"].values())} == {
        "constant", "cosine"
    }  # fmt: skip


@pytest.mark.parametrize("weights", [("none",), ("balanced",), ("none", "balanced")], ids="+".join)
def test_one_validation_loss_for_all_heads(tmp_path: Path, weights: tuple[str, ...]) -> None:
    """Weighted where all heads are trained balanced; else plain, so that heads can be compared."""
    texts, x, labels = labelled()
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": [*labels[:200], *["positive"] * 200]})
    run = train_head(path, tmp_path / "run", hidden=0, lr=1e-2, epochs=2, class_weight=weights, val=0.3).run
    with open_cache(path) as opened:
        x, y = opened.embeddings(), opened.labels("label")[0]
        split = make_split(y, opened.hashes, val=0.3)
        share = np.bincount(y[split.train]) / len(split.train)
        row_weights = (1 / share)[y[split.val]] if weights == ("balanced",) else np.ones(len(split.val))
        for head in load_heads(run).values():
            assert head.spec.class_weight in weights
            nll = -head.predict_log_proba(x[split.val])[np.arange(len(split.val)), y[split.val]]
            assert head.val_loss == pytest.approx(np.average(nll, weights=row_weights), abs=2e-3)


def test_article_recipe(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", recipe="article")
    info = load_run(report.run).info
    spec, settings = report.best["hyperparameters"], info["settings"]
    assert (spec["hidden"], spec["lr"], spec["dropout"]) == (512, 1e-5, 0.1)
    assert (spec["weight_decay"], spec["eps"], spec["betas"]) == (0, 1e-6, [0.9, 0.999])
    assert (settings["batch_size"], settings["epochs"], settings["standardize"]) == (32, 5, False)
    with open_cache(cache) as opened:
        y = opened.labels("label")[0]
    rows = np.flatnonzero(y >= 0)
    train, val = train_test_split(rows, test_size=0.2, random_state=42, stratify=y[rows])
    assert (report.split["train"], report.split["val"], report.split["test"]) == (len(train), len(val), 0)
    assert report.best["test_accuracy"] is None and report.baselines["majority"]["test_accuracy"] is None
    assert any("no test rows" in note for note in report.notes)
    assert train_head(cache, tmp_path / "run", recipe="article", test=0.1, epochs=1).split["test"] == 41


def test_groups_and_folds(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", hidden=8, lr=[1e-3, 1e-2], epochs=3, group="film", folds=3)
    assert report.heads == 2 and report.split["group"] == "film" and report.split["val"] == 0
    assert sum(fold["val"] for fold in report.split["folds"]) == report.split["train"]
    heads = load_heads(report.run)
    assert list(heads) == [f"head-{i:03d}/fold-{k}" for i in range(2) for k in range(3)]
    losses = [[heads[f"head-{i:03d}/fold-{k}"].val_loss for k in range(3)] for i in range(2)]
    assert report.best["val_loss"] == pytest.approx(min(np.mean(losses, axis=1)))
    assert report.best["test_accuracy"] > 0.8
    assert not any((load_run(report.run).best.weights["w2"] == head.weights["w2"]).all() for head in heads.values())


def test_without_validation_the_last_epoch_is_kept(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", hidden=8, lr=[1e-2, 1e-3], epochs=2, val=0, test=0)
    assert report.split["train"] == 393 and report.best["val_loss"] is None and report.best["best_epoch"] == 2
    assert report.best["hyperparameters"]["lr"] == 1e-2
    assert any("no validation rows" in note for note in report.notes)
    assert not any("validation scores" in note for note in report.notes)  # there are none


def test_other_vectors_weights_and_labels(cache: Path, tmp_path: Path) -> None:
    report = train_head(
        cache, tmp_path / "run", label="stars", pooling="mean", class_weight="balanced", standardize=False, epochs=1
    )
    info = load_run(report.run).info
    assert (info["pooling"], info["label"], info["settings"]["class_weight"]) == ("mean", "stars", ["balanced"])
    assert report.classes == list("01234")


def test_a_diverged_head_is_marked_and_never_chosen(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", hidden=8, lr=[1e30, 1e-3], epochs=2)
    assert report.best["hyperparameters"]["lr"] == 1e-3
    assert [row["status"] for row in report.leaderboard] == ["ok", "diverged"]
    assert any("diverged, and are never chosen: 1 of 2" in note for note in report.notes)
    with pytest.raises(EmbedcacheError, match="every head of 'label' diverged"):
        train_head(cache, tmp_path / "other", hidden=8, lr=1e30, epochs=2)
    assert not (tmp_path / "other").exists()


def test_progress_reaches_the_end(cache: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    train_head(cache, tmp_path / "run", hidden=[0, 4], epochs=2, progress=lambda *at: seen.append(at))
    assert seen[-1] == (2 * 2, 2 * 2, 2 * 2 * 316)  # head-epochs, and rows


def test_a_class_with_one_row_is_named(tmp_path: Path) -> None:
    texts, x, labels = labelled(60)
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": ["mixed", *labels[1:]]})
    report = train_head(path, tmp_path / "run", epochs=1)
    assert report.classes == ["mixed", "negative", "positive"]
    assert any("one or two rows: mixed" in note for note in report.notes)


def test_numbers_that_are_learned_as_names_are_pointed_out(tmp_path: Path) -> None:
    texts, x, labels = labelled(90)
    amounts = [f"{i % 22},5" for i in range(90)]
    path = make_cache(
        tmp_path / "c.h5", texts, x, {"label": labels, "price": amounts, "stars": [f"{i % 5}" for i in range(90)]}
    )
    notes = {
        name: train_head(path, tmp_path / name, label=name, epochs=1).notes for name in ("label", "price", "stars")
    }
    said = {name: [note for note in of if "--task" in note] for name, of in notes.items()}
    assert said["price"] and "--task price=regression learns them" in said["price"][0]
    assert not said["label"] and not said["stars"], "a few numbers may well be names"


def test_a_class_without_rows_is_no_class() -> None:
    cache: Any = SimpleNamespace(
        label_names=["label"],
        column_names=[],
        holds_lists=lambda name: False,
        labels=lambda name: (np.array([2, 0, -1, 2], np.int32), ["bad", "gone", "good"]),
        preferred=lambda layer: "mean",
        embeddings=lambda pooling, layer: np.zeros((4, 2), np.float32),
    )
    data = load_data(cache, None, None, -1, None)
    assert (data.classes, data.y.tolist(), data.pooling) == (["bad", "good"], [1, 0, -1, 1], "mean")


def test_a_random_draw(cache: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lr": "1e-3:1e-1", "hidden": [0, 8], "seed": [0, 1], "epochs": 2}
    report = train_head(cache, tmp_path / "run", random=3, **settings)
    assert report.heads == 6 and not any("--random" in note for note in report.notes)
    info = load_run(report.run).info
    assert (info["settings"]["random"], info["settings"]["lr"]) == (3, "0.001:0.1")
    assert len({about["spec"]["lr"] for about in info["heads"].values()}) == 3
    report = train_head(cache, tmp_path / "run", random=9, hidden=[0, 8], seed=[0, 1], epochs=2)
    assert report.heads == 4
    assert any("--random 9: there are only 2 combinations" in note for note in report.notes)


# ---- several label columns ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "score", "task": "regression", "class_weight": "balanced"}, "--class-weight is for classes"),
        ({"label": "score", "task": "regression", "label_smoothing": [0, 0.1]}, "--label-smoothing is for classes"),
        ({"label": "score", "task": "regression", "loss": "focal"}, "--loss is for classes: leave it out"),
        ({"label": ["score", "tone"], "task": "regression"}, "'tone', which is not a finite number"),
        ({"label": "tags", "task": "classification"}, "holds lists"),
        ({"label": "stars", "task": "multilabel"}, "one label a row"),
        ({"task": "ranking"}, "ranking"),
        ({"schedule": "up"}, "schedule must be"),
        ({"warmup": 1}, "warmup"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"lr": "1e-4:1e-3"}, "draw from it with --random"),
        ({"device": "cuda:99", "engine": "native"}, "cuda|GPU"),
        ({"label": "labl"}, "no label column 'labl'; it has id, label, same, score, stars, tags, tone"),
        ({"label": "label,label"}, "named twice"),
        ({"label": "same"}, "one class, 'x'"),
        ({"label": "id"}, "400 different values in 400 rows: is it the label"),
        ({"pooling": "max"}, "max"),
        ({"layer": 3}, "3"),
        ({"group": "author"}, "--group author.* film"),
        ({"group": "label"}, "the label itself"),
        ({"group": "same"}, "1 different groups"),
        ({"val": 1.5}, "--val 1.5"),
        ({"val": 0.5, "test": 0.5}, "no rows to train on"),
        ({"folds": 1}, "--folds 1"),
        ({"hidden": -3}, "hidden"),
        ({"lr": 0}, "lr"),
        ({"epochs": 0}, "epochs"),
        ({"class_weight": "some"}, "class_weight"),
        ({"recipe": "cake"}, "cake"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_a_line_and_leaves_nothing(
    cache: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(EmbedcacheError, match=message) as caught:
        train_head(cache, tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_looked_at_first(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(EmbedcacheError, match="is not an embedcache run"):
        train_head(tmp_path / "no such cache.h5", tmp_path / "run")


@pytest.mark.parametrize(
    ("labels", "message"), [([None] * 2, "nothing to learn"), (["a", "b"], "2 labelled rows"), ([], "label column")]
)
def test_two_rows(tmp_path: Path, labels: list[str | None], message: str) -> None:
    path = make_cache(
        tmp_path / "c.h5", ["one", "two"], np.eye(2, dtype=np.float32), {"label": labels} if labels else {}
    )
    with pytest.raises(EmbedcacheError, match=message):
        train_head(path, tmp_path / "run")


def test_an_incomplete_cache(tmp_path: Path) -> None:
    texts, x, labels = labelled(60)
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels}, incomplete=True)
    with pytest.raises(EmbedcacheError, match="not complete"):
        train_head(path, tmp_path / "run")
