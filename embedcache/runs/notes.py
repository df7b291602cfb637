"""What a person should know before trusting the numbers of a run, one line each, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedcache.encoder.poolings import MODEL
from embedcache.heads.kinds import kind_of
from embedcache.heads.kinds.option import number_columns
from embedcache.runs.baselines import BASELINES
from embedcache.runs.hierarchy_labels import above_only
from embedcache.runs.leaderboard import Entry
from embedcache.runs.mistakes import Judged
from embedcache.runs.scores import title
from embedcache.runs.split import named, split_notes
from embedcache.runs.warm_start import start_note
from embedcache.runs.wording import in_words, temperature_note, worth_saying
from embedcache.tables.decimals import amounts

if TYPE_CHECKING:
    from embedcache.runs.column import Column, ColumnReport, Plan


def column_notes(
    column: Column, entries: Sequence[Entry], report: ColumnReport, judged: dict[str, Judged]
) -> list[str]:
    """Notes about one label column."""
    kind = kind_of(column.kind)
    classes = column.data.classes if kind.has_classes else []
    split, notes = column.split, []
    if split.unlabelled:
        what = "label" if kind.has_classes else "number"
        notes.append(f"rows left out, because they have no {what} in {column.label!r}: {split.unlabelled:,}")
    notes += _amounts(column, classes)
    notes += _hierarchy(column)
    notes += split_notes(split, column.data.y, classes)
    notes += _weights(column)
    if column.plan.earlier is not None:
        notes.append(start_note(column.plan.earlier, column.label, classes))
    notes += _sides(column, classes)
    notes += _heads(column, entries, report)
    if classes:
        notes += _never_predicted(judged, classes, column)
    if (said := temperature_note(report.evaluation["test"])) is not None:
        notes.append(said)
    notes += _baselines(column, report)
    return notes


def _amounts(column: Column, classes: Sequence[str]) -> Iterator[str]:
    """Classes that are rather values."""
    if amounts(classes) is not None:
        yield (
            f"the {len(classes):,} classes of {column.label!r} are numbers, and each was learned as a name, near to no "
            f"other: where they are amounts, --task {column.label}=regression learns them"
        )


def _hierarchy(column: Column) -> Iterator[str]:
    """Rows that a column of paths would learn, and columns do not."""
    asked = column.plan.hierarchy
    if asked is not None and (rows := above_only(column.cache, column.data, asked)):
        yield (
            f"{asked.option}: rows left out, with a value above {column.label!r} and none in it: {rows:,}; one "
            "column of paths, which may end on any level, would learn them"
        )


def _weights(column: Column) -> Iterator[str]:
    """What weights of rows change."""
    weight = column.data.weight
    if weight is None:
        return
    empty = int((weight[column.split.train] == 0).sum())
    left_out = f"; training rows left out by a weight of 0: {empty:,}" if empty else ""
    yield (
        f"--weight {column.plan.weight}: rows are weighed in training and in the validation loss, not in the other "
        f"scores, which count every row once{left_out}"
    )


def _sides(column: Column, classes: Sequence[str]) -> Iterator[str]:
    """Notes about the test side's classes (without one, the validation side's)."""
    y, split = column.data.y, column.split
    side, rows = ("test", split.test) if len(split.test) else ("validation", split.val)
    if not classes or not len(rows):
        return
    counts = np.bincount(y[rows], minlength=len(classes)) if y.ndim == 1 else (y[rows] > 0).sum(axis=0)
    everywhere = np.bincount(y[y >= 0], minlength=len(classes)) if y.ndim == 1 else (y > 0).sum(axis=0)
    missing = (counts == 0) & (everywhere > 0)
    if y.ndim == 1 and (counts > 0).sum() == 1:
        yield f"the {side} rows are all of one class, {named(classes, counts > 0)}: the scores say little"
    elif missing.any():
        yield f"classes without a {side} row, which the scores do not cover: {named(classes, missing)}"


def _heads(column: Column, entries: Sequence[Entry], report: ColumnReport) -> Iterator[str]:
    """Notes about the training and the choice of the head."""
    split, best, plan = column.split, report.best, column.plan
    if column.choose != plan.choose:
        what = "numbers" if plan.choose == "r2" else "classes"
        yield f"--choose {plan.choose.replace('_', '-')} is for {what}: of {column.label!r} the loss chose the head"
    diverged = sum(entry.status != "ok" for entry in entries)
    if diverged:
        yield f"heads that diverged, and are never chosen: {diverged:,} of {len(entries):,}; lower --lr"
    evaluated = sum(entry.evaluation is not None for entry in entries)
    if evaluated and evaluated < len(entries) - diverged:
        yield f"to save time, only the first {evaluated:,} heads have a calibration in leaderboard.csv"
    epochs, last = plan.settings.epochs, not plan.folds and best["best_epoch"] == plan.settings.epochs
    if best["val_loss"] is None:
        yield "no validation rows: the last epoch is kept, and the lowest training loss chose the head"
    elif last and entries[0].converged(epochs):
        yield "the best epoch was the last one: more --epochs or a higher --lr may do better"
    yield from _unfinished(entries, epochs)
    if not len(split.test) and best["val_loss"] is not None:
        yield "no test rows: the validation scores also chose the head, so they flatter it (--test 0.1)"


def _unfinished(entries: Sequence[Entry], epochs: int) -> Iterator[str]:
    """Heads whose training ended before they had learned what they could."""
    short = [entry for entry in entries if not entry.converged(epochs)]
    if not short:
        return
    which = f"{len(short):,} of {len(entries):,} heads" if len(entries) > 1 else "the head"
    chosen = ", the chosen one among them," if len(entries) > 1 and entries[0] in short else ""
    yield (
        f"{which}{chosen} had not converged: after {epochs:,} epochs the training loss was still falling, and the last "
        "epoch was the best; more --epochs with --early-stop, or a higher --lr"
    )


def _never_predicted(judged: dict[str, Judged], classes: Sequence[str], column: Column) -> Iterator[str]:
    """Classes that validation or test rows have and that the chosen head gives to none of them."""
    if not judged:
        return
    kind = kind_of(column.kind)
    guesses = np.concatenate([kind.decide(one.outputs) for one in judged.values()])
    y = np.concatenate([one.y for one in judged.values()])
    count = len(classes)
    there = np.bincount(y, minlength=count) if y.ndim == 1 else (y > 0).sum(axis=0)
    given = np.bincount(guesses, minlength=count) if y.ndim == 1 else guesses.sum(axis=0)
    never = (there > 0) & (given == 0)
    if never.any():
        on = " and ".join({"val": "validation", "test": "test"}[side] for side in judged)
        yield (
            f"classes that the chosen head never predicts on the {on} rows: {named(classes, never)}"
            f"{_more_weight(column.plan)}"
        )


def _more_weight(plan: Plan) -> str:
    """What gives rare classes more weight, of that which is not in use; a bank with numbers takes no class weights."""
    numbers = bool(number_columns(plan.task))
    options = ["--choose macro-f1"] if plan.choose != "macro_f1" else []
    if plan.class_weight != "balanced":
        options.append("--class-weight balanced" + (" in a run without the columns of numbers" if numbers else ""))
    return f"; {' or '.join(options)} gives them more weight" if options else ""


def _baselines(column: Column, report: ColumnReport) -> Iterator[str]:
    """Baselines that do better, beyond noise, by the metric that chooses; and any other metric that disagrees."""
    for one in worth_saying(report.best, report.comparisons):
        if one["difference"] < 0 and not one["within_noise"]:
            said = f"the chosen head is {in_words(one, long=True)}"
            for other in report.comparisons:
                if other["with"] == one["with"] and other["metric"] != one["metric"] and other["difference"] > 0:
                    said += f"; by {title(other['metric'])} it is better by {other['difference']:.3f}"
            yield f"{said}; try {_instead(column, one['with'])}"
    for name, scores in report.baselines.items():
        if "note" in scores:
            yield f"{BASELINES[name].called}: {scores['note']}"


def _instead(column: Column, baseline: str) -> str:
    """What may help a head that a baseline beats."""
    if instead := BASELINES[baseline].instead:
        return instead
    return "another model" if column.data.pooling in ("mean", MODEL) else "--pooling mean or another model"
