"""The parts of the audit against plain references: neighbours, votes, the pool's weights, duplicates, outliers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from embedcache.audit.duplicates import duplicate_groups
from embedcache.audit.experts import Heads, NeighbourVotes, Words
from embedcache.audit.judge import Mixture
from embedcache.audit.neighbours import Nearest, nearest_rows, unit_vectors
from embedcache.audit.outliers import far_out, outlier_scores
from embedcache.audit.sides import column_sides
from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex
from embedcache.runs.data import load_data
from embedcache.runs.split import make_folds
from tests.audit.rows import make_rows
from tests.conftest import make_cache


class Says:
    """An expert with a fixed opinion."""

    def __init__(self, name: str, z: np.ndarray) -> None:
        self.name, self._said = name, np.log(softmax(z, axis=1)).astype(np.float32)

    def log_proba(self, rows: np.ndarray) -> np.ndarray:
        return self._said[rows]


def test_nearest_rows_are_those_of_scikit_learn() -> None:
    x = make_rows(300)[1]
    found = nearest_rows(SearchIndex.from_vectors(x), x, np.arange(300), np.ones(300, bool), 7)
    distances, rows = NearestNeighbors(n_neighbors=8, metric="cosine").fit(x).kneighbors(x)
    np.testing.assert_allclose(found.scores, 1 - distances[:, 1:], atol=1e-5)
    assert (found.rows == rows[:, 1:]).mean() > 0.99


def test_copies_and_hidden_rows_are_no_neighbours() -> None:
    x = make_rows(60)[1]
    x[50:] = x[0]
    first = np.arange(60)
    first[50:] = 0
    among = np.ones(60, bool)
    among[5] = False
    found = nearest_rows(SearchIndex.from_vectors(x), x, first, among, 100)
    assert found.rows.max() < 50 and not (found.rows == 5).any()
    assert (found.rows[5] == -1).all()
    assert not (found.rows[:50] == np.arange(50)[:, None]).any() and (found.rows[50:] == found.rows[0]).all()
    assert ((found.rows[0] >= 0).sum(), found.rows.shape) == (48, (60, 100))


def test_usable_vectors() -> None:
    x = np.ones((5, 3), np.float16)
    x[1], x[2, 0], x[3, 1] = 0, np.nan, np.inf
    assert unit_vectors(x).tolist() == [True, False, False, False, True]


def test_votes_leave_out_the_own_unit_and_rows_without_a_label() -> None:
    nearest = Nearest(np.array([[1, 2, 3, -1]], np.int32), np.ones((1, 4), np.float32))
    y = np.array([0, 1, 1, -1])
    expert = NeighbourVotes(nearest, y, 2, np.array([0, 0, 7, 9]))
    assert expert.votes(np.array([0])).tolist() == [[0, 1]]
    np.testing.assert_allclose(np.exp(expert.log_proba(np.array([0]))).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("expert", ["heads", "words"])
def test_an_expert_has_not_seen_the_row(tmp_path: Path, expert: str) -> None:
    """What is said of the rows of a fold is the same whatever labels they have."""
    texts, x, labels = make_rows(80)
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels})
    with open_cache(path) as cache:
        data = load_data(cache, None, None, -1, None)
        sides = make_folds(data.y, cache.hashes, folds=4)
        said = []
        for turn in (0, 1):
            y = data.y.copy()
            y[sides[0].val] = (y[sides[0].val] + turn) % 2
            data.y = y
            one = Heads(data, {0: sides}) if expert == "heads" else Words(cache.texts, y, sides)
            said.append(one.log_proba(sides[0].val))
    np.testing.assert_array_equal(said[0], said[1])


def test_the_pools_weights_are_the_likeliest() -> None:
    """Two classes: logistic regression on the experts' log-odds finds the same."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    zs = [np.stack([np.zeros(4000), (2 * y - 1) * s + 2 * rng.standard_normal(4000)], 1) for s in (0.5, 1.5)]
    mixture = Mixture([Says("a", zs[0]), Says("b", zs[1])], y, np.arange(4000), 2)
    odds = np.stack([z[:, 1] for z in zs], 1)
    plain = LogisticRegression(C=1e9, tol=1e-8).fit(odds, y)
    np.testing.assert_allclose(list(mixture.weights.values()), plain.coef_[0], atol=2e-3)
    np.testing.assert_allclose(mixture.proba(np.arange(4000))[0], plain.predict_proba(odds), atol=2e-3)


def test_a_useless_expert_gets_no_weight() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    good, noise = np.eye(3)[y] * 2 + rng.standard_normal((3000, 3)), -np.eye(3)[y] + rng.standard_normal((3000, 3))
    weights = Mixture([Says("good", good), Says("noise", noise)], y, np.arange(3000), 3).weights
    assert weights["noise"] == 0 and weights["good"] > 0.5


def test_duplicate_groups(tmp_path: Path) -> None:
    texts = [
        "a truly wonderful film, from its first scene to the last",
        "a truly wonderful film, from its first scene to the last",
        "A truly WONDERFUL film -- from its first scene, to the last!",
        "a truly wonderful film from its very first scene to the last",
        "an entirely different sentence about the weather",
        "something else altogether, with a kindred vector",
        "映画は素晴らしかった。また見たい。",
        "映画は素晴らしかった、また見たい!",
    ]
    x = np.eye(8, 8)
    x[1], x[2], x[3], x[5] = x[0], x[0], x[0] + 0.1 * x[3], x[4] + 0.01 * x[5]
    first = np.array([0, 0, 2, 3, 4, 5, 6, 7])
    nearest = nearest_rows(SearchIndex.from_vectors(x), x, first, np.ones(8, bool), 4)
    labels, sides = np.array([0, 0, 0, 1, 0, 0, 1, -1]), np.array([0, 0, 0, 0, 0, 0, 0, 1])
    found = duplicate_groups(texts, first, np.ones(8, bool), nearest, 0.9, labels, sides)
    assert [group.rows for group in found] == [(6, 7), (0, 1, 2, 3)]
    one, two = found
    assert (one.kind, one.similarity, one.conflict, one.across) == ("same words", 1, False, True)
    assert (two.kind, two.conflict, two.across) == ("near", True, False)
    assert two.similarity == pytest.approx(1 / np.sqrt(1.01), abs=1e-4)
    exact = duplicate_groups(texts, first, np.arange(8) < 2, nearest, 2.0, labels)
    assert [(group.rows, group.kind) for group in exact] == [((0, 1), "exact")]


def test_outliers() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((300, 8)) * 0.1 + np.eye(8)[0], -np.eye(8)[:3]])
    nearest = nearest_rows(SearchIndex.from_vectors(x), x, np.arange(303), np.ones(303, bool), 10)
    scores = outlier_scores(nearest)
    np.testing.assert_allclose(scores, (1 - nearest.scores).mean(axis=1), rtol=1e-5)
    assert set(np.flatnonzero(scores > far_out(scores))) >= {300, 301, 302}
    assert (scores > far_out(scores)).sum() < 30
    lonely = Nearest(np.full((2, 3), -1, np.int32), np.full((2, 3), -1, np.float32))
    assert np.isnan(outlier_scores(lonely)).all() and far_out(outlier_scores(lonely)) == np.inf


def test_sides_of_a_column(tmp_path: Path) -> None:
    texts, x, labels = make_rows(40)
    parts = ["train" if i % 2 else " test " if i else "" for i in range(40)]
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels}, columns={"part": parts, "text id": texts})
    with open_cache(path) as cache:
        sides = column_sides(cache, "part")
        assert [sides.name(row) for row in (0, 1, 2)] == [None, "train", "test"]
        assert sorted(column_sides(cache, "label").names) == ["bad", "good"]
        with pytest.raises(EmbedcacheError, match="40 different values"):
            column_sides(cache, "text id")
        with pytest.raises(EmbedcacheError, match="no such column; it has label, part, text id"):
            column_sides(cache, "nothing")
