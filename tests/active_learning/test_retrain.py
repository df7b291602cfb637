"""Heads trained again on a few labels: out of sample, on the same test rows, of every kind of task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedcache.active_learning import retrain as retraining
from embedcache.active_learning.retrain import retrain, why_not
from embedcache.active_learning.snapshot import Pool, Snapshot
from embedcache.errors import EmbedcacheError
from embedcache.runs.intervals import score_difference, score_interval


def test_a_few_labels_tell_the_classes_of_all_rows(blobs: Any) -> None:
    test = np.zeros(900, bool)
    test[600:] = True
    labelled = np.r_[0:60, 600:900]
    found = retrain(blobs.snapshot(labelled, test=test))
    assert found.learned.tolist() == list(range(60))
    assert (found.proba.argmax(axis=1) == blobs.truth).mean() > 0.8
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-5)
    # The scores are those of what is said of the rows.
    guess = found.outputs.argmax(axis=1)
    for score, rows in ((found.test, np.arange(600, 900)), (found.validation, np.arange(60))):
        assert score is not None
        assert score.rows == len(rows)
        assert score.value == np.mean(guess[rows] == blobs.truth[rows])
        assert score.interval == score_interval("accuracy", blobs.truth[rows], guess[rows])
    assert found.chance is None


def test_the_head_says_what_the_committee_says(blobs: Any) -> None:
    """Of rows that nobody learned from."""
    found = retrain(blobs.snapshot(np.arange(60)))
    others = slice(60, None)
    np.testing.assert_allclose(found.head.logits(blobs.x[others]), found.outputs[others], atol=1e-5)
    assert found.head.classes == blobs.classes


def test_labels_that_mean_nothing_are_not_learned_by_heart(blobs: Any) -> None:
    """Also not from copies of a text: each text is there twice, with one label drawn by chance."""
    rng = np.random.default_rng(1)
    x, y = np.repeat(blobs.x[:400], 2, axis=0), np.repeat(rng.integers(0, 2, 400), 2).astype(np.int32)
    pool = Pool.of(x, unit=np.repeat(np.arange(400), 2))
    found = retrain(Snapshot(pool, y, ["a", "b"]))
    assert 0.4 < found.validation.value < 0.6
    alone = retrain(Snapshot(Pool.of(x), y, ["a", "b"]))  # the test above can fail: without units copies tell
    assert alone.validation.value > found.validation.value


def test_the_same_labels_make_the_same_heads(blobs: Any) -> None:
    once, twice = (retrain(blobs.snapshot(np.arange(60)), threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(once.outputs, twice.outputs)


def test_before_and_after_are_compared_on_the_same_rows(blobs: Any) -> None:
    test = np.zeros(900, bool)
    test[600:] = True
    few, many = (blobs.snapshot(np.r_[0:n, 600:900], test=test) for n in (12, 300))
    before, after = retrain(few), retrain(many)
    gain = after.gain_over(before, many)
    guess = [one.outputs[600:].argmax(axis=1) for one in (after, before)]
    assert gain == score_difference("accuracy", blobs.truth[600:], *guess)
    assert gain is not None
    assert gain.difference > 0
    renamed = replace(many, classes=["new", *blobs.classes], y=np.where(many.y < 0, -1, many.y + 1).astype(np.int32))
    assert retrain(renamed).gain_over(before, renamed) is not None
    same = after.gain_over(before, renamed)  # by the names of the classes, whose numbers have changed
    assert same is not None
    assert same.difference == gain.difference
    assert after.gain_over(before, blobs.snapshot(np.arange(300), test=test)) is None  # no test row has a label


def test_rows_drawn_by_chance_are_measured_apart(blobs: Any) -> None:
    chance = np.zeros(900, bool)
    chance[:40] = True
    found = retrain(replace(blobs.snapshot(np.arange(100)), chance=chance))
    assert found.chance is not None
    assert found.chance.rows == 40
    assert found.chance.value == np.mean(found.outputs[:40].argmax(axis=1) == blobs.truth[:40])


def test_a_class_that_is_only_named_is_no_obstacle(blobs: Any) -> None:
    rows = np.flatnonzero(blobs.truth < 2)[:60]
    found = retrain(blobs.snapshot(rows))
    assert found.outputs.shape == (900, 3)
    assert (found.outputs.argmax(axis=1) < 2).mean() > 0.95


@pytest.mark.parametrize(("seed", "tie"), [(0, True), (5, False)])
def test_the_learning_rate_with_the_best_score_is_chosen(monkeypatch: pytest.MonkeyPatch, seed: int, tie: bool) -> None:
    """That is not always the one with the lowest loss where a class is rare and labels are wrong; that breaks ties."""
    rng, rows = np.random.default_rng(seed), np.arange(200)
    truth = (rows % 20 == 0).astype(np.int32)
    x = rng.standard_normal((200, 16)).astype(np.float32)
    x[truth == 1, :4] += 2
    y = np.where(rng.random(200) < 0.05, 1 - truth, truth).astype(np.int32)
    snapshot = Snapshot(Pool.of(x), y, ["other", "rare"])
    found, alone = retrain(snapshot), []
    for rate in retraining.RATES:
        with monkeypatch.context() as patch:
            patch.setattr(retraining, "RATES", (rate,))
            said = retrain(snapshot).outputs
        loss = np.log(np.exp(said).sum(axis=1)) - said[rows, y]
        alone.append(((said.argmax(axis=1) == y).mean(), -loss.mean(), rate))
    alone.sort()
    assert (found.validation.value, found.head.spec.lr) == (alone[-1][0], alone[-1][2])
    assert (alone[-1][0] == alone[-2][0]) == tie
    assert (max(alone, key=lambda one: one[1]) == alone[-1]) == tie, "the lowest loss"


def test_several_labels_a_row(blobs: Any) -> None:
    y = np.full((900, 2), -1, np.float32)
    y[:200] = np.column_stack([blobs.truth[:200] == 0, blobs.truth[:200] != 1])
    found = retrain(Snapshot(Pool.of(blobs.x), y, ["a", "b"], "multilabel"))
    right = (found.proba[200:] > 0.5) == np.column_stack([blobs.truth[200:] == 0, blobs.truth[200:] != 1])
    assert right.mean() > 0.9
    assert found.validation.metric == "accuracy"


def test_numbers() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 8)).astype(np.float32)
    value = 100 + 7 * x[:, :1]
    y = np.where(np.arange(600)[:, None] < 200, value, np.nan).astype(np.float32)
    found = retrain(Snapshot(Pool.of(x), y, ["stars"], "regression"))
    assert np.abs(found.outputs - value).mean() < 2
    assert found.validation.metric == "r2"
    assert found.validation.value > 0.9
    assert found.spread is not None
    assert found.spread.shape == (600,)
    with pytest.raises(EmbedcacheError, match="no probabilities"):
        _ = found.proba


@pytest.mark.parametrize(
    ("rows", "says"),
    [(slice(0, 5), "heads can be trained from 10 on"), (slice(0, 0), "0 rows have a label")],
)
def test_too_few_labels_are_told(blobs: Any, rows: slice, says: str) -> None:
    snapshot = blobs.snapshot(np.arange(900)[rows])
    assert says in str(why_not(snapshot))
    with pytest.raises(EmbedcacheError, match=says):
        retrain(snapshot)


def test_one_class_is_told(blobs: Any) -> None:
    rows = np.flatnonzero(blobs.truth == 0)[:30]
    assert "second class" in str(why_not(blobs.snapshot(rows)))
    one_more = np.append(rows, np.flatnonzero(blobs.truth == 1)[:1])
    assert "second class" in str(why_not(blobs.snapshot(one_more)))
    assert why_not(blobs.snapshot(np.append(rows, np.flatnonzero(blobs.truth == 1)[:2]))) is None
