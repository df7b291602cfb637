"""The sections on how good the chosen head is: classes, thresholds, calibration; the values of a regression."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedcache.common.label_names import visible
from embedcache.common.screen import number
from embedcache.heads.kinds import kind_of
from embedcache.report import plots
from embedcache.report.blocks import Figure, FigureRow, Grid, Matrix, Paragraph, Section, count
from embedcache.runs.column import ColumnReport
from embedcache.runs.level_scores import HIERARCHICAL_F1
from embedcache.runs.scores import scores_of, title

TABLED = 20  # classes up to which the confusion matrix is a table; above, a picture
NAMED = 6  # classes whose names stand above the columns; above, their numbers
SHORT = 12  # characters of such a name
LISTED = 100  # classes in the table of classes; above, the best and the worst
MOST_THRESHOLDS = 100  # labels whose thresholds are shown
CONFUSIONS = 20


def evaluation_sections(report: ColumnReport, info: dict[str, Any], rows: dict[str, str], prefix: str) -> list[Section]:
    """rows: how the rows of "val" and "test" are called."""
    sides = [side for side in ("test", "val") if report.evaluation[side]]
    if not sides:
        return []
    kind = kind_of(report.kind)
    if not kind.has_classes:
        return [Section("Predicted and true", "values", _values(report, info, rows, prefix))]
    first = sides[0]
    blocks: list[Any] = []
    for side in sides if report.split.get("folds") else [first]:  # out of fold there are more rows than in the test
        blocks += _levels(report, side, rows)
        blocks += [*_per_class(report, side, rows), *_confusion(report, side, rows, f"{prefix}{side}-")]
    blocks += _thresholds(info, rows)
    return [
        Section(kind.outputs.capitalize(), kind.outputs, blocks),
        Section("Calibration", "calibration", _calibration(report, first, rows, prefix)),
    ]


def _per_class(report: ColumnReport, side: str, rows: dict[str, str]) -> list[Any]:
    evaluation = report.evaluation[side]
    assert evaluation is not None
    kind = kind_of(report.kind)
    title = kind.output
    numbered = list(enumerate(evaluation["per_class"], 1))
    which = ""
    if len(numbered) > LISTED:
        there = sorted((pair for pair in numbered if pair[1]["support"]), key=lambda pair: -pair[1]["f1"])
        if len(there) > LISTED:
            which = f"; the {LISTED // 2} best and the {LISTED // 2} worst of {len(there):,}"
            there = [*there[: LISTED // 2], *there[-LISTED // 2 :]]
        numbered = there
    body = [
        [i, visible(one["label"]), *(number(one[key]) for key in ("precision", "recall", "f1")), count(one["support"])]
        for i, one in numbered
    ]
    overall = [f"{rows[side]}: accuracy {number(evaluation['accuracy'])}", f"macro F1 {number(evaluation['macro_f1'])}"]
    if not kind.exclusive:
        overall[0] = f"{rows[side]}: rows with every label right {number(evaluation['accuracy'])}"
        overall.append(f"micro F1 {number(evaluation.get('micro_f1'))}")
    caption = f"The chosen head on {evaluation['rows']:,} {rows[side]}{which}"
    return [
        Paragraph(f"{', '.join(overall)[0].upper()}{', '.join(overall)[1:]}."),
        Grid(caption, ("no.", title, "precision", "recall", "F1", "rows"), body, words=(1,)),
    ]


def _levels(report: ColumnReport, side: str, rows: dict[str, str]) -> list[Any]:
    """Of a hierarchy: the share of rows that are right down to each level."""
    evaluation = report.evaluation[side] or {}
    if "levels" not in evaluation:
        return []
    titles = ("level", "nodes", "accuracy", "95% interval")
    return [Grid(f"Right down to each level, of {evaluation['rows']:,} {rows[side]}", titles, level_rows(evaluation))]


def level_rows(evaluation: dict[str, Any]) -> list[list[str]]:
    """Name, nodes, accuracy and its interval of each level, from the top; then hierarchical F1."""
    lines = [
        [visible(one["level"]), count(one["nodes"]), one["accuracy"], one["accuracy_interval"]]
        for one in evaluation["levels"]
    ]
    lines.append([HIERARCHICAL_F1, "", evaluation["hierarchical_f1"], evaluation["hierarchical_f1_interval"]])
    return [
        [name, nodes, number(value), f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"]
        for name, nodes, value, interval in lines
    ]


def _confusion(report: ColumnReport, side: str, rows: dict[str, str], prefix: str) -> list[Any]:
    evaluation = report.evaluation[side] or {}
    matrix, classes = evaluation.get("confusion_matrix"), [visible(name) for name in report.classes]
    blocks: list[Any] = []
    if matrix and len(classes) <= TABLED:
        blocks.append(_matrix(np.array(matrix), classes, f"Confusion matrix, {rows[side]}"))
    elif matrix:
        said = (
            "Confusion matrix: lines are the classes, columns what they were taken for; numbers as in the table above"
        )
        svg = plots.heat_map(f"{prefix}matrix", np.array(matrix))
        blocks.append(
            Figure(svg, f"{said}. {_right(np.array(matrix))}", f"{said}; darker: a larger share of the class.")
        )
    pairs = evaluation.get("confusions", [])[:CONFUSIONS]
    if pairs and len(classes) > 2:
        body = [[visible(one["label"]), visible(one["predicted"]), count(one["rows"])] for one in pairs]
        blocks.append(Grid("Mixed up most", ("class", "taken for", "rows"), body, words=(0, 1)))
    return blocks


def _right(matrix: np.ndarray) -> str:
    return f"{int(matrix.trace()):,} of {int(matrix.sum()):,} rows are on the diagonal"


def _matrix(matrix: np.ndarray, classes: list[str], caption: str) -> Matrix:
    shares = (matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)).round(3)
    short = len(classes) <= NAMED and all(len(name) <= SHORT for name in classes)
    numbers = [str(i) for i in range(1, len(classes) + 1)]
    names = classes if short else [f"{i} {name}" for i, name in zip(numbers, classes, strict=True)]
    return Matrix(caption, list(names), list(classes) if short else numbers, matrix.tolist(), shares.tolist())


def _thresholds(info: dict[str, Any], rows: dict[str, str]) -> list[Any]:
    found: list[dict[str, Any]] = info.get("thresholds") or []
    if not found:
        return []
    order = sorted(range(len(found)), key=lambda i: (-found[i].get("rows", 0), i))
    found = [found[i] for i in sorted(order[:MOST_THRESHOLDS])]
    metric = found[0].get("metric", "f1")
    sides = {side: [f"{side}_{name}" for name in (f"{metric}_at_half", metric)] for side in ("val", "test")}
    sides = {side: keys for side, keys in sides.items() if all(key in one for one in found for key in keys)}
    keys = [key for keys in sides.values() for key in keys]
    body = [[visible(one["label"]), f"{one['threshold']:.3f}", *(number(one[key]) for key in keys)] for one in found]
    called = title(metric) if "metric" in found[0] else "F1"
    titles = (
        "label",
        "threshold",
        *(f"{side} {called} {at}" for side in sides for at in ("at 1/2", "at the threshold")),
    )
    said = f"A label is predicted where its probability is above 1/2. The threshold of the best {called} on the "
    said += f"{rows['val']} would be another, which predict --threshold tuned applies; its worth shows on rows that "
    said += "did not choose it."
    if any(one.get("shared") for one in found):
        said += " Labels with few validation rows share one."
    if len(order) > len(found):
        said += f" Shown: the {len(found):,} of {len(order):,} labels with the most validation rows."
    return [Paragraph(said), Grid("Thresholds", titles, body)]


def _calibration(report: ColumnReport, side: str, rows: dict[str, str], prefix: str) -> list[Any]:
    evaluation = report.evaluation[side]
    assert evaluation is not None
    before, after, temperature = (evaluation.get(key) for key in ("calibration", "calibration_scaled", "temperature"))
    if not before:
        return []
    lines = {"as trained": before}
    if after:
        lines[f"with temperature {temperature:.2f}"] = after
    keys = {"ece": "ECE", "ece_adaptive": "adaptive ECE", "brier": "Brier score", "loss": "log loss"}
    body = [[name, *(number(one.get(key)) for key in keys)] for name, one in lines.items()]
    blocks: list[Any] = [Grid(f"Calibration on the {rows[side]}", ("", *keys.values()), body)]
    said = (
        "Whether a probability can be taken at its word: ECE is the mean distance of confidence and the share that is "
    )
    said += "right, 0 is perfect; on a few hundred rows chance alone makes some hundredths."
    if after:
        seen = ", the same rows, so the number after it flatters" if side == "val" else ""
        said += f" The temperature was fitted on the {rows['val']}{seen}; it changes no label."
    blocks.insert(0, Paragraph(said))
    bins = {name: one["bins"] for name, one in lines.items() if one.get("bins")}
    if not bins:
        return blocks
    ece = ", ".join(f"ECE {one['ece']:.3f} {name}" for name, one in lines.items())
    figures = [
        Figure(plots.reliability(f"{prefix}reliability", bins), f"Reliability diagram: {ece}", f"Reliability: {ece}."),
        Figure(
            plots.confidence_rows(f"{prefix}confidence", next(iter(bins.values()))),
            f"How many of {sum(one['rows'] for one in next(iter(bins.values()))):,} decisions had which confidence",
            "How many decisions had which confidence, as trained.",
        ),
    ]
    table = [
        [
            name,
            f"{one['low']:.2f} to {one['high']:.2f}",
            count(one["rows"]),
            number(one["confidence"]),
            number(one["accuracy"]),
        ]
        for name, some in bins.items()
        for one in some
    ]
    titles = ("", "confidence", "decisions", "mean confidence", "share right")
    return [*blocks, FigureRow(figures), Grid("The bins", titles, table, words=(0, 1), folded=True)]


def _values(report: ColumnReport, info: dict[str, Any], rows: dict[str, str], prefix: str) -> list[Any]:
    sides = [side for side in ("val", "test") if report.evaluation[side]]
    keys = {one.name: one.title for one in scores_of(report.kind)}
    body = []
    for side in sides:
        evaluation = report.evaluation[side] or {}
        interval = evaluation.get("r2_interval")
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
        body.append([rows[side], count(evaluation["rows"]), *(number(evaluation.get(key)) for key in keys), between])
    blocks: list[Any] = [Grid("Errors of the chosen head", ("", "rows", *keys.values(), "95% interval of R²"), body)]
    side = sides[-1]
    pairs = np.array(info.get("pairs", {}).get(side, []), np.float64)
    if len(pairs) < 2:
        return blocks
    all_of_them = len(pairs) == (report.evaluation[side] or {})["rows"]
    some = f"{len(pairs):,}{'' if all_of_them else ' of the'} {rows[side]}"
    error = pairs[:, 1] - pairs[:, 0]
    quantiles = np.quantile(np.abs(error), [0.5, 0.9, 0.99])
    said = f"half of the errors are below {quantiles[0]:.4g}, nine in ten below {quantiles[1]:.4g}"
    about = f"The errors, predicted minus true: mean {error.mean():.4g}, standard deviation {error.std():.4g}; {said}"
    over = f"Predicted over true values, {some}"
    figures = [
        Figure(plots.predicted_values(f"{prefix}values", pairs), f"{over}; {said}", f"{over}."),
        Figure(plots.residuals(f"{prefix}residuals", pairs), about, f"The errors: {said}."),
    ]
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    table = [[f"{q:.0%}", f"{value:.6g}"] for q, value in zip(shares, np.quantile(error, shares), strict=True)]
    return [*blocks, FigureRow(figures), Grid("Errors, predicted - true", ("quantile", "error"), table, folded=True)]
