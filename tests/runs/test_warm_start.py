"""train-head --from: heads that start from the best ones of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.job import train_head
from embedcache.runs.warm_start import EarlierRun
from tests.conftest import make_cache
from tests.runs.caches import labelled

STILL = 1e-12  # a learning rate by which nothing moves
OPTIONS: dict[str, Any] = {"lr": 1e-2, "epochs": 6, "threads": 1}


def grown_cache(path: Path, n: int, third: bool = False) -> Path:
    """The first n of 400 rows; third: those from 300 on are of one more class, which the third column of x tells."""
    texts, x, labels = labelled()
    values = x[:, 0].astype(np.float64)
    tags = [[tag for tag, there in (("good", v > values.mean()), ("odd", third and i % 3 == 0)) if there]
            for i, v in enumerate(values)]  # fmt: skip
    if third:
        labels = ["so-so" if i >= 300 else label for i, label in enumerate(labels)]
        x[300:, 2] += np.float16(4 * x[:, 2].std())
    columns = {"label": labels[:n], "tags": tags[:n]}
    return make_cache(
        path, texts[:n], {"cls": x[:n], "mean": -x[:n]}, columns, columns={"number": [f"{v}" for v in values[:n]]}
    )


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches old and new, and runs of the old one: probe, hidden, and both of labels, lists and numbers."""
    folder = tmp_path_factory.mktemp("warm")
    old = grown_cache(folder / "old.h5", 300)
    grown_cache(folder / "new.h5", 400, third=True)
    for hidden in (0, 16):
        train_head(old, folder / f"run-{hidden}", label=["label", "tags"], hidden=hidden, val=0.2, **OPTIONS)
    train_head(old, folder / "numbers", label="number", task="regression", hidden=16, val=0.2, **OPTIONS)
    return folder


@pytest.mark.parametrize("name", ["run-0", "run-16", "numbers"])
def test_without_new_rows_the_loss_starts_where_it_was(caches: Path, tmp_path: Path, name: str) -> None:
    task = {"task": "regression"} if name == "numbers" else {}
    still = {**OPTIONS, "lr": STILL, "epochs": 1, "val": 0.2}
    report = train_head(caches / "old.h5", tmp_path / "run", from_run=caches / name, **task, **still)
    before = load_run(caches / name)
    assert report.columns.keys() == before.columns.keys()
    for label, column in report.columns.items():
        assert column.best["val_loss"] == pytest.approx(before.columns[label].info["best"]["val_loss"], rel=1e-4)
        assert column.split["rule"] == "run"
        assert any(note.startswith(f"--from {caches / name}: the heads of {label!r} start from its head-000, epoch")
                   for note in column.notes)  # fmt: skip
    heads = {one.best.spec.hidden for one in load_run(tmp_path / "run").columns.values()}
    assert heads == {before.best.spec.hidden}
    for label, one in load_run(tmp_path / "run").columns.items():
        for key, weights in before.columns[label].best.weights.items():
            np.testing.assert_allclose(one.best.weights[key], weights, rtol=2e-3, atol=2e-4 * np.abs(weights).max())


@pytest.mark.parametrize("hidden", [0, 16])
def test_new_rows_and_a_new_class(caches: Path, tmp_path: Path, hidden: int) -> None:
    """The outputs of old classes are those of the run; a head goes on from there, better than a new one at first."""
    start = {"from_run": caches / f"run-{hidden}", "label": "label", "val": 0.2}
    still = train_head(caches / "new.h5", tmp_path / "still", **start, **{**OPTIONS, "lr": STILL, "epochs": 1})
    note = next(note for note in still.notes if note.startswith("--from"))
    assert note.endswith(", 2 of 3 classes; new, and begun as usual: so-so")
    run, before = load_run(tmp_path / "still"), load_run(caches / f"run-{hidden}").columns["label"]
    assert run.classes == ["negative", "positive", "so-so"]
    x = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32) * 5
    np.testing.assert_allclose(run.best.logits(x)[:, :2], before.best.logits(x), rtol=1e-3, atol=1e-2)

    warm = train_head(caches / "new.h5", tmp_path / "warm", **start, **OPTIONS)
    cold = train_head(caches / "new.h5", tmp_path / "cold", hidden=hidden, label="label", val=0.2,
                      same_split=caches / f"run-{hidden}", **OPTIONS)  # fmt: skip
    first = [load_heads(report.run)["head-000"].history["train_loss"][0] for report in (warm, cold)]
    assert first[0] < first[1]
    assert warm.best["test_accuracy"] > 0.8 and warm.split["train"] == cold.split["train"]


def test_lists_of_labels_keep_theirs_by_name(caches: Path, tmp_path: Path) -> None:
    still = {**OPTIONS, "lr": STILL, "epochs": 1, "val": 0.2}
    train_head(caches / "new.h5", tmp_path / "run", from_run=caches / "run-16", label="tags", **still)
    run, before = load_run(tmp_path / "run"), load_run(caches / "run-16").columns["tags"]
    assert (run.classes, before.classes) == (["good", "odd"], ["good"])
    x = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32) * 5
    np.testing.assert_allclose(run.best.logits(x)[:, :1], before.best.logits(x), rtol=1e-3, atol=1e-2)


def test_resume_knows_heads_by_their_start(caches: Path, tmp_path: Path) -> None:
    start = {"from_run": caches / "run-16", "label": "label", "seed": [0, 1], **OPTIONS}
    train_head(caches / "new.h5", tmp_path / "run", **start)
    assert train_head(caches / "new.h5", tmp_path / "run", resume=True, **start).kept == 2
    cold = {**start, "from_run": None, "same_split": caches / "run-16", "hidden": 16}
    assert train_head(caches / "new.h5", tmp_path / "run", resume=True, **cold).kept == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden": [0, 16]}, "its best head has 16 hidden units: leave --hidden out"),
        ({"pooling": "mean"}, "its best head reads cls vectors of layer -1: leave --pooling and --layers out"),
        ({"label": "stars"}, "no label column 'stars' in it; it has label, tags"),
        ({"split": 7}, "of the .* rows that validate here trained or chose its heads"),
        ({"folds": 3}, "of the .* rows that validate here trained or chose its heads"),
        ({"task": "regression", "label": "number"}, "no label column 'number' in it"),
    ],
)
def test_what_does_not_fit_is_refused(caches: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(EmbedcacheError, match=said):
        train_head(caches / "new.h5", tmp_path / "run", from_run=caches / "run-16", **OPTIONS, **options)
    assert not (tmp_path / "run").exists()


def test_runs_that_are_none_to_start_from(caches: Path, tmp_path: Path) -> None:
    texts, x, labels = labelled()
    other = make_cache(
        tmp_path / "other.h5", texts, {"cls": x}, {"label": labels}, encoder={"identity": {"max_length": 17}}
    )
    with pytest.raises(EmbedcacheError, match="its heads read vectors of another encoder or other settings"):
        train_head(other, tmp_path / "run", from_run=caches / "run-16", label="label", **OPTIONS)
    with pytest.raises(EmbedcacheError):
        train_head(caches / "new.h5", tmp_path / "run", from_run=tmp_path, **OPTIONS)


def test_best_heads_of_several_shapes(caches: Path) -> None:
    earlier = EarlierRun.load(caches / "run-16")
    with pytest.raises(
        EmbedcacheError, match=r"its best heads differ in name \(label label, tags tags\): name one --label"
    ):
        earlier.only(["label", "tags"], "name", lambda one: one.info["label"])
