"""Heads trained again on the labels of a moment, in a second: what they say of every row, and how good they are.

A committee: the labelled rows are cut into folds, a linear probe for each fold and learning rate is trained in one bank
of the engine; validation chooses the learning rate by the score, and each probe's epoch by the loss. The mean of the
folds' log-probabilities speaks; of a labelled row only the fold that has not seen it. So everything that is said of a
row is out of sample, and the validation score is of every label given, not of a tenth of them. Probes are standardized
by all rows, with a label or not. With 50 to 2,000 labels this is as good as, or better than, logistic regression with
the same vectors (docs/active_learning.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedcache.active_learning.snapshot import Snapshot
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.spec import head_grid, weight_names
from embedcache.heads.task import standardize_stats
from embedcache.heads.train import train_bank
from embedcache.runs.calibration import fit_temperature
from embedcache.runs.data import Data, make_task
from embedcache.runs.intervals import Difference, score_difference, score_interval
from embedcache.runs.scores import measure_all
from embedcache.runs.split import Split, make_folds

FEWEST = 10  # labelled rows
FOLDS = 5
RATES = (1e-4, 3e-4, 1e-3, 3e-3)  # learning rates
BATCH = 32
STEPS = 600  # of a head at least, unless it stops early
EPOCHS = 8, 200  # the fewest, the most
PATIENCE = 3  # epochs without a better one, or a fifth of all
STATISTICS_ROWS = 20_000  # rows that the standardization is computed of


@dataclass(frozen=True)
class MeasuredScore:
    """A score on some rows, with its 95% interval (None where so few rows give none)."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        interval = None if self.interval is None else list(self.interval)
        return {"metric": self.metric, "value": self.value, "interval": interval, "rows": self.rows}


@dataclass(frozen=True)
class Retrained:
    """What heads that were trained on a snapshot say of all N rows.

    Attributes:
        head: the committee's mean, one linear probe.
        outputs: float32 [N, C], logits (of a regression the values); of a learned row by heads that have not seen it.
        temperature: by which the outputs are divided for probabilities, fitted on the learned rows.
        spread: float32 [N], how far the committee's values are apart; of a regression alone.
        learned: int64 [n], the rows that were learned from, ascending.
        validation: the score over all labels given; chance: over those of rows that were drawn by chance, which holds
            for all rows, where ``validation`` is of rows that were chosen because they are hard.
        test: the score over the test rows. None where there are no such rows.
    """

    kind: str
    head: TrainedHead
    outputs: np.ndarray
    temperature: float
    spread: np.ndarray | None
    learned: np.ndarray
    validation: MeasuredScore
    chance: MeasuredScore | None
    test: MeasuredScore | None
    engine: str
    seconds: float

    @property
    def proba(self) -> np.ndarray:
        """Probabilities float32 [N, C]. Raises EmbedcacheError for a regression, which has none."""
        return kind_of(self.kind).probabilities(self.outputs / np.float32(self.temperature))

    def proba_of(self, classes: Sequence[str]) -> np.ndarray:
        """Probabilities float32 [N, C] by the names of classes; 0 for those that were not known then."""
        known = list(self.head.classes or ())
        found = np.zeros((len(self.outputs), len(classes)), np.float32)
        both = [(place, known.index(name)) for place, name in enumerate(classes) if name in known]
        found[:, [place for place, _ in both]] = self.proba[:, [place for _, place in both]]
        return found

    def gain_over(self, before: Retrained, now: Snapshot) -> Difference | None:
        """This score less that of heads trained before, on the same test rows; None where none are labelled."""
        rows, kind = now.tested, kind_of(self.kind)
        if not len(rows):
            return None
        said = [one.proba_of(now.classes) if kind.has_classes else one.outputs for one in (self, before)]
        return score_difference(kind.main, now.y[rows], *(kind.decide_by_probability(one[rows]) for one in said))


def why_not(snapshot: Snapshot) -> str | None:
    """What is missing before heads can be trained, in words; None where nothing is."""
    rows, kind = snapshot.learned, kind_of(snapshot.kind)
    if len(rows) < FEWEST:
        return f"{len(rows):,} rows have a label: heads can be trained from {FEWEST} on"
    y = snapshot.y[rows]
    if kind.exclusive and np.count_nonzero(np.bincount(y) > 1) < 2:
        return "label two rows or more of a second class: heads tell classes apart"
    if not kind.exclusive and (y == y[0]).all():
        return "all labels are the same: heads have nothing to tell apart"
    return None


def retrain(
    snapshot: Snapshot,
    *,
    seed: int = 0,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Retrained:
    """Train heads on the labels of a snapshot.

    Raises:
        EmbedcacheError: there are too few labels, or all are the same; ``why_not`` says so before.
    """
    start = time.perf_counter()
    if (reason := why_not(snapshot)) is not None:
        raise EmbedcacheError(reason)
    folds = _folds(snapshot, seed)
    specs = head_grid(hidden=0, lr=RATES, seed=seed)
    steps = -(-len(snapshot.learned) * (FOLDS - 1) // (FOLDS * BATCH))
    epochs = min(max(-(-STEPS // steps), EPOCHS[0]), EPOCHS[1])
    data = Data(snapshot.pool.x, snapshot.y, list(snapshot.classes), None, "label", "", -1, snapshot.kind)
    mean, inv_std = standardize_stats(data.x, _statistics_rows(snapshot))
    tasks = [replace(make_task(data, side, False, "none"), mean=mean, inv_std=inv_std) for side in folds]
    bank = train_bank(
        tasks,
        [(spec, fold) for spec in specs for fold in range(FOLDS)],
        batch_size=BATCH,
        epochs=epochs,
        early_stop=max(PATIENCE, epochs // 5),
        engine=engine,
        device=device,
        threads=threads,
        progress=progress,
    )
    if bank.cancelled:
        raise KeyboardInterrupt
    heads = _best(snapshot, [bank.heads[i : i + FOLDS] for i in range(0, len(bank.heads), FOLDS)], folds)
    return _judged(snapshot, heads, folds, bank.engine, start)


def _folds(snapshot: Snapshot, seed: int) -> list[Split]:
    """Folds of the learned rows, those of one group in one of them."""
    exclusive = kind_of(snapshot.kind).exclusive
    codes = np.full(len(snapshot.y), -1, np.int64)
    codes[snapshot.learned] = snapshot.y[snapshot.learned] if exclusive else 0
    keys = np.zeros((len(codes), 16), np.uint8)
    keys[:, :8] = snapshot.pool.group.astype("<i8")[:, None].view(np.uint8)
    return make_folds(codes, keys, folds=FOLDS, stratify=exclusive, seed=seed)


def _statistics_rows(snapshot: Snapshot) -> np.ndarray:
    rows = np.flatnonzero(snapshot.pool.usable)
    step = -(-len(rows) // STATISTICS_ROWS)
    return rows[::step]


def _best(
    snapshot: Snapshot, committees: Sequence[Sequence[TrainedHead]], folds: Sequence[Split]
) -> Sequence[TrainedHead]:
    """The committee with the best score over all labels, as people are shown it; of equal ones that of the lowest loss.

    By the loss alone the quickest would win where labels are wrong and a class is rare: slow probes have small logits
    by now, hence a high loss, although they decide better.
    """
    weight = [len(side.val) for side in folds]
    losses = [float(np.average([head.val_loss for head in heads], weights=weight)) for heads in committees]
    finite = [place for place, loss in enumerate(losses) if np.isfinite(loss)]
    if not finite:
        raise EmbedcacheError("every head diverged: are the vectors of very unlike sizes?")
    rows = np.concatenate([side.val for side in folds])

    def rank(place: int) -> tuple[float, float]:
        said = zip(committees[place], folds, strict=True)
        outputs = np.concatenate([head.logits(snapshot.pool.x[side.val]) for head, side in said])
        return _score(snapshot, outputs, rows), -losses[place]

    return committees[max(finite, key=rank)]


def _judged(
    snapshot: Snapshot, heads: Sequence[TrainedHead], folds: Sequence[Split], engine: str, start: float
) -> Retrained:
    """What the committee says of all rows, and how good it is."""
    x, kind, learned = snapshot.pool.x, kind_of(snapshot.kind), snapshot.learned
    # The mean of linear probes is one: softmax of mean logits is the normalized mean of log-probabilities.
    mean = {name: np.stack([head.weights[name] for head in heads]).mean(axis=0) for name in weight_names(0)}
    head = replace(heads[0], weights=mean, classes=list(snapshot.classes), history={})
    outputs = head.logits(x)
    spread = None
    if not kind.has_classes:
        each = np.stack([one.logits(x)[:, 0] for one in heads])
        spread = each.std(axis=0)
    for one, side in zip(heads, folds, strict=True):
        outputs[side.val] = one.logits(x[side.val])
    temperature = fit_temperature(snapshot.y[learned], outputs[learned], kind.name) if kind.has_classes else None
    return Retrained(
        kind=kind.name,
        head=head,
        outputs=outputs,
        temperature=temperature or 1.0,
        spread=spread,
        learned=learned,
        validation=_measured(snapshot, outputs, learned),
        chance=_measured(snapshot, outputs, learned[snapshot.chance[learned]]),
        test=_measured(snapshot, outputs, snapshot.tested),
        engine=engine,
        seconds=time.perf_counter() - start,
    )


def _measured(snapshot: Snapshot, outputs: np.ndarray, rows: np.ndarray) -> Any:
    """The score that people ask for first, on some rows; None without any."""
    if not len(rows):
        return None
    kind = kind_of(snapshot.kind)
    interval = score_interval(kind.main, snapshot.y[rows], kind.decide(outputs[rows]))
    return MeasuredScore(kind.main, _score(snapshot, outputs[rows], rows), interval, len(rows))


def _score(snapshot: Snapshot, outputs: np.ndarray, rows: np.ndarray) -> float:
    """The same of outputs for these rows alone, [rows, C]."""
    kind = kind_of(snapshot.kind)
    return measure_all(kind.name, snapshot.y[rows], kind.decide(outputs))[kind.main]
