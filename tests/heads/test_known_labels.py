"""Rows without a label: what a cache says of them, and what is learnt of it."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score

import embedcache as ec
from embedcache.common.labels import Codes, Labels, LabelWarning
from embedcache.errors import EmbedcacheError
from embedcache.heads.search_cv import FusedHeadSearchCV
from embedcache.heads.sklearn import FusedHeadClassifier
from tests.conftest import make_cache

N = 200
KINDS = ["bad", "fine", "good"]
GRID = ec.head_grid(hidden=[0], lr=[1e-2])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    kinds = [None if i % 10 == 3 else KINDS[int(x[i, :3].argmax())] for i in range(N)]
    tags: list[Any] = [None if i % 20 == 5 else [k for k in range(3) if x[i, k] > 0] for i in range(N)]
    tags = [row if row is None else [KINDS[k] for k in row] for row in tags]
    labels = {"label": kinds, "tags": tags, "none": [None if i else "one" for i in range(N)]}
    return make_cache(tmp_path_factory.mktemp("known") / "c.h5", [f"text {i}" for i in range(N)], x, labels)


def open_labels(cache: Path, column: str = "label") -> tuple[np.ndarray, Labels]:
    with ec.open_cache(cache) as opened:
        return opened.embeddings(), opened.labels(column)


def test_the_snippet_of_the_readme(cache: Path) -> None:
    X, (y, classes) = open_labels(cache)
    with pytest.warns(LabelWarning, match=r"no label: 15 of 150 rows and 5 of 50 validation rows$"):
        result = ec.train_heads(X[50:], y[50:], GRID, epochs=20, validation=(X[:50], y[:50]))
    assert result.best.classes == [0, 1, 2] and classes == KINDS
    known = y[:50] >= 0
    assert type(known) is np.ndarray
    assert result.best.val_accuracy == pytest.approx((result.best.predict(X[:50]) == y[:50])[known].mean())


def test_the_same_heads_as_without_these_rows(cache: Path) -> None:
    X, labels = open_labels(cache)
    known = labels.known
    with pytest.warns(LabelWarning):
        one = ec.train_heads(X, labels.codes, GRID, standardize=True, class_weight="balanced")
    other = ec.train_heads(X[known], labels.codes[known], GRID, standardize=True, class_weight="balanced")
    for name, weight in one.best.weights.items():
        np.testing.assert_allclose(weight, other.best.weights[name], rtol=1e-5, atol=1e-7)


def test_labels_as_they_are_teach_names(cache: Path) -> None:
    X, labels = open_labels(cache)
    with pytest.warns(LabelWarning, match=r"20 of 200 rows and 20 of 200 validation rows"):
        result = ec.train_heads(X, labels, GRID, epochs=20, validation=(X, labels))
    assert result.best.classes == KINDS and set(result.best.predict(X)) <= set(KINDS)
    X, tags = open_labels(cache, "tags")
    with pytest.warns(LabelWarning, match="10 of 200 rows"):
        heads = [ec.train_heads(X, y, GRID, epochs=20, validation=(X, y)).best for y in (tags, tags.codes)]
    assert heads[0].classes == KINDS and heads[0].kind == heads[1].kind == "multilabel"
    assert heads[0].weights["w2"].tolist() == heads[1].weights["w2"].tolist()


def test_a_pair_of_codes_and_classes(cache: Path) -> None:
    _, labels = open_labels(cache)
    codes, classes = labels
    assert isinstance(labels, tuple) and (labels[0] is codes) and labels[1] == classes == KINDS
    assert repr(labels) == "Labels(200 rows, 20 without a label, classes 'bad', 'fine', 'good')"
    assert labels.names[:4] == [KINDS[int(code)] for code in codes[:3]] + [None]
    assert not codes.flags.writeable and codes.dtype == np.int32


def test_parts_and_copies_know_it_and_results_are_plain(cache: Path) -> None:
    codes = open_labels(cache)[1].codes
    for part in (codes[5:], codes[[1, 2, 3]], codes.copy(), codes.astype(np.int64), pickle.loads(pickle.dumps(codes))):
        assert type(part) is Codes
    for result in (codes == 1, codes + 1, np.where(codes > 0, codes, 0), codes.max(), codes[0], -codes):
        assert not isinstance(result, Codes)
    assert type(codes + 1) is type(codes == 1) is np.ndarray and isinstance(codes.max(), np.int32)


def test_minus_one_of_other_people(cache: Path) -> None:
    """-1 is a label like any other in arrays that are no cache's; it is said where it looks like a mistake."""
    X = np.asarray(open_labels(cache)[0])
    sign = np.where(X[:, 0] > 0, 1, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ec.train_heads(X, sign, GRID).best.classes == [-1, 1]
        assert set(FusedHeadClassifier(epochs=1).fit(X, sign - (X[:, 1] > 1)).classes_) == {-2, -1, 0, 1}
    plain = np.array(open_labels(cache)[1].codes)
    with pytest.warns(LabelWarning, match=r"-1 in 20 of 200 rows, .* a class beside 0 to 2; .*cache.labels\(COLUMN\)"):
        assert ec.train_heads(X, plain, GRID).best.classes == [-1, 0, 1, 2]


def test_nothing_is_labelled(cache: Path) -> None:
    X, labels = open_labels(cache, "none")
    with pytest.raises(EmbedcacheError, match="none of the 199 rows has a label"):
        ec.train_heads(X[1:], labels.codes[1:], GRID)
    with pytest.raises(EmbedcacheError, match="y holds one class only"):
        ec.train_heads(X, labels, GRID)


def test_scikit_learns_estimators_refuse(cache: Path) -> None:
    X, labels = open_labels(cache)
    message = r"20 of 200 rows have no label \(-1\): leave them out, .*fit\(X\[known\], y\[known\]\)"
    for y in (labels, labels.codes):
        with pytest.raises(ValueError, match=message):
            FusedHeadClassifier(epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=message):
        FusedHeadSearchCV(FusedHeadClassifier(epochs=1), {"lr": [1e-3]}, cv=2).fit(X, labels.codes)
    with pytest.raises(ValueError, match="have no label"):
        cross_val_score(FusedHeadClassifier(epochs=1), X, labels.codes, cv=2, error_score="raise")
    known = labels.known
    head = FusedHeadClassifier(epochs=2, hidden=0, random_state=0).fit(X[known], labels.codes[known])
    assert head.classes_.tolist() == [0, 1, 2]


def test_torch_reads_the_codes(cache: Path) -> None:
    import torch

    codes = open_labels(cache)[1].codes
    assert torch.tensor(codes.copy()).tolist() == codes.tolist()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (pd.Series(["a", "b", None, "a", pd.NA, "b"]), "2 of 6 are missing, the first at place 2: leave such rows out"),
        ([1, None, 2, 1, 2, 1], "1 of 6 are missing, the first at place 1"),
        (np.array([1, 0, np.nan, 1, 1, 1]), "1 of 6 are missing, the first at place 2"),
        ([1, 2, "a", 1, 2, 1], "all integers or all strings, but 'a' at place 2 is not what 1 is"),
        (np.array([1.5, 0, 1, 1, 1, 1]), r"not float64: y\.astype\(int\), or task='regression'"),
    ],
)
def test_gaps_in_labels_of_ones_own(y: Any, message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        ec.train_heads(np.eye(6, dtype=np.float32), y, GRID)
