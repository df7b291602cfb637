"""When a label is given: from which probability on, and to which rows none, because the run does not know.

A row is refused a label for one of two reasons. It is ``unsure`` where the probability that its labels are right,
calibrated by the temperature, is below a limit; ``unfamiliar`` where it lies farther from the training rows than 95 of
100 validation rows do. What is kept then, and how much of it is right, is measured on the validation rows: a promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import Kind, kind_of
from embedcache.prediction.levels import ClassTree, tree_of
from embedcache.runs.calibration import probabilities
from embedcache.runs.calibration_set import FILE, CalibrationSet, Familiar, read_calibration_set
from embedcache.runs.folder import Run, read_file
from embedcache.runs.intervals import score_interval
from embedcache.runs.scores import title
from embedcache.runs.thresholds import MAX_THRESHOLDS

TUNED, AUTO = "tuned", "auto"
REASONS = ("", "unsure", "unfamiliar")  # the first: it has a label
FAMILIAR = 0.95  # share of the validation rows that are not unfamiliar
FEWEST = 20  # validation rows that "auto" keeps
Threshold = float | str | None  # TUNED, or a probability
Reject = float | str | None  # AUTO, or a probability


@dataclass(frozen=True)
class Promise:
    """What the validation rows say of rows like them.

    Attributes:
        rows: of validation. groups: of which they are, None without --group.
        kept: the share that gets a label, with its 95% interval.
        accuracy: the share of these that is right, with its interval; None where none is kept.
        accuracy_of_all: the same without refusing any.
    """

    rows: int
    groups: int | None
    kept: float
    kept_interval: tuple[float, float] | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    accuracy_of_all: float


@dataclass(frozen=True)
class Rule:
    """How the probabilities of one label column become labels.

    Attributes:
        kind: of task.
        cuts: float64 [C], see Kind.decide_by_probability; None is one half.
        tuned: the thresholds of run.json, where these were asked for.
        least: the probability below which a row is unsure; None where no row is refused.
        familiar, farthest: a row is unfamiliar where its distance is above ``farthest``; None where none is known.
        promise: where rows are refused.
        tree: of the classes, where they have a hierarchy.
    """

    kind: Kind
    cuts: np.ndarray | None = None
    tuned: Sequence[dict[str, Any]] = ()
    least: float | None = None
    familiar: Familiar | None = None
    farthest: float | None = None
    promise: Promise | None = None
    tree: ClassTree | None = None

    @property
    def refuses(self) -> bool:
        """Whether a row may stay without a label."""
        return self.least is not None or (self.tree is not None and self.tree.sure is not None)

    def decide(self, p: np.ndarray) -> np.ndarray:
        """Of probabilities [n, C], or values."""
        return self.kind.decide_by_probability(p, self.cuts)

    def reasons(self, p: np.ndarray, vectors: np.ndarray) -> np.ndarray | None:
        """int8 [n], the place in REASONS, of probabilities [n, C] and vectors [n, D]; None where none is refused."""
        if self.tree is not None and self.tree.sure is not None:
            return (self.tree.answers(p, self.decide(p))[0] < 0).astype(np.int8)
        if self.least is None:
            return None
        found = (self.kind.confidence(p, self.decide(p)) < self.least).astype(np.int8)
        if self.familiar is not None:
            found[self.familiar.distances(vectors) > self.farthest] = 2
        return found

    def to_dict(self) -> dict[str, Any]:
        """What --json prints of it; {} of one that changes nothing."""
        document: dict[str, Any] = {}
        if self.cuts is not None:
            document["thresholds"] = self.cuts.tolist()
        if self.least is not None:
            document["reject"] = {"below": self.least, "distance_above": self.farthest}
            document["promise"] = self.promise and asdict(self.promise)
        return document | (self.tree.to_dict() if self.tree else {})

    def notes(self, classes: Sequence[str]) -> list[str]:
        """What was chosen, and what it is worth."""
        return [*self._threshold_notes(classes), *self._reject_notes(), *(self.tree.notes() if self.tree else [])]

    def _threshold_notes(self, classes: Sequence[str]) -> list[str]:
        if self.cuts is None:
            return []
        if self.kind.exclusive:
            chosen = f"{classes[1]!r} from a probability of {self.cuts[1]:.3f} on, else {classes[0]!r}"
        elif len(set(self.cuts.tolist())) == 1:
            chosen = f"every label from a probability of {self.cuts[0]:.3f} on"
        else:
            chosen = f"each label from a probability of its own on, {self.cuts.min():.3f} to {self.cuts.max():.3f}"
        return [chosen + (f" ({_worth(self.tuned)})" if self.tuned else "")]

    def _reject_notes(self) -> list[str]:
        one = self.promise
        if one is None:
            return []
        far = f" or the text farther from the training rows than {FAMILIAR:.0%} of these" if self.familiar else ""
        among = f"the {one.rows:,} validation rows" + (f" ({one.groups:,} groups)" if one.groups else "")
        said = f"no label where the calibrated probability is below {self.least:.3f}{far}; of {among} "
        said += f"{one.kept:.1%}{_within(one.kept_interval)} keep theirs"
        if one.accuracy is not None:
            said += f", and {one.accuracy:.1%}{_within(one.accuracy_interval)} of those are right"
        said += f" ({one.accuracy_of_all:.1%} of all)"
        known = [] if self.familiar is not None else ["a tuned run knows no distance to its training rows"]
        return [said, *known]


def _worth(tuned: Sequence[dict[str, Any]]) -> str:
    """The scores at the thresholds and at 1/2; of several labels their means."""
    metric = str(tuned[0].get("metric", "f1"))
    called = title(metric) if "metric" in tuned[0] else "mean F1"
    sides = []
    for side, rows in (("val", "validation"), ("test", "test")):
        name = f"{side}_{metric}"
        if pairs := [(one[f"{name}_at_half"], one[name]) for one in tuned if one.get(name) is not None]:
            before, after = np.mean(np.array(pairs, np.float64), axis=0)
            sides.append(f"{before:.4f} at 1/2 and {after:.4f} there on the {rows} rows")
    alike = [one["threshold"] for one in tuned if one.get("shared")]
    few = f"; {len(alike):,} of {len(tuned):,} labels, with few validation rows, share {alike[0]:.3f}" if alike else ""
    return f"tuned on the validation rows: {called} {', '.join(sides)}{few}"


def _within(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.1%} to {interval[1]:.1%})"


def make_rules(
    run: Run, threshold: Threshold, reject: Reject, temperatures: dict[str, float], sure: float | None = None
) -> dict[str, Rule]:
    """The rule of each label column.

    Args:
        run: A run.
        threshold: TUNED; a probability of the second of two classes, or of every label of several; None is one half.
        reject: The probability below which no label is given; AUTO takes the one that halves the errors, at least, of
            the validation rows; None gives every row a label.
        temperatures: By which the probabilities are calibrated, by column.
        sure: Of a hierarchy, the probability that the deepest answer must have; None is a class for every row.

    Raises:
        EmbedcacheError: A number that is no probability; no column of the run has such a threshold, probabilities or
            levels; its validation rows are not known.
    """
    for option, value, word in (("--threshold", threshold, TUNED), ("--reject", reject, AUTO)):
        if value is not None and value != word and not _is_probability(value):
            raise EmbedcacheError(f"{option} {value}: give a number between 0 and 1, or {word}")
    if sure is not None and (not _is_probability(sure) or threshold is not None or reject is not None):
        other = "--threshold" if threshold is not None else "--reject" if reject is not None else None
        wrong = "give a number between 0 and 1" if other is None else f"leave it or {other} out"
        raise EmbedcacheError(f"--sure {sure}: {wrong}")
    rules = {}
    for column, one in run.columns.items():
        kind = kind_of(one.best.kind)
        cuts, tuned = _cuts(one, kind, threshold, temperatures[column])
        rules[column] = Rule(kind, cuts, tuned, tree=tree_of(one, kind, sure, temperatures[column]))
        if reject is not None and kind.has_classes:
            known = read_calibration_set(read_file(one, FILE), one.path, one.info)
            rules[column] = refusing(rules[column], known, reject, temperatures[column])
    if threshold is not None and all(rule.cuts is None for rule in rules.values()):
        raise EmbedcacheError(_no_threshold(run, threshold))
    if reject is not None and all(rule.least is None for rule in rules.values()):
        raise EmbedcacheError(
            f"--reject {reject}: {run.path} predicts numbers, which have no probability: leave it out"
        )
    return rules


def _is_probability(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


def _cuts(
    run: Run, kind: Kind, threshold: Threshold, temperature: float
) -> tuple[np.ndarray | None, Sequence[dict[str, Any]]]:
    """(Kind.decide_by_probability's cuts, the run's thresholds that they are)."""
    classes = run.classes
    if threshold is None or not kind.has_classes or (kind.exclusive and len(classes) != 2):
        return None, ()
    if threshold != TUNED:
        cuts = np.full(len(classes), float(threshold))
        return (np.array([1 - cuts[1], cuts[1]]) if kind.exclusive else cuts), ()
    tuned = run.info.get("thresholds") or []
    if not tuned:
        return None, ()
    cuts = np.full(len(classes), 0.5)
    for one in tuned:
        cuts[classes.index(one["label"])] = _at_temperature(one["threshold"], temperature)
    return (np.array([1 - cuts[1], cuts[1]]) if kind.exclusive else cuts), tuned


def _at_temperature(p: float, temperature: float) -> float:
    """What a probability of two outcomes becomes where the logits are divided: a threshold stays where it is."""
    if not 0 < p < 1:
        return p
    return 1 / (1 + math.exp(-math.log(p / (1 - p)) / temperature))


def _no_threshold(run: Run, threshold: Threshold) -> str:
    fits = [one for one in run.columns.values() if kind_of(one.best.kind).has_lists or len(one.classes) == 2]
    fits = [one for one in fits if kind_of(one.best.kind).has_classes]
    if threshold == TUNED and fits:
        if all(len(one.classes) > MAX_THRESHOLDS for one in fits):
            return (
                f"--threshold tuned: {run.path} predicts {len(fits[0].classes):,} labels, and for more than "
                f"{MAX_THRESHOLDS:,} none are chosen: give a number"
            )
        return (
            f"--threshold tuned: {run.path} has no thresholds: it was trained without validation rows or by an older "
            "embedcache; train it again (--resume keeps its heads), or give a number"
        )
    return f"--threshold {threshold}: {run.path} has no column of two classes or of several labels a row: leave it out"


def refusing(rule: Rule, known: CalibrationSet, reject: float | str, temperature: float) -> Rule:
    """The same rule with limits, and what the validation rows promise of it."""
    p = probabilities(known.outputs.astype(np.float64), rule.kind.name, temperature)
    decided = rule.decide(p)
    right = (decided == known.y).reshape(len(p), -1).all(axis=1)
    sure, near, farthest = rule.kind.confidence(p, decided), np.ones(len(p), bool), None
    if known.familiar is not None:
        farthest = float(np.quantile(known.distances, FAMILIAR, method="higher"))
        near = known.distances <= farthest
    least = _halving(sure, right, near) if reject == AUTO else float(reject)
    promise = _promise(right, near & (sure >= least), known.groups)
    limits: dict[str, Any] = {"least": least, "familiar": known.familiar, "farthest": farthest, "promise": promise}
    return replace(rule, **limits)


def _halving(sure: np.ndarray, right: np.ndarray, near: np.ndarray) -> float:
    """The lowest limit at which the kept rows have half of the errors of all rows, or less.

    Where none of 20 rows or more does, the one with the fewest errors.
    """
    order = np.flatnonzero(near)[np.argsort(-sure[near], kind="stable")]
    errors = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    errors = errors[FEWEST - 1 :] if len(errors) >= FEWEST else errors[-1:]
    first = len(order) - len(errors)
    fits = np.flatnonzero(errors <= (1 - right.mean()) / 2)
    last = fits[-1] if len(fits) else int(errors.argmin())
    return 0.0 if first + last == len(order) - 1 else float(sure[order[first + last]])


def _promise(right: np.ndarray, kept: np.ndarray, groups: np.ndarray | None) -> Promise:
    every = np.ones(len(kept), np.int64)
    share = score_interval("accuracy", every, kept.astype(np.int64), groups)
    among = None if groups is None else groups[kept]
    accuracy = score_interval("accuracy", every[kept], right[kept].astype(np.int64), among) if kept.any() else None
    return Promise(
        rows=len(kept),
        groups=None if groups is None else len(np.unique(groups)),
        kept=float(kept.mean()),
        kept_interval=share,
        accuracy=float(right[kept].mean()) if kept.any() else None,
        accuracy_interval=accuracy,
        accuracy_of_all=float(right.mean()),
    )
