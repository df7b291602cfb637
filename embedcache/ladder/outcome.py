"""What the rungs came to: scores with intervals, differences on the same test rows, where to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedcache.heads.arrays import json_number
from embedcache.heads.kinds import kind_of
from embedcache.ladder.rows import CommonRows
from embedcache.runs.intervals import Difference, score_difference, score_interval
from embedcache.runs.scores import measure_all

RULE = (
    "the lowest rung after which no rung is significantly better on the same test rows (paired, p < 0.05, not "
    "corrected for the number of rungs)"
)


@dataclass
class RungResult:
    """One rung; seconds, bytes. What is not known or measured is None.

    Attributes:
        name: of the rung, with its encoder where there are several.
        rung, encoder: the encoder is None for rungs that read no vectors.
        trained: in words. parameters: that were trained.
        metric, test_score: the kind's main score on the test rows, the mean over the seeds, and ``interval``, its 95%
            interval for other test rows. test_accuracy: the same where it is an accuracy, else None.
        seeds, scores: with which it was trained, and what each came to; one without a seed has one score.
        below: the name of the rung below, of the same encoder. gain: test score less that of ``below``, gain_interval,
            p_over_previous: paired over the test rows.
        seconds_once: of the pass over the texts, which all rungs of the encoder share; None of a cache that was there.
        seconds: its own, scoring included, the baselines of its report not; the mean over the seeds. seconds_of_seeds:
            each. predicted_seconds: of one seed, by the plan; None where it was done before.
        peak_memory: bytes of its process before predictions are timed, the most of any seed. disk: bytes of one run.
        predictions_per_second: texts to labels, tokenizing included; the mean. load: average of the machine then.
        run: its folder, of the first seed.
    """

    name: str
    rung: str
    encoder: str | None
    trained: str
    parameters: int
    metric: str
    test_score: float | None
    test_accuracy: float | None
    interval: tuple[float, float] | None
    seeds: list[int]
    scores: list[float | None]
    below: str | None
    gain: float | None
    gain_interval: tuple[float, float] | None
    p_over_previous: float | None
    seconds_once: float | None
    seconds: float
    seconds_of_seeds: list[float]
    predicted_seconds: float | None
    peak_memory: int | None
    disk: int
    predictions_per_second: float | None
    load: float | None
    run: str | None = None


@dataclass
class LadderReport:
    """What ladder did; to_dict() is what --json prints.

    Attributes:
        input, output: the table or cache, the folder.
        label, kind, classes, metric: what is learned, and the score that compares.
        rows: of each side. group, test_groups: of --group, else None. seed: of the split. seeds: of the training.
        encoders: name, source, and seconds, disk and peak_memory of the pass, None where the cache was there.
        rungs: from the lowest on. stop_at: the name of a rung. rule: that found it.
        better: pairs (higher, lower, difference, p) in which a rung is significantly better than one before it.
        plan: predicted seconds and bytes of what was still to do. notes: one line each. seconds: everything.
    """

    input: str
    output: str
    label: str
    kind: str
    classes: list[str]
    metric: str
    rows: dict[str, int]
    group: str | None
    test_groups: int | None
    seed: int
    seeds: list[int]
    encoders: list[dict[str, Any]]
    rungs: list[RungResult]
    stop_at: str
    better: list[dict[str, Any]]
    plan: dict[str, float] | None = None
    rule: str = RULE
    notes: list[str] = field(default_factory=list)
    page: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without NaN."""
        return asdict(self)


@dataclass(frozen=True)
class Climbed:
    """A rung that is done. found: of steps.climb; predicted: in the form of y, of the test rows; one a seed each."""

    name: str
    encoder: str | None
    seeds: list[int]
    found: list[dict[str, Any]]
    predicted: list[np.ndarray]
    once: float | None
    planned: float | None


def compare_rungs(climbed: Sequence[Climbed], rows: CommonRows) -> tuple[list[RungResult], str, list[dict[str, Any]]]:
    """(the rungs, where to stop, the pairs in which a higher rung is better)."""
    differences = {
        (high, low): score_difference(
            kind_of(rows.data.kind).main, rows.y, climbed[high].predicted, climbed[low].predicted, rows.groups
        )
        for high in range(len(climbed))
        for low in range(high)
    }
    results = [_result(i, climbed, rows, differences) for i in range(len(climbed))]
    better = [
        {
            "rung": climbed[high].name, "than": climbed[low].name, "difference": one.difference,
            "interval": None if one.interval is None else list(one.interval), "p": one.p,
        }
        for (high, low), one in differences.items()
        if is_better(one)
    ]  # fmt: skip
    return results, climbed[stop_at(len(climbed), differences)].name, better


def is_better(difference: Difference) -> bool:
    """Whether the first is significantly better."""
    return difference.difference > 0 and not difference.within_noise


def stop_at(rungs: int, differences: dict[tuple[int, int], Difference]) -> int:
    """The lowest of n > 0 rungs after which none is significantly better. differences: (higher, lower) -> their own."""
    return next(low for low in range(rungs) if not any(is_better(differences[i, low]) for i in range(low + 1, rungs)))


def _result(
    i: int, climbed: Sequence[Climbed], rows: CommonRows, differences: dict[tuple[int, int], Difference]
) -> RungResult:
    one, found = climbed[i], climbed[i].found[0]
    kind = kind_of(rows.data.kind)
    y = rows.y.astype(np.int64) if kind.has_classes else rows.y
    scores = [json_number(measure_all(kind.name, y, predicted)[kind.main]) for predicted in one.predicted]
    score = _mean(scores)
    below = next((j for j in range(i - 1, -1, -1) if climbed[j].encoder in (None, one.encoder)), None)
    gain = None if below is None else differences[i, below]
    return RungResult(
        name=one.name,
        rung=found["rung"],
        encoder=one.encoder,
        trained=found["trained"],
        parameters=max(each["parameters"] for each in one.found),
        metric=kind.main,
        test_score=score,
        test_accuracy=score if kind.main == "accuracy" else None,
        interval=score_interval(kind.main, y, one.predicted, rows.groups),
        seeds=one.seeds,
        scores=scores,
        below=None if below is None else climbed[below].name,
        gain=None if gain is None else json_number(gain.difference),
        gain_interval=None if gain is None else gain.interval,
        p_over_previous=None if gain is None else gain.p,
        seconds_once=one.once,
        seconds=float(np.mean([each["seconds"] for each in one.found])),
        seconds_of_seeds=[float(each["seconds"]) for each in one.found],
        predicted_seconds=one.planned,
        peak_memory=max((each["peak_memory"] for each in one.found if each["peak_memory"]), default=None),
        disk=found["disk"],
        predictions_per_second=_mean([each["predictions_per_second"] for each in one.found]),
        load=_mean([each["load"] for each in one.found]),
        run=found.get("run"),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
