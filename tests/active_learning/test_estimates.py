"""How far the labelling is: every estimate against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from embedcache.active_learning.estimates import (
    PredictedGain,
    advise,
    agreement,
    krippendorff_alpha,
    predicted_gain,
    rows_per_minute,
    wrong_share,
)
from embedcache.active_learning.retrain import MeasuredScore


def test_wrong_labels_left() -> None:
    found = wrong_share(checked=50, wrong=4, unchecked=1000)
    assert found is not None
    wilson = binomtest(4, 50).proportion_ci(method="wilson")
    assert found.interval == (wilson.low, wilson.high)
    assert (found.share, found.left) == (0.08, 80)
    assert found.left_interval[0] <= 80 <= found.left_interval[1]
    assert found.left_interval == (int(1000 * wilson.low), int(1000 * wilson.high) + 1)
    assert wrong_share(checked=9, wrong=1, unchecked=1000) is None
    none = wrong_share(checked=30, wrong=0, unchecked=100)
    assert none is not None
    assert none.interval[1] > 0.05  # no error among 30 is not no error


def test_agreement_of_two_people() -> None:
    """By hand: 20 rows, 15 alike; both say a on half of theirs, so chance agrees on half: (0.75 - 0.5) / 0.5."""
    ada = {row: "a" if row < 10 else "b" for row in range(20)}
    bob = {row: ("a" if row < 10 else "b") if row % 4 else ("b" if row < 10 else "a") for row in range(20)}
    bob[8], bob[13] = "b", "a"
    bob[0], bob[12] = "a", "b"
    same = np.mean([ada[row] == bob[row] for row in range(20)])
    found = agreement({"ada": ada, "bob": bob})
    assert found is not None
    assert (found.people, found.rows, found.same) == (["ada", "bob"], 20, same)
    share = np.mean([label == "a" for label in bob.values()])
    chance = 0.5 * share + 0.5 * (1 - share)
    assert found.kappa == pytest.approx((same - chance) / (1 - chance))
    share = (share + 0.5) / 2
    by_chance = 2 * share * (1 - share) * 40 / 39  # that any two of the 40 labels differ
    assert found.alpha == pytest.approx(1 - (1 - same) / by_chance)


def test_agreement_of_many_people_is_that_of_krippendorffs_example() -> None:
    """Four observers, twelve units, missing labels; alpha 0.743 ("Computing Krippendorff's Alpha-Reliability", C)."""
    said = {
        "a": "1 2 3 3 2 1 4 1 2 . . .", "b": "1 2 3 3 2 2 4 1 2 5 . 3",
        "c": ". 3 3 3 2 3 4 2 2 5 1 .", "d": "1 2 3 3 2 4 4 1 2 5 1 .",
    }  # fmt: skip
    labels = {who: {i: v for i, v in enumerate(row.split()) if v != "."} for who, row in said.items()}
    found = agreement(labels)
    assert found is not None and found.kappa is None
    assert found.alpha == pytest.approx(0.743, abs=0.0005)
    assert (found.rows, found.same) == (11, pytest.approx(8 / 11))


def test_alpha_by_its_definition() -> None:
    """Every ordered pair of labels of one unit, and of all units, with weights and missing labels by chance."""
    rng = np.random.default_rng(0)
    units = [["abc"[i] for i in rng.integers(3, size=rng.integers(0, 5))] for _ in range(60)]
    units = [one if rng.random() < 0.4 else one[:1] * len(one) for one in units]
    paired = [one for one in units if len(one) > 1]
    every = [label for one in paired for label in one]
    pairs = [
        (a != b, 1 / (len(one) - 1)) for one in paired for i, a in enumerate(one) for j, b in enumerate(one) if i != j
    ]
    observed = sum(differ * weight for differ, weight in pairs) / len(every)
    expected = np.mean([a != b for i, a in enumerate(every) for j, b in enumerate(every) if i != j])
    assert krippendorff_alpha(units) == pytest.approx(1 - observed / expected)
    assert krippendorff_alpha([["a", "a"], ["a"]]) is None and krippendorff_alpha([["a"], ["b"]]) is None


def test_agreement_needs_shared_rows() -> None:
    assert agreement({"ada": dict.fromkeys(range(50), "a"), "bob": {}}) is None
    assert agreement({}) is None
    alike = agreement({"ada": dict.fromkeys(range(50), "a"), "bob": dict.fromkeys(range(50), "a")})
    assert alike is not None
    assert (alike.same, alike.alpha, alike.kappa) == (1.0, None, None)  # one class throughout: chance says as much


def test_rows_per_minute_leaves_pauses_out() -> None:
    times = [f"2026-01-01T10:00:{second:02d}+00:00" for second in range(0, 60, 6)]
    assert rows_per_minute(times) == pytest.approx(10)
    later = [f"2026-01-01T12:00:{second:02d}Z" for second in range(0, 60, 6)]
    assert rows_per_minute([*times, *later]) == pytest.approx(10)
    assert rows_per_minute(times[:1]) is None
    assert rows_per_minute([times[0]] * 3) is None


def curve(a: float, b: float, c: float, sizes: list[int], width: float) -> list[tuple[int, MeasuredScore]]:
    values = [(n, a - b * n**-c) for n in sizes]
    return [(n, MeasuredScore("accuracy", v, (v - width, v + width), n)) for n, v in values]


def test_the_gain_of_a_known_curve() -> None:
    sizes = [50, 100, 150, 200, 300, 400]
    found = predicted_gain(curve(0.9, 2.0, 0.5, sizes, 0.001))
    assert found is not None
    truth = 2.0 * (400**-0.5 - 500**-0.5)
    assert found.gain == pytest.approx(truth, rel=0.02)
    assert found.interval[0] <= truth <= found.interval[1]
    wide = predicted_gain(curve(0.9, 2.0, 0.5, sizes, 0.05))
    assert wide is not None
    assert wide.interval[1] - wide.interval[0] > 5 * (found.interval[1] - found.interval[0])


def test_the_gain_of_a_flat_curve_is_none() -> None:
    found = predicted_gain(curve(0.8, 0.0, 0.5, [50, 100, 200, 400, 800], 0.002))
    assert found is not None
    assert found.gain == pytest.approx(0, abs=1e-9)
    assert advise(found).stop is True


@pytest.mark.parametrize("sizes", [[50, 100, 200, 400], [200, 210, 220, 230, 240]])
def test_too_early_to_tell(sizes: list[int]) -> None:
    assert predicted_gain(curve(0.9, 2.0, 0.5, sizes, 0.01)) is None
    assert advise(None).stop is None


def test_advice_is_certain_only_outside_the_interval() -> None:
    assert advise(PredictedGain(100, 0.001, (0.0, 0.0019))).stop is True
    assert advise(PredictedGain(100, 0.01, (0.005, 0.02))).stop is False
    unsure = advise(PredictedGain(100, 0.001, (0.0, 0.02)))
    assert unsure.stop is None
    assert "probably stop" in unsure.reason
    assert "probably go on" in advise(PredictedGain(100, 0.01, (0.0, 0.02))).reason
    left = wrong_share(50, 5, 1000)
    assert "100 wrong labels are left" in advise(PredictedGain(100, 0.0, (0.0, 0.001)), left).reason
