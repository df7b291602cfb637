"""What a column becomes: classes, lists, numbers; and one clear line for what cannot be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError, InputNote
from embedcache.runs.data import Data, load_data, make_task
from embedcache.runs.job import train_head
from embedcache.runs.split import Split
from tests.conftest import make_cache

N = 6
LABELS: dict[str, list[Any]] = {
    "label": ["b", "a", None, "b", "a", "a"],
    "topics": [["x", "z"], [], None, ["x"], ["z", "x"], ["y"]],
    "number": ["1", "2.5", None, "-1e3", "1", "7"],
    "none": [None] * N,
    "empty": [[]] * 5 + [None],
    "same list": [["x"], ["x"], None, ["x"], ["x"], ["x"]],
    "same": ["3", "3", "3", None, "3", "3"],
}
KEPT = {
    "price": [" 1.5 ", "", "nan", "2", "0.1", "-0"],
    "euro": ["", "1", "12 €", "x", "", ""],
    "huge": ["1", "1e300", "", "", "", ""],
    "endless": ["inf", "1", "", "", "", ""],
    "grouped": ["1", "1_000", "", "", "", ""],
    "blank": [""] * N,
    "equal": ["4", "4.0", "", "4", "", ""],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.arange(N * 2, dtype=np.float16).reshape(N, 2)
    return make_cache(tmp_path_factory.mktemp("data") / "c.h5", list("tuvwxy"), x, LABELS, columns=KEPT)


def load(path: Path, label: str | None, task: str = "auto", group: str | None = None) -> Data:
    with open_cache(path) as cache:
        return load_data(cache, label, None, -1, group, task)


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_classes(path: Path, task: str) -> None:
    data = load(path, "label", task)
    assert (data.kind, data.classes) == ("classification", ["a", "b"])
    assert data.y.tolist() == [1, 0, -1, 1, 0, 0] and data.y.dtype == np.int32 and data.codes is data.y
    assert data.labelled.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("task", ["auto", "multilabel"])
def test_lists(path: Path, task: str) -> None:
    data = load(path, "topics", task)
    assert (data.kind, data.classes, data.y.dtype) == ("multilabel", ["x", "y", "z"], np.float32)
    assert data.y.tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert data.labelled.tolist() == [True, True, False, True, True, True]
    assert data.codes[0] == data.codes[4] and data.codes[2] == -1 and len(set(data.codes.tolist())) == 5


@pytest.mark.parametrize(
    ("label", "values"), [("number", [1, 2.5, np.nan, -1000, 1, 7]), ("price", [1.5, np.nan, np.nan, 2, 0.1, 0])]
)
def test_numbers_of_label_and_kept_columns(path: Path, label: str, values: list[float]) -> None:
    data = load(path, label, "regression")
    assert (data.kind, data.classes, data.y.dtype, data.y.shape) == ("regression", [label], np.float32, (N, 1))
    np.testing.assert_array_equal(data.y[:, 0], np.array(values, np.float32))
    assert data.labelled.tolist() == (~np.isnan(values)).tolist()
    same = [[a == b for b in values] for a in values]
    for i in np.flatnonzero(data.labelled):
        assert (data.codes == data.codes[i]).tolist() == same[i]
    assert (data.codes[~data.labelled] == -1).all()


def test_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    X, texts = np.eye(4, dtype=np.float32), list("abcd")
    cells = {
        "price": ["3,5", " -1.234,25", "NA", "2"],
        "odd": ["1,234", "2", "", "9,000"],
        "both": ["3,5", "3.5", "1", ""],
    }
    path = make_cache(tmp_path / "commas.h5", texts, X, columns=cells)
    with pytest.warns(InputNote, match=r"column 'price' is read with decimal commas: 3,5 is 3\.5"):
        data = load(path, "price", "regression")
    np.testing.assert_array_equal(data.y[:, 0], np.array([3.5, -1234.25, np.nan, 2], np.float32))
    with pytest.raises(EmbedcacheError, match=r"'1,234', which may be 1\.234 or 1234"):
        load(path, "odd", "regression")
    with pytest.raises(EmbedcacheError, match=r"has '3,5' in column 'both', which is not a finite number"):
        load(path, "both", "regression")


def test_numbers_are_learnt_at_mean_0_and_spread_1_of_the_training_rows(path: Path) -> None:
    data = load(path, "number", "regression")
    side = Split(np.array([0, 1, 3]), np.array([4]), np.array([5]))
    task = make_task(data, side, False, "none")
    assert (task.kind, task.classes) == ("regression", 1) and task.val is not None
    assert task.target_mean is not None and task.target_std is not None
    values = np.array([1, 2.5, -1000.0])
    assert task.target_mean.tolist() == [values.mean()] and task.target_std.tolist() == [values.std()]
    np.testing.assert_allclose(task.train.y[side.train, 0], (values - values.mean()) / values.std(), rtol=1e-6)
    np.testing.assert_allclose(task.val.y[4, 0], (1 - values.mean()) / values.std(), rtol=1e-6)
    with pytest.raises(EmbedcacheError, match="all 2 training rows have the same 'number', 1"):
        make_task(data, Split(np.array([0, 4]), np.array([1]), np.array([3])), False, "none")


def test_balanced_weights_of_labels(path: Path) -> None:
    data = load(path, "topics")
    task = make_task(data, Split(np.array([0, 1, 3, 4, 5]), np.zeros(0, int), np.zeros(0, int)), True, "balanced")
    assert task.class_weight is not None and task.class_weight.tolist() == pytest.approx([2 / 3, 4, 3 / 2])
    assert task.kind == "multilabel" and task.val is None and task.target_mean is None


def test_groups(path: Path) -> None:
    assert load(path, "topics", group="label").groups.tolist() == [1, 0, -1, 1, 0, 0]  # type: ignore[union-attr]
    with pytest.raises(EmbedcacheError, match="--group topics: that column holds lists"):
        load(path, "label", group="topics")
    with pytest.raises(EmbedcacheError, match="the label itself"):
        load(path, "price", "regression", group="price")


@pytest.mark.parametrize(
    ("label", "task", "message"),
    [
        ("topics", "classification", "--task classification: column 'topics' holds lists"),
        ("topics", "regression", "--task regression: column 'topics' holds lists"),
        ("label", "multilabel", r"--task multilabel: column 'label' holds one label a row: .*\[\"a\", \"b\"\]"),
        ("label", "regression", r"row 0 of .*c\.h5, counted from 0, has 'b' in column 'label', .* not a finite number"),
        ("euro", "regression", r"row 2 of .* has '12 €' in column 'euro'"),
        ("huge", "regression", r"row 1 of .* has '1e300'"),
        ("endless", "regression", r"row 0 of .* has 'inf'"),
        ("grouped", "regression", r"row 1 of .* has '1_000'"),
        ("blank", "regression", "no row of .* has a label in column 'blank'"),
        ("equal", "regression", "'equal' of .* holds 4 in all 3 rows that have a value: there is nothing to predict"),
        ("same", "regression", "holds 3 in all 5 rows"),
        ("same", "auto", "one class, '3'"),
        ("none", "auto", "no row of .* has a label in column 'none'"),
        ("empty", "auto", "no row of .* has a label in column 'empty'"),
        ("same list", "auto", "the same list in all 5 labelled rows"),
        ("price", "auto", "'price' is a kept column of .* --task price=regression learns its numbers"),
        ("pric", "regression", "no column 'pric'; it has .*number.*price"),
        ("pric", "auto", r"no label column 'pric'; it has empty, label, none, number, same, same list, topics$"),
        ("label", "ranking", "--task ranking: use auto, classification, multilabel or regression"),
    ],
)
def test_what_cannot_be_learnt(path: Path, label: str, task: str, message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message) as caught:
        load(path, label, task)
    assert "\n" not in str(caught.value)


def test_which_column_is_meant(tmp_path: Path) -> None:
    x = np.zeros((4, 2), np.float32)
    numbers = {"a": ["1", "2", "3", "4"], "b": ["1", "2", "3", "5"]}
    kept = make_cache(tmp_path / "kept.h5", list("abcd"), x, columns=numbers)
    assert load(kept, "b", "regression").y.tolist() == [[1], [2], [3], [5]]
    for label, task, message in (
        (None, "regression", "has the kept columns a, b: choose one with --label"),
        (None, "auto", "no label column: run extract again with --label COLUMN"),
    ):
        with pytest.raises(EmbedcacheError, match=message):
            load(kept, label, task)
    with pytest.raises(EmbedcacheError, match="--keep COLUMN"):
        load(make_cache(tmp_path / "bare.h5", list("abcd"), x), None, "regression")
    labels = make_cache(tmp_path / "labels.h5", list("abcd"), x, {"a": numbers["a"], "label": numbers["b"]})
    assert load(labels, None, "regression").label == "label"


def test_more_than_five_thousand_labels(tmp_path: Path) -> None:
    topics = [[f"topic {i}", f"topic {i + 1}"] for i in range(5000)]
    path = make_cache(tmp_path / "c.h5", [""] * 5000, np.zeros((5000, 1), np.float16), {"topics": topics})
    with pytest.raises(EmbedcacheError, match="5,001 different labels, and a head learns 5,000 at most"):
        load(path, "topics")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named_on_whichever_side_it_is(tmp_path: Path, value: float) -> None:
    """A test row is in no task: nothing but this would look at it before the scores are NaN."""
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float16)
    X[list(range(0, 200, 3)), 1] = value
    labels = ["a", "b"] * 100
    labels = [None if i % 3 == 0 and i != 57 else label for i, label in enumerate(labels)]  # one of them is used
    path = make_cache(tmp_path / "c.h5", [f"t{i}" for i in range(200)], X, {"label": labels})
    for seed in range(6):
        with pytest.raises(EmbedcacheError, match=r"row 57 of .*c\.h5, counted from 0, has a vector \(cls\) with NaN"):
            train_head(path, tmp_path / "run", hidden=0, epochs=1, test=0.4, split=seed)
