"""The queue: which rows each strategy chooses, and the mix."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedcache.active_learning.judgement import drawn, judge_labels, nearest_of
from embedcache.active_learning.queue import QUEUES, SHARES, Queue, evidence_of, make_queue
from embedcache.active_learning.retrain import Retrained, retrain
from embedcache.active_learning.snapshot import Pool, Snapshot
from embedcache.active_learning.strategies import STRATEGIES
from embedcache.active_learning.strategies.strategy import spread_out
from embedcache.errors import EmbedcacheError
from tests.active_learning.conftest import make_blobs


def rows_of(queue: Queue) -> list[int]:
    return [one.row for one in queue.rows]


def test_uncertain_rows_are_those_between_the_classes(blobs: Any) -> None:
    snapshot = blobs.snapshot(np.arange(90))
    found = retrain(snapshot)
    queue = make_queue(evidence_of(snapshot, found), 40, "uncertain")
    two = np.sort(found.proba, axis=1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    rows = rows_of(queue)
    assert len(set(rows)) == 40
    assert min(rows) >= 90  # none has a label
    assert margin[rows].max() <= np.sort(margin[90:])[160]  # of the 4 x 40 least sure
    assert margin[rows].mean() < margin[90:].mean() / 2
    assert queue.rows[0].reason.startswith("the heads are unsure: class")
    guess = found.proba[rows[0]].argmax()
    assert queue.rows[0].guess == f"class {guess}"
    assert queue.rows[0].probability == pytest.approx(found.proba[rows[0], guess])


def test_rows_that_follow_each_other_are_unlike() -> None:
    """Three groups of like rows: any three rows that follow are of three groups."""
    blobs = make_blobs([300, 300, 300], distance=8)
    x = blobs.x / np.linalg.norm(blobs.x, axis=1, keepdims=True)
    score = np.random.default_rng(0).random(900) + 10 * (blobs.truth == 0)
    order = spread_out(x, score, 3, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(900))
    turns = blobs.truth[order[:60]].reshape(20, 3)
    assert np.mean([len(set(turn)) == 3 for turn in turns.tolist()]) > 0.8
    first = order[blobs.truth[order] == 0]
    assert (np.diff(score[first]) <= 0).mean() > 0.95  # within a group by score


def test_unlike_rows_are_the_farthest_from_the_labelled_ones() -> None:
    """K-centre by the definition, among candidates that all count."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4)).astype(np.float32)
    pool = Pool.of(x)
    y = np.full(200, -1, np.int32)
    y[:3] = [0, 1, 0]
    evidence = evidence_of(Snapshot(pool, y, ["a", "b"]))
    queue = make_queue(evidence, 190, "unlike")  # so many that no candidate is left out as outlying
    d = pool.similar(np.arange(200))
    covered = [0, 1, 2]
    for row in rows_of(queue)[:20]:
        near = (d @ d[covered].T).max(axis=1)
        near[covered] = 9
        assert near[row] == pytest.approx(near.min(), abs=1e-5)
        covered.append(row)
    assert "cosine" in queue.rows[0].reason


def test_rows_of_rare_classes() -> None:
    blobs = make_blobs([900, 60], distance=4)
    rare, common = np.flatnonzero(blobs.truth == 1), np.flatnonzero(blobs.truth == 0)
    snapshot = blobs.snapshot(np.r_[rare[:3], common[:60]])
    queue = make_queue(evidence_of(snapshot, retrain(snapshot)), 20, "rare")
    assert np.mean(blobs.truth[rows_of(queue)] == 1) > 0.5  # of 6% by chance
    assert "which 3 labelled rows are" in queue.rows[0].reason


def test_likely_errors_are_found(blobs: Any) -> None:
    flipped = np.arange(0, 900, 30)
    y = blobs.truth.copy()
    y[flipped] = (y[flipped] + 1) % 3
    snapshot = Snapshot(blobs.pool(), y, blobs.classes)
    found = retrain(snapshot)
    judged = judge_labels(snapshot, found, nearest_of(snapshot.pool, snapshot.learned))
    assert judged is not None
    low, high = judged.count.interval
    assert low <= 30 <= high
    queue = make_queue(evidence_of(snapshot, found, wrong=judged.wrong), 20, "errors")
    assert np.isin(rows_of(queue), flipped).mean() > 0.8
    assert "looks wrong" in queue.rows[0].reason
    checked = np.zeros(900, bool)
    checked[rows_of(queue)] = True
    again = make_queue(
        evidence_of(replace(snapshot, checked=checked, settled=checked), found, wrong=judged.wrong), 20, "errors"
    )
    assert not set(rows_of(again)) & set(rows_of(queue))
    once = replace(snapshot, checked=checked, settled=np.zeros(900, bool))  # they had no label before: once more
    assert rows_of(make_queue(evidence_of(once, found, wrong=judged.wrong), 20, "errors")) == rows_of(queue)


def test_neighbours_are_the_nearest_other_texts_among_some_rows(blobs: Any) -> None:
    """Rows 2i and 2i + 1 have one text, and only its first row of those asked for can be a neighbour."""
    pool = blobs.pool(unit=np.arange(900) // 2 * 2)
    pool.x[1::2] = pool.x[::2]
    rows = np.arange(101, 300)
    found = nearest_of(pool, rows, 5)
    x = pool.x[rows].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    cosines[:, (rows % 2 == 1) & (rows != 101)] = -9
    cosines[rows[:, None] // 2 == rows[None] // 2] = -9
    np.testing.assert_allclose(np.sort(found.scores[rows]), np.sort(cosines)[:, -5:], atol=1e-3)
    assert set(found.rows[rows].ravel().tolist()) <= {101, *range(102, 300, 2)}
    assert (found.rows[:101] == -1).all() and (found.rows[300:] == -1).all()


def test_what_is_drawn_stays_as_rows_are_added() -> None:
    few, more = drawn(np.arange(0, 600, 2), 100, 1000), drawn(np.arange(0, 600), 100, 1000)
    assert len(few) == len(more) == 100 and len(np.intersect1d(few, more)) == (more % 2 == 0).sum() > 30
    assert (drawn(np.arange(50), 100, 1000) == np.arange(50)).all()


@pytest.mark.parametrize("queue", ["mixed", "uncertain", "unlike", "random"])
def test_rows_of_one_group_do_not_fill_the_list(blobs: Any, queue: str) -> None:
    """450 rows of one film and ten of each of 45 others: 46 films share 46 rows, then 92."""
    film = np.where(np.arange(900) < 450, 0, np.arange(900) // 10)
    labelled = np.arange(0, 900, 20)
    alone = blobs.snapshot(labelled)
    grouped = blobs.snapshot(labelled, group=film)
    retrained = retrain(alone)
    without = make_queue(evidence_of(alone, retrained), 46, queue)
    assert Counter(film[rows_of(without)].tolist())[0] > 10
    for even in (1, 2):
        counts = Counter(film[rows_of(make_queue(evidence_of(grouped, retrained), 46 * even, queue))].tolist())
        assert sum(counts.values()) == 46 * even and max(counts.values()) == even
    few = np.zeros(900, np.int64)
    few[:3] = 1
    counts = Counter(few[rows_of(make_queue(evidence_of(blobs.snapshot(labelled, group=few), retrained), 40))].tolist())
    assert sum(counts.values()) == 40, "a group that has few rows leaves its share to the others"


def test_a_group_is_on_one_side_of_a_fold(blobs: Any) -> None:
    from embedcache.active_learning.retrain import _folds

    film = np.arange(900) // 30
    for side in _folds(blobs.snapshot(np.arange(900), group=film), 0):
        assert not set(film[side.train].tolist()) & set(film[side.val].tolist())


def test_random_rows_are_of_all_sides(blobs: Any) -> None:
    test = np.arange(900) % 3 == 0
    snapshot = blobs.snapshot(np.arange(300), test=test)
    rows = np.array(rows_of(make_queue(evidence_of(snapshot), 300, "random")))
    assert 60 < test[rows].sum() < 140
    assert 60 < (rows < 300).sum() < 140  # with a label that nobody has checked
    others = [
        rows_of(make_queue(evidence_of(snapshot, retrain(snapshot)), 100, name)) for name in ("uncertain", "unlike")
    ]
    assert not test[np.concatenate(others)].any()


def test_typical_rows_come_from_every_group(blobs: Any) -> None:
    queue = make_queue(evidence_of(blobs.snapshot(np.arange(0))), 3, "typical")
    assert set(blobs.truth[rows_of(queue)].tolist()) == {0, 1, 2}
    assert "stands for about" in queue.rows[0].reason
    assert queue.rows[0].guess is None


def test_the_mix_has_its_shares_and_says_why(blobs: Any) -> None:
    y = np.where(np.arange(900) < 600, blobs.truth, -1).astype(np.int32)
    y[:600:20] = (y[:600:20] + 1) % 3
    snapshot = Snapshot(blobs.pool(), y, blobs.classes)
    found = retrain(snapshot)
    judged = judge_labels(snapshot, found, nearest_of(snapshot.pool, snapshot.learned))
    assert judged is not None
    evidence = evidence_of(snapshot, found, wrong=judged.wrong)
    queue = make_queue(evidence, 50)
    rows = rows_of(queue)
    assert len(rows) == len(set(rows)) == 50
    counts = Counter(one.queue for one in queue.rows)
    assert queue.notes == ["rare: no class is rare among the labelled rows"]  # its share went to the others
    for name in set(SHARES) - {"rare"}:
        assert counts[name] == pytest.approx(50 * SHARES[name] / 0.9, abs=2), name
    first = Counter(one.queue for one in queue.rows[:10])
    assert first["uncertain"] in (5, 6)
    assert rows_of(make_queue(evidence, 50)) == rows
    assert rows_of(make_queue(evidence, 50, seed=1)) != rows


def test_checked_and_skipped_rows_and_copies_are_not_shown(blobs: Any) -> None:
    unit = np.arange(900) // 3
    snapshot = replace(blobs.snapshot(np.arange(90), unit=unit), checked=np.arange(900) < 90)
    skipped = np.arange(900) == 700
    evidence = evidence_of(snapshot, retrain(snapshot), skipped=skipped)
    for name in ("mixed", "uncertain", "unlike", "random", "typical"):
        rows = np.array(rows_of(make_queue(evidence, 900, name)))
        assert len(set(unit[rows].tolist())) == len(rows), name
        assert not np.isin(unit[rows], np.r_[unit[:90], unit[700]]).any(), name


def test_before_there_are_heads_what_is_known_guides(blobs: Any) -> None:
    snapshot = blobs.snapshot(np.arange(0))
    nothing = make_queue(evidence_of(snapshot), 30)
    assert {one.queue for one in nothing.rows} == {"typical", "random"}
    start = np.full((900, 3), 1 / 3)
    start[:, 0] += np.linspace(0, 0.5, 900)
    queue = make_queue(evidence_of(snapshot, start=start), 30, "uncertain")
    assert max(rows_of(queue)) < 120
    assert queue.rows[0].guess == "class 0"


def test_numbers_and_lists() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)).astype(np.float32)
    y = np.where(np.arange(300)[:, None] < 60, x[:, :1], np.nan).astype(np.float32)
    snapshot = Snapshot(Pool.of(x), y, ["stars"], "regression")
    found = retrain(snapshot)
    evidence = evidence_of(snapshot, found)
    queue = make_queue(evidence, 10, "uncertain")
    assert isinstance(queue.rows[0].guess, float)
    assert queue.rows[0].probability is None
    assert found.spread is not None
    assert found.spread[rows_of(queue)].mean() > found.spread[60:].mean()
    with pytest.raises(EmbedcacheError, match="numbers have no classes"):
        make_queue(evidence, 10, "rare")
    lists = np.full((300, 2), -1, np.float32)
    lists[:60] = x[:60, :2] > 0
    snapshot = Snapshot(Pool.of(x), lists, ["a", "b"], "multilabel")
    queue = make_queue(evidence_of(snapshot, retrain(snapshot)), 10)
    assert all(isinstance(one.guess, list) for one in queue.rows)
    assert any(note.startswith("errors: only labels of one class") for note in queue.notes)


def test_a_class_that_is_new_since_the_heads(blobs: Any) -> None:
    """It may stand before the others: what was said of these follows their names."""
    snapshot = blobs.snapshot(np.arange(90))
    found: Retrained = retrain(snapshot)
    now = replace(snapshot, classes=["a new one", *blobs.classes], y=np.where(snapshot.y < 0, -1, snapshot.y + 1))
    evidence = evidence_of(now, found)
    assert evidence.proba is not None
    np.testing.assert_array_equal(evidence.proba[:, 1:], found.proba)
    queues = [make_queue(one, 10, "uncertain").rows for one in (evidence, evidence_of(snapshot, found))]
    assert [one.row for one in queues[0]] == [one.row for one in queues[1]]
    assert [one.guess for one in queues[0]] == [one.guess for one in queues[1]]


def test_what_cannot_be_had_is_told(blobs: Any) -> None:
    evidence = evidence_of(blobs.snapshot(np.arange(900)))
    with pytest.raises(EmbedcacheError, match="use mixed, errors, uncertain"):
        make_queue(evidence, 5, "best")
    with pytest.raises(EmbedcacheError, match="ask for 1 or more"):
        make_queue(evidence, 0)
    with pytest.raises(EmbedcacheError, match="no heads yet"):
        make_queue(evidence, 5, "uncertain")
    with pytest.raises(EmbedcacheError, match="every row has a label"):
        make_queue(evidence, 5, "unlike")
    done = replace(evidence.snapshot, checked=np.ones(900, bool))
    with pytest.raises(EmbedcacheError, match=r"no rows to show \(random\): every row was shown"):
        make_queue(evidence_of(done), 5, "random")


def test_the_registry() -> None:
    assert set(QUEUES) == {"mixed", *STRATEGIES}
    assert set(SHARES) <= set(STRATEGIES)
    assert sum(SHARES.values()) == pytest.approx(1)
