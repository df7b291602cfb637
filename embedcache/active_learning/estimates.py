"""How far the labelling is: wrong labels left, agreement of people, speed, the gain of more labels, when to stop."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from embedcache.active_learning.judgement import JudgedSnapshot
from embedcache.active_learning.retrain import MeasuredScore
from embedcache.labelling import Given
from embedcache.labelling.overlay import same_label
from embedcache.runs.intervals import accuracy_interval

CHANCE = "random"  # the queue whose rows are drawn by chance
FEWEST_CHECKED = 10  # rows drawn by chance, for a share of wrong labels
FEWEST_SHARED = 10  # rows that two people have labelled, for their agreement
FEWEST_SCORES = 5  # of the learning curve
PAUSE_SECONDS = 120  # longer between two labels, and the person was away
RECENT = 50  # labels, of which the speed is taken
NEXT_LABELS = 100
STOP_BELOW = 0.002  # predicted gain of the next 100 labels
DRAWS = 2_000
LEVEL = 0.95


@dataclass(frozen=True)
class WrongShare:
    """The share of wrong labels among those that nobody has checked, 0 to 1.

    Attributes:
        share, interval: Wilson's interval of 95%.
        rows: what it was counted on. source: "chance", rows drawn by chance that people checked.
        left: labels that are wrong among the unchecked ones, by that share, with the interval.
    """

    share: float
    interval: tuple[float, float]
    rows: int
    source: str
    left: int
    left_interval: tuple[int, int]


@dataclass(frozen=True)
class Agreement:
    """Of people on the rows that two or more have labelled.

    Attributes:
        people: their names. rows: those rows. same: the share on which all agree.
        alpha: Krippendorff's, of any number of people, corrected for what chance makes them agree on: 1 where they all
            agree, 0 where they do as often as chance would. kappa: Cohen's, of two people. None where all gave one
            class throughout.
    """

    people: list[str]
    rows: int
    same: float
    alpha: float | None
    kappa: float | None


@dataclass(frozen=True)
class PredictedGain:
    """What the next ``labels`` labels are likely to add to the score, by the learning curve, with a 95% interval."""

    labels: int
    gain: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Advice:
    """Whether to stop. stop: None where it cannot be told yet. reason: in words."""

    stop: bool | None
    reason: str


@dataclass(frozen=True)
class Estimates:
    """All of it; what cannot be said yet is None. notes say why."""

    wrong: WrongShare | None
    wrong_by_audit: dict[str, Any] | None
    agreement: Agreement | None
    rows_per_minute: float | None
    gain: PredictedGain | None
    advice: Advice
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def estimates_of(
    texts: Sequence[Given],
    unchecked: int,
    curve: Sequence[tuple[int, MeasuredScore]] = (),
    judged: JudgedSnapshot | None = None,
    who: str | None = None,
) -> Estimates:
    """How far the labelling is.

    Args:
        texts: What people gave, each text once.
        unchecked: Labels that nobody has checked.
        curve: (labels learned from, score) after each retraining; scores over rows drawn by chance or test rows say
            most.
        judged: What audit makes of the labels that are there.
        who: Whose speed; None is the mean over people.
    """
    drawn = [one.entry for one in texts if one.entry.queue == CHANCE and one.entry.before is not None]
    wrong = sum(not same_label(entry.after, entry.before) for entry in drawn)
    share = wrong_share(len(drawn), wrong, unchecked)
    by_person: dict[str, dict[str, object]] = {}
    times: dict[str, list[str]] = {}
    for one in texts:
        for person, entry in one.by.items():
            label = sorted(entry.after) if isinstance(entry.after, tuple) else entry.after
            by_person.setdefault(person, {})[entry.row_hash] = label
            times.setdefault(person, []).append(entry.time)
    asked = times.values() if who is None else [times.get(who, [])]
    speeds = [speed for one in asked if (speed := rows_per_minute(one)) is not None]
    gain = predicted_gain(curve)
    notes = []
    if share is None and unchecked:
        notes.append(
            f"the share of wrong labels: {len(drawn)} labels of rows drawn by chance were checked, 10 are needed"
        )
    return Estimates(
        wrong=share,
        wrong_by_audit=None if judged is None else judged.count.to_dict(),
        agreement=agreement(by_person),
        rows_per_minute=float(np.mean(speeds)) if speeds else None,
        gain=gain,
        advice=advise(gain, share),
        notes=notes,
    )


def wrong_share(checked: int, wrong: int, unchecked: int) -> WrongShare | None:
    """From rows that were drawn by chance and checked, of which so many had a wrong label; None below ten of them.

    ``unchecked``: labels that nobody has checked.
    """
    if checked < FEWEST_CHECKED:
        return None
    low, high = accuracy_interval(wrong / checked, checked)
    share = wrong / checked
    left = round(share * unchecked)
    bounds = math.floor(low * unchecked), math.ceil(high * unchecked)
    return WrongShare(share, (low, high), checked, "chance", left, bounds)


def agreement(labels: Mapping[str, Mapping[Any, Any]]) -> Agreement | None:
    """Of people's labels, person -> row -> label (a class, or the JSON of several); None below ten shared rows."""
    people = sorted(labels)
    times: dict[Any, int] = {}
    for person in people:
        for row in labels[person]:
            times[row] = times.get(row, 0) + 1
    shared = [row for row, count in times.items() if count > 1]
    if len(shared) < FEWEST_SHARED:
        return None
    given = [[str(labels[person][row]) for person in people if row in labels[person]] for row in shared]
    same = float(np.mean([len(set(one)) == 1 for one in given]))
    kappa = _kappa(*zip(*given, strict=True)) if len(people) == 2 else None
    return Agreement(people, len(shared), same, krippendorff_alpha(given), kappa)


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha of nominal labels, 1 - observed disagreement / expected disagreement.

    Of each two labels of one unit that different people gave, how many differ; a unit of m labels weighs 1 / (m - 1) a
    pair. Expected: the same of any two labels. Units with one label say nothing (K. Krippendorff, "Computing
    Krippendorff's Alpha-Reliability", 2011, sections C and E).

    Args:
        units: Of each row what people gave, in any order, of those who did.

    Returns:
        At most 1; None where all labels are the same, or none are paired.
    """
    paired = [Counter(one) for one in units if len(one) > 1]
    total = sum(paired, Counter[str]())
    n = total.total()
    expected = n * n - sum(count**2 for count in total.values())  # times n - 1: ordered pairs that differ
    if not expected:
        return None
    observed = sum((one.total() ** 2 - sum(count**2 for count in one.values())) / (one.total() - 1) for one in paired)
    return 1 - (n - 1) * observed / expected


def _kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:  # nothing to agree on; scikit-learn would divide 0 by 0
        return None
    return float(cohen_kappa_score(first, second))


def rows_per_minute(times: Sequence[str | datetime]) -> float | None:
    """Of the last fifty labels of one person, pauses of more than two minutes left out; None for fewer than two."""
    stamps = sorted(t if isinstance(t, datetime) else datetime.fromisoformat(t.replace("Z", "+00:00")) for t in times)
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(stamps)][-RECENT:]
    gaps = [gap for gap in gaps if gap <= PAUSE_SECONDS]
    if not gaps or not sum(gaps):
        return None
    return 60 * len(gaps) / sum(gaps)


def predicted_gain(
    curve: Sequence[tuple[int, MeasuredScore]], labels: int = NEXT_LABELS, seed: int = 0
) -> PredictedGain | None:
    """What so many more labels would add to the score, from the scores so far; None for fewer than five.

    A power law, score(n) = a - b n^-c with c from 0.1 to 1, is fitted by least squares, each score weighted by its
    interval; the interval of the gain is that of refits to scores drawn from theirs, so it is as wide as they are.
    curve: (labels learned from, score), with different numbers of labels.
    """
    points = sorted({n: score for n, score in curve if score.interval is not None}.items())
    if len(points) < FEWEST_SCORES or points[-1][0] < 2 * points[0][0]:
        return None
    n = np.array([one for one, _ in points], np.float64)
    value = np.array([score.value for _, score in points])
    spread = np.array([(score.interval[1] - score.interval[0]) / 3.92 for _, score in points if score.interval])
    spread = np.maximum(spread, 1e-4)
    rng = np.random.default_rng(seed)
    # The scores stand on nested sets of rows: they err together, and by far more together than each by itself.
    last = rng.standard_normal((DRAWS, 1))
    drawn = value + spread * (np.sqrt(0.8) * last + np.sqrt(0.2) * rng.standard_normal((DRAWS, len(n))))
    gains = _gains(n, np.vstack([value, drawn]), spread, labels)
    low, high = np.quantile(gains[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return PredictedGain(labels, float(gains[0]), (float(low), float(high)))


def _gains(n: np.ndarray, values: np.ndarray, spread: np.ndarray, labels: int) -> np.ndarray:
    """float64 [curves], of values [curves, scores]: the best of a grid of c by weighted least squares, b >= 0."""
    best = np.full(len(values), np.inf)
    gain = np.zeros(len(values))
    weight = 1 / spread**2
    for c in np.linspace(0.1, 1, 10):
        t = -(n**-c)
        t_mean, v_mean = np.average(t, weights=weight), values @ weight / weight.sum()
        slope = ((values - v_mean[:, None]) * weight) @ (t - t_mean) / (weight * (t - t_mean) ** 2).sum()
        slope = np.maximum(slope, 0)
        loss = (((values - v_mean[:, None]) - slope[:, None] * (t - t_mean)) ** 2 * weight).sum(axis=1)
        better = loss < best
        best = np.where(better, loss, best)
        gain = np.where(better, slope * (n[-1] ** -c - (n[-1] + labels) ** -c), gain)
    return gain


def advise(gain: PredictedGain | None, wrong: WrongShare | None = None, below: float = STOP_BELOW) -> Advice:
    """Whether to stop: when the next 100 labels are predicted to add less than ``below`` to the score.

    Certain only where the whole interval lies on one side.
    """
    if gain is None:
        return Advice(None, "too early to tell: the score has been measured at too few numbers of labels")
    low, high = (100 * end for end in gain.interval)
    said = f"the next {gain.labels} labels are predicted to add {100 * gain.gain:.2f} points ({low:.2f} to {high:.2f})"
    if gain.interval[1] < below:
        left = f"; about {wrong.left:,} wrong labels are left unchecked" if wrong is not None and wrong.left else ""
        return Advice(True, f"you can stop: {said}{left}")
    if gain.interval[0] > below:
        return Advice(False, f"go on: {said}")
    sure = "probably stop" if gain.gain < below else "probably go on"
    return Advice(None, f"cannot tell for sure, {sure}: {said}")
