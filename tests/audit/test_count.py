"""The number of wrong labels: near the truth with doubtful experts and small classes, where counting rows is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from embedcache.audit.count import (
    FINE,
    ClassCount,
    ErrorCount,
    NoiseLayer,
    _narrowest,
    _Profile,
    _softmax,
    _weighed,
    count_errors,
    open_counts,
)
from embedcache.audit.report import READ


def made_up(
    n: int, sizes: list[float], strength: float, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What two experts say, [2, n, C] log-probabilities, labels [n] of which a share is exchanged, and which.

    strength: of the evidence in a text; at 1 even the best guess is often wrong.
    """
    rng, c = np.random.default_rng(seed), len(sizes)
    true = rng.choice(c, n, p=np.array(sizes) / sum(sizes))
    evidence = strength * (np.eye(c)[true] * strength + rng.standard_normal((n, c)))  # a log-likelihood ratio
    z = np.log(np.array(sizes) / sum(sizes)) + evidence
    said = []
    for tempered in (0.7, 1.6):  # neither is calibrated, and each errs by itself
        own = tempered * z + 0.4 * rng.standard_normal((n, c))
        said.append(own - np.log(np.exp(own).sum(axis=1, keepdims=True)))
    y, wrong = true.copy(), np.zeros(n, bool)
    wrong[rng.choice(n, round(share * n), replace=False)] = True
    y[wrong] = (true[wrong] + rng.integers(1, c, wrong.sum())) % c
    return np.stack(said), y, wrong


def estimate(said: np.ndarray, y: np.ndarray, classes: int) -> tuple[ErrorCount, NoiseLayer]:
    return count_errors(said, y, [str(c) for c in range(classes)], np.bincount(y, minlength=classes))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("strength", [1.2, 2.5])
def test_the_interval_holds_the_truth_and_counting_disagreement_does_not(strength: float, share: float) -> None:
    said, y, wrong = made_up(1500, [1, 1, 1], strength, share, seed=1)
    found, layer = estimate(said, y, 3)
    low, high = found.interval
    assert low <= wrong.sum() <= high and low <= found.estimate <= high
    assert abs(found.estimate - wrong.sum()) < 0.05 * len(y)
    disagree = int((said.mean(axis=0).argmax(axis=1) != y).sum())
    if strength < 2:
        assert disagree > wrong.sum() + 0.2 * len(y)
    assert layer.wrong(said, y).sum() == pytest.approx(found.estimate, abs=0.04 * len(y))


def untold(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A tenth of the rows get a label of their own, at random: all wrong, or a class of which no text speaks."""
    said, y, _ = made_up(600, [3, 6], 2.0, 0.0, seed=seed)
    y = np.where(np.random.default_rng(seed).random(600) < 0.09, 2, y)
    said = np.concatenate([said, np.full((2, 600, 1), np.log(0.09))], axis=2)
    return said - np.log(np.exp(said).sum(axis=2, keepdims=True)), y


@pytest.mark.parametrize("seed", [3, 6])
def test_a_class_that_no_expert_tells_is_not_declared_wrong(seed: int) -> None:
    said, y = untold(seed)
    found, layer = estimate(said, y, 3)
    rows = (y == 2).sum()
    assert found.per_class[2].estimate < 0.2 * rows and found.per_class[2].interval[0] == 0
    share = _softmax(_weighed(layer.weights, said) + layer.biases).mean(axis=0)
    assert share == pytest.approx(np.bincount(y) / len(y), rel=0.3), "the class is there"


def test_a_class_that_nothing_tells_is_said_to_be_open() -> None:
    said, y = untold(seed=3)
    found, _ = estimate(said, y, 3)
    low, high = found.per_class[2].interval
    assert high > 0.5 * (y == 2).sum(), "nor is it cleared"
    (note,) = open_counts(found)
    assert [one.label for one in found.open] == ["2"] == found.to_dict()["open"]
    assert note.startswith(f"heads, neighbours and words can hardly tell 2 ({low} to {high} of {(y == 2).sum()}):")
    wide = ErrorCount(9, (0, 60), [ClassCount("a", 100, 2, (0, 49)), ClassCount("b ", 54, 7, (2, 30))])
    assert "can hardly tell 'b ' (2 to 30 of 54):" in open_counts(wide)[0]
    told, labels, _ = made_up(600, [1, 1, 1], 2.5, 0.1, seed=1)
    assert open_counts(estimate(told, labels, 3)[0]) == []


def test_a_small_class_that_is_never_the_likeliest_is_not_all_wrong() -> None:
    said, y, _ = made_up(1200, [10, 3, 1], 1.0, 0.0, seed=2)
    likeliest = said.mean(axis=0).argmax(axis=1)
    small = y == 2
    assert (likeliest[small] != 2).mean() > 0.8, "the old count took these for errors"
    found, _ = estimate(said, y, 3)
    assert found.per_class[2].rows == small.sum()
    assert found.per_class[2].estimate < 0.15 * small.sum() and found.per_class[2].interval[0] == 0


def test_the_chance_of_an_error_is_calibrated() -> None:
    said, y, wrong = made_up(4000, [2, 1], 2.0, 0.1, seed=3)
    _, layer = estimate(said, y, 2)
    chance = layer.wrong(said, y)
    order = np.argsort(-chance)
    for part in np.array_split(order[:1200], 3):
        assert chance[part].mean() == pytest.approx(wrong[part].mean(), abs=0.12)
    assert wrong[order[:200]].mean() > 3 * wrong.mean()


def test_errors_that_come_from_one_class_alone_are_put_there() -> None:
    rng = np.random.default_rng(4)
    said, y, _ = made_up(3000, [1, 1], 2.5, 0.0, seed=4)
    turned = rng.choice(np.flatnonzero(y == 0), 200, replace=False)
    y[turned] = 1
    found, _ = estimate(said, y, 2)
    assert found.interval[0] <= 200 <= found.interval[1]
    assert found.per_class[1].estimate > 3 * found.per_class[0].estimate


def test_a_sample_speaks_for_all_rows() -> None:
    said, y, wrong = made_up(3000, [1, 1], 2.5, 0.1, seed=5)
    whole = np.bincount(y)
    found, _ = count_errors(said[:, :1000], y[:1000], ["a", "b"], whole)
    assert found.interval[0] <= wrong.sum() <= found.interval[1]
    assert [one.rows for one in found.per_class] == whole.tolist()
    assert sum(one.estimate for one in found.per_class) == pytest.approx(found.estimate, abs=5)


def test_the_gradient_is_that_of_the_loss() -> None:
    said, y, _ = made_up(60, [1, 2, 1], 1.5, 0.1, seed=6)
    profile = _Profile(said, y)
    v = np.random.default_rng(0).normal(0.5, 0.2, 2 + 6)
    _, slope = profile._loss(v, -2.0)
    for i in range(len(v)):
        step = np.zeros(len(v))
        step[i] = 1e-5
        numeric = (profile._loss(v + step, -2.0)[0] - profile._loss(v - step, -2.0)[0]) / 2e-5
        assert slope[i] == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_the_gradient_of_the_classes_shares_is_that_of_their_loss() -> None:
    said, y, _ = made_up(60, [1, 2, 1], 1.5, 0.1, seed=6)
    profile = _Profile(said, y)
    q = np.random.default_rng(1).dirichlet([1, 3, 2], 60)
    loss, slope = profile._missing(q)
    assert q.dtype == slope.dtype == np.float64 and loss > 0
    for c in range(3):
        step = np.zeros(3)
        step[c] = 1e-6
        numeric = (profile._missing(q + step)[0] - profile._missing(q - step)[0]) / 2e-6
        assert slope[c] == pytest.approx(numeric, rel=1e-6)
    exact = np.broadcast_to(profile.shares, q.shape)
    assert profile._missing(exact)[0] == pytest.approx(0) and profile._missing(exact)[1] == pytest.approx(0)


def test_the_same_rows_give_the_same_count() -> None:
    said, y, _ = made_up(400, [1, 1], 2.0, 0.05, seed=7)
    assert estimate(said, y, 2)[0] == estimate(said, y, 2)[0]


def test_the_narrowest_interval_reaches_zero() -> None:
    assert _narrowest(np.array([0] * 50 + list(range(1, 51)))) == (0, 45)
    assert _narrowest(np.arange(100)) == (0, 94)
    assert FINE > 100


def test_the_report_says_how_far_to_read(noisy: tuple[Path, np.ndarray]) -> None:
    path, flipped = noisy
    report = ec.audit(path)
    errors = report.errors
    low, high = errors.interval
    assert low <= flipped.sum() <= high < report.judged / 2 and errors.read == high
    assert len(report.labels) >= errors.read
    sides = [one.read for one in report.labels]
    assert sides == sorted(sides, key=READ.index)
    assert (sides.count("first"), sides.count("then")) == (errors.estimate, errors.read - errors.estimate)
    there = [flipped[one.row] for one in report.labels]
    assert errors.expected_first == pytest.approx(sum(one.wrong for one in report.labels[: errors.estimate]))
    assert errors.expected == pytest.approx(sum(there[: errors.read]), abs=8)
    said = report.to_dict()["errors"]
    assert said["read"]["rows"] == high and said["interval"] == [low, high]
    assert [one["label"] for one in said["per_class"]] == ["bad", "good"]


def test_rows_up_to_the_cut_are_listed_even_where_no_other_label_is_likelier(
    noisy: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcache.audit import labels

    def many(*arguments: object) -> object:
        count, layer = count_errors(*arguments)  # type: ignore[arg-type]
        return labels.replace(count, interval=(0, 300)), layer

    monkeypatch.setattr(labels, "count_errors", many)
    report = ec.audit(noisy[0])
    assert len(report.labels) == report.errors.read == 300
    assert all(one.suggested != one.label for one in report.labels)
    assert sum(one.suggested_probability < one.probability for one in report.labels) > 200
