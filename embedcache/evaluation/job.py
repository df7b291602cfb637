"""The job of evaluate: runs and rows with gold labels in, scores with intervals out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.evaluation.baselines import Predicted, baselines_of
from embedcache.evaluation.curves import class_curves, confidence_curve
from embedcache.evaluation.gold import Gold, read_cache, read_table
from embedcache.evaluation.report import BaselineScores, EvaluationReport, RunScores, ScoreValue
from embedcache.evaluation.targets import Aligned, align
from embedcache.evaluation.trained import Learnt, group_column, learnt_by
from embedcache.heads.arrays import json_number
from embedcache.heads.kinds import kind_of
from embedcache.labelling.opened import notes_of
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.rows import is_cache
from embedcache.runs.calibration import probabilities
from embedcache.runs.folder import Run, load_run
from embedcache.runs.hierarchy import Hierarchy, NodePath, path_of
from embedcache.runs.intervals import score_difference, score_interval
from embedcache.runs.level_scores import score_levels
from embedcache.runs.metrics import evaluate as measure
from embedcache.runs.mistakes import Judged, find_mistakes
from embedcache.tables.rows import column_names, text_column
from embedcache.tables.stream import stored

NAMED = 5  # labels in a note


def evaluate(
    runs: str | Path | Sequence[str | Path],
    data: Any,
    *,
    label: str | None = None,
    labels: str | Path | None = None,
    output: str | Path | None = None,
    text: str | None = None,
    group: str | None = None,
    where: str | Sequence[str] = (),
    unseen: bool = False,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    baselines: bool = True,
    model: str | Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Score runs on rows whose labels are known: a table, which is encoded, or a cache, which is not.

    Args:
        runs: one run folder or several, which are then compared on the same rows.
        data: a table of any kind that extract reads, or a cache of the runs' encoder.
        label: the column of gold labels. None: that of the first run's own label column. A run of several label columns
            is scored by its column of that name.
        labels: of a cache, a journal of labels that people gave, over its own; "none"; None: that beside it, if any.
        output: an HTML page to write.
        text: the table's column of texts; None is the one called as in the first run's cache, where there is one, else
            "text".
        group: a column; rows with one value are one observation for the intervals.
        where: of a cache, only rows that meet these conditions, as in search.
        unseen: leave out the rows whose text a run has learned from, or whose group where it was split by groups.
        encoding: of a text file.
        separator: between the cells of a .csv or .tsv; None means as the file shows.
        sheet: of a workbook, or the table of a database; None means the first, or the only one.
        baselines: also train TF-IDF and a linear model on each run's training rows (its cache must be there).
        model: the encoder's folder, where it has moved.
        device: "auto", "cpu" or "cuda[:N]", of the encoder.
        trust_remote_code: run Python code that comes with the encoder.
        progress: counts characters of a table that is encoded, and its rows.

    Returns:
        Scores with 95% intervals, errors, and the differences between models on the same rows.

    Raises:
        EmbedcacheError: no such run, column or data; gold labels of another kind than a run predicts; vectors of
            another encoder; nothing left to score.
    """
    start = time.perf_counter()
    named = [runs] if isinstance(runs, (str, Path)) else list(runs)
    loaded = {str(path): load_run(path) for path in named}
    if len(loaded) < len(named) or not named:
        raise EmbedcacheError("name at least one run" if not named else "a run is named twice: name each once")
    label = label if label is not None else next(iter(next(iter(loaded.values())).columns))
    columns = {path: _column(run, path, label) for path, run in loaded.items()}

    def classifier(run: Run) -> Classifier:
        path = next(path for path, column in columns.items() if column is run)
        return Classifier.load(path, device, model=model, trust_remote_code=trust_remote_code, encode=True)

    reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "sheet": sheet}
    conditions = [where] if isinstance(where, str) else list(where)
    also = list(dict.fromkeys(name for run in columns.values() for name in _columns_beside(run)))
    if is_cache(data):
        gold = read_cache(data, label, group, conditions, also, labels)
    else:
        if conditions:
            raise EmbedcacheError("--where is for a cache; a table is scored whole")
        if labels is not None:
            raise EmbedcacheError("--labels is for a cache; a table is scored by its own labels")
        with stored(data) as table:
            every = list(columns.values())
            name = text_column(text, every[0].text_column, partial(column_names, table, **reading))
            gold = read_table(table, label, group, name, classifier, progress, also, every, **reading)
    seen = {path: learnt_by(run, gold.hashes, gold.columns) for path, run in columns.items()}
    gold, seen, left_out = _unseen(gold, seen) if unseen else (gold, seen, 0)
    scored = [_Scored(path, run, gold, seen[path], label, baselines) for path, run in columns.items()]
    report = EvaluationReport(
        source=gold.source,
        label=label,
        group=group,
        rows=len(gold.labels),
        unlabelled=gold.unlabelled,
        left_out=left_out,
        groups=None if gold.units is None else len(np.unique(gold.units)),
        runs=[one.scores() for one in scored],
        comparisons=[line for one in scored for line in one.against_baselines()],
        notes=[],
        labels_from=gold.labels_from,
    )
    for first, second in combinations(scored, 2):
        report.comparisons += _compare(first, second)
    cut = dict.fromkeys(note for read in gold.readings for note in read.notes(advise=False))
    report.notes = [*notes_of(gold.labels_from), *_notes(report, scored), *cut]
    report.seconds = time.perf_counter() - start
    if output is not None:
        from embedcache.evaluation.page import write_page

        report.output = str(output)
        write_page(report, Path(output))
    return report


def _column(run: Run, path: str, label: str) -> Run:
    """The column of a run that predicts ``label``; the only one, whatever it is called."""
    if label in run.columns:
        return run.columns[label]
    if len(run.columns) == 1:
        return next(iter(run.columns.values()))
    raise EmbedcacheError(f"{path} has no label column {label!r}: name one that it has, {', '.join(run.columns)}")


def _columns_beside(run: Run) -> list[str]:
    """What is read of the rows where it is there: the column of groups, the upper levels of a hierarchy."""
    hierarchy, group = Hierarchy.of(run.info), group_column(run)
    upper = () if hierarchy is None or hierarchy.separator is not None else hierarchy.levels[:-1]
    return [*upper, *([] if group is None else [group])]


def _unseen(gold: Gold, seen: dict[str, Learnt]) -> tuple[Gold, dict[str, Learnt], int]:
    """The rows that no run has learned from, and how many were left out."""
    learnt = np.zeros(len(gold.labels), bool)
    for path, one in seen.items():
        if one.any is None:
            raise EmbedcacheError(f"--unseen: {path} does not say which rows it was trained on: train it again")
        learnt |= one.any
    if learnt.all():
        what = "text" if all(one.groups is None for one in seen.values()) else "text or its group"
        raise EmbedcacheError(f"--unseen leaves nothing of {gold.source}: every {what} in it was trained on")
    left = int((~learnt).sum())
    return gold.keep(~learnt), {path: one.none_of(left) for path, one in seen.items()}, int(learnt.sum())


class _Scored:
    """One run on the rows."""

    def __init__(self, path: str, run: Run, gold: Gold, learnt: Learnt, label: str, baselines: bool) -> None:
        self.path, self.run, self.gold, self.learnt = path, run, gold, learnt
        vectors = gold.vectors(run)
        self.aligned: Aligned = align(gold.labels, run.best.logits(vectors), run, gold.source, label)
        self.baselines: dict[str, Predicted] = {}
        if baselines:
            self.baselines = baselines_of(run, gold.texts, vectors, self.aligned)

    @property
    def kind(self) -> str:
        return self.aligned.kind

    def scores(self) -> RunScores:
        """Everything about this run."""
        aligned, info = self.aligned, self.run.info
        temperature = info.get("best", {}).get("temperature")
        found = measure(aligned.y, aligned.outputs, aligned.names, aligned.kind, temperature=temperature)
        evaluation = found.to_dict()
        if aligned.unknown:  # a label that is never predicted has no probability to be judged by
            evaluation |= dict.fromkeys(("loss", "calibration", "calibration_scaled"))
        if (hierarchy := Hierarchy.of(info)) is not None:
            tree = hierarchy.extended([self._path(hierarchy, name) for name in aligned.unknown])
            how: dict[str, Any] = {"interval": True, "groups": self.gold.units}
            evaluation |= score_levels(tree, aligned.y, aligned.predicted, **how).to_dict()
        scores = RunScores(
            run=self.path,
            column=str(info.get("label", "label")),
            kind=aligned.kind,
            classes=self.run.classes,
            rows=len(aligned.y),
            trained=None if self.learnt.texts is None else int(self.learnt.texts.sum()),
            trained_groups=self.learnt.groups_report(),
            unknown=aligned.unknown,
            scores=self._with_intervals(found.scores, aligned.predicted),
            evaluation=evaluation,
            mistakes=self._mistakes(),
        )
        for name, one in self.baselines.items():
            known = {} if one.predicted is None else self._with_intervals(one.scores(aligned), one.predicted)
            scores.baselines[name] = BaselineScores(known, one.note)
        if kind_of(aligned.kind).has_classes:
            self._add_curves(scores)
        return scores

    def _path(self, hierarchy: Hierarchy, name: str) -> NodePath:
        """Where a class that the run has not learned stands, as far as the rows say it."""
        if hierarchy.separator is not None:
            return path_of(name, hierarchy.separator)
        row = self.gold.labels.index(name)
        upper = [self.gold.columns[level][row] for level in hierarchy.levels[:-1] if level in self.gold.columns]
        return (*upper, name) if len(upper) + 1 == len(hierarchy.levels) else (f"{name} (not learned)",)

    def _with_intervals(self, values: dict[str, float], predicted: np.ndarray) -> dict[str, ScoreValue]:
        scores = {}
        for name, value in values.items():
            if name == "loss" and self.aligned.unknown:
                continue
            interval = None
            if name in kind_of(self.kind).measured:
                interval = score_interval(name, self.aligned.y, predicted, self.gold.units)
            scores[name] = ScoreValue(json_number(value), interval)
        return scores

    def _add_curves(self, scores: RunScores) -> None:
        aligned = self.aligned
        proba = probabilities(aligned.outputs.astype(np.float64), aligned.kind)
        truth = aligned.y > 0
        if kind_of(aligned.kind).exclusive:
            scores.confidence = confidence_curve(aligned.predicted == aligned.y, proba.max(axis=1))
            truth = aligned.y[:, None] == np.arange(len(aligned.names))
        known = len(self.run.classes)
        scores.curves = class_curves(truth[:, :known], proba[:, :known], self.run.classes)

    def _mistakes(self) -> list[dict[str, Any]]:
        aligned, gold = self.aligned, self.gold
        judged = Judged(np.arange(len(aligned.y)), aligned.y, aligned.outputs)
        found = find_mistakes(judged, aligned.names, aligned.kind, gold.hashes)
        return [{**one, "row": int(gold.places[one["row"]]), "text": gold.texts[one["row"]]} for one in found]

    def against_baselines(self) -> list[dict[str, Any]]:
        """The differences to every baseline."""
        return [
            line
            for name, one in self.baselines.items()
            if one.predicted is not None
            for line in self._differences(self.aligned.predicted, one.predicted, name)
        ]

    def _differences(self, first: np.ndarray, second: np.ndarray, name: str) -> list[dict[str, Any]]:
        return [
            {
                "first": self.path,
                "second": name,
                **score_difference(metric, self.aligned.y, first, second, self.gold.units).to_dict(),
            }
            for metric in kind_of(self.kind).measured
        ]


def _compare(first: _Scored, second: _Scored) -> list[dict[str, Any]]:
    """Two runs on the same rows; nothing where they predict different kinds of things."""
    if first.kind != second.kind:
        return []
    predicted = second.aligned.predicted
    kind = kind_of(first.kind)
    if kind.has_classes:  # the second's codes in those of the first
        names = [*first.aligned.names, *(name for name in second.aligned.names if name not in first.aligned.names)]
        place = np.array([names.index(name) for name in second.aligned.names])
        if kind.exclusive:
            predicted = place[predicted]
        else:
            spread = np.zeros((len(predicted), len(names)), predicted.dtype)
            spread[:, place] = predicted
            predicted = spread
    y, mine = first.aligned.y, first.aligned.predicted
    if y.ndim == 2 and predicted.shape[1] > y.shape[1]:
        more = ((0, 0), (0, predicted.shape[1] - y.shape[1]))
        y, mine = np.pad(y, more), np.pad(mine, more)
    return [
        {
            "first": first.path,
            "second": second.path,
            **score_difference(metric, y, mine, predicted, first.gold.units).to_dict(),
        }
        for metric in kind.measured
    ]


def _notes(report: EvaluationReport, scored: Sequence[_Scored]) -> list[str]:
    """What a person should know before trusting the numbers, one line each."""
    notes = []
    if report.unlabelled:
        notes.append(f"rows left out, because they have no label in {report.label!r}: {report.unlabelled:,}")
    if report.left_out:
        notes.append(f"rows left out, because a run was trained on their text or group: {report.left_out:,}")
    for one, run in zip(scored, report.runs, strict=True):
        notes += _learnt(one, report.source)
        if run.unknown:
            rows = sum(run.unknown.values())
            listed = ", ".join(repr(name) for name in list(run.unknown)[:NAMED])
            more = f" and {len(run.unknown) - NAMED:,} more" if len(run.unknown) > NAMED else ""
            notes.append(f"labels that {run.run} has not learned, so their {rows:,} rows are wrong: {listed}{more}")
        if kind_of(one.kind).exclusive and (never := _never(run)):
            notes.append(f"{run.run} never predicts {never} here")
        scaled, plain = (run.evaluation.get(name) for name in ("calibration_scaled", "calibration"))
        if scaled and plain and scaled["ece"] > plain["ece"]:
            notes.append(
                f"{run.run}: its temperature makes the calibration error larger on these rows, {plain['ece']:.3f} to "
                f"{scaled['ece']:.3f}: leave --calibrated out"
            )
    return notes


def _learnt(one: _Scored, source: str) -> Iterator[str]:
    """What a run has seen of the rows before."""
    learnt, rows = one.learnt, len(one.gold.labels)
    if learnt.any is None:
        yield f"{one.path} does not record which texts it was trained on: make sure that these rows are not theirs"
        return
    parts = {"the texts": learnt.texts, f"the groups ({learnt.column})": learnt.groups}
    counts = [f"{what} of {int(which.sum()):,}" for what, which in parts.items() if which is not None and which.any()]
    if counts:
        yield (
            f"{one.path} was trained on {' and on '.join(counts)} of these {rows:,} rows ({learnt.any.mean():.0%} in "
            "all), so its scores flatter it: --unseen leaves such rows out"
        )
    if learnt.column is not None and learnt.groups is None:
        yield (
            f"{one.path} was split by {learnt.column!r}, and {source} has no such column: whether it was "
            "trained on the same groups is unknown"
        )


def _never(run: RunScores) -> str:
    """Classes with rows that are never predicted."""
    if run.confusion is None:
        return ""
    matrix = np.array(run.confusion["matrix"])
    there = (matrix.sum(axis=1) > 0) & (matrix.sum(axis=0) == 0)
    names = [name for name, gone in zip(run.confusion["labels"], there, strict=True) if gone]
    return ", ".join(repr(name) for name in names if name not in run.unknown)
