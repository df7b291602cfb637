"""An evaluation as one HTML file that needs no network: the report's blocks, the numbers of ``report``."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from embedcache.common.screen import label_text, number, plural
from embedcache.common.whole_file import whole_file
from embedcache.errors import EmbedcacheError
from embedcache.evaluation.report import EvaluationReport, RunScores, ScoreValue
from embedcache.heads.kinds import kind_of
from embedcache.report import plots
from embedcache.report.blocks import Cards, Chapter, Facts, Figure, FigureRow, Grid, Mistakes, Notes, Section, count
from embedcache.report.evaluation_sections import evaluation_sections
from embedcache.report.page import render
from embedcache.runs.column import ColumnReport
from embedcache.runs.scores import main_score
from embedcache.runs.scores import title as title_of
from embedcache.runs.wording import baseline_name

CURVES = 6  # classes whose thresholds are drawn
MISTAKES = 20


def write_page(report: EvaluationReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises EmbedcacheError where nothing can be written there."""
    if path.is_dir():
        raise EmbedcacheError(f"{path} is a folder: name a file for the page with -o")
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    with plots.drawing():
        several = len(report.runs) > 1
        parts = [
            Chapter(f"Run {run.run}" if several else None, f"r{i}", _sections(run, report, f"r{i}-" if several else ""))
            for i, run in enumerate(report.runs, 1)
        ]
        shared = [Section("Compared", "compared", _compared(report)), Section("The rows", "rows", _rows(report))]
    shared = [section for section in shared if section.blocks]
    if several:
        parts = [Chapter("All runs", "all", [*_side_by_side(report), *shared]), *parts]
    page = render(
        "embedcache evaluation",
        Path(report.source).name,
        "evaluation of heads",
        f"Scored {now}",
        parts,
        [] if several else shared,
    )
    with whole_file(path) as file:
        file.write(page)


def _side_by_side(report: EvaluationReport) -> list[Section]:
    """The runs in one table."""
    names = list(report.runs[0].scores)
    rows = [[run.run, *(_with_interval(run.scores.get(name)) for name in names)] for run in report.runs]
    table = Grid("The runs on the same rows, with 95% intervals", ("run", *(title_of(n) for n in names)), rows)
    return [Section("Side by side", "side", [table, *([Notes(report.notes)] if report.notes else [])])]


def _with_interval(score: ScoreValue | None) -> str:
    if score is None:
        return "-"
    between = "" if score.interval is None else f" ({score.interval[0]:.3f} to {score.interval[1]:.3f})"
    return number(score.value) + between


def _sections(run: RunScores, report: EvaluationReport, prefix: str) -> list[Section]:
    made = [
        Section("At a glance", "glance", _glance(run, report)),
        Section("Beside the baselines", "beside", _beside(run, prefix)),
    ]
    as_report = ColumnReport(
        label=run.column,
        kind=run.kind,
        classes=run.names,
        split={},
        best={},
        evaluation={"test": run.evaluation, "val": None},
        baselines={},
        comparisons=[],
        leaderboard=[],
        spread=[],
        notes=[],
    )
    made += evaluation_sections(as_report, {}, {"test": "rows", "val": "validation rows"}, prefix)
    made.append(Section("Thresholds", "thresholds", _thresholds(run, prefix)))
    made.append(Section(kind_of(run.kind).mistakes, "mistakes", _mistakes(run)))
    for section in made:
        section.id = prefix + section.id
    return [section for section in made if section.blocks]


def _glance(run: RunScores, report: EvaluationReport) -> list[Any]:
    cards = []
    for name, score in run.scores.items():
        if score.interval is not None:
            title = title_of(name)
            between = f"95% interval {score.interval[0]:.3f} to {score.interval[1]:.3f}; {plural(run.rows, 'row')}"
            if report.groups is not None:
                between += f" of {plural(report.groups, 'group')}"
            cards.append((title[0].upper() + title[1:], number(score.value, ".3f"), between))
    for name, one in run.baselines.items():
        value = one.scores.get(main_score(run.kind))
        if value is not None:
            what = baseline_name(name)
            cards.append((what[0].upper() + what[1:], number(value.value, ".3f"), "the same rows"))
    return [Cards(cards), *([Notes(report.notes)] if report.notes and len(report.runs) == 1 else [])]


def _beside(run: RunScores, prefix: str) -> list[Any]:
    main = main_score(run.kind)
    scored = {"chosen head": run.scores} | {
        baseline_name(name): one.scores for name, one in run.baselines.items() if one.scores
    }
    drawn: list[tuple[str, float, tuple[float, float] | None]] = []
    for name, one in scored.items():
        if (value := one[main].value) is not None:
            drawn.append((name, value, one[main].interval))
    rows = [[name, *(_with_interval(scores.get(key)) for key in run.scores)] for name, scores in scored.items()]
    titles = ("", *(title_of(name) for name in run.scores))
    table = Grid("The chosen head and the baselines, on the same rows, with 95% intervals", titles, rows)
    gone = [f"{baseline_name(name)}: {one.note}" for name, one in run.baselines.items() if one.note]
    notes = [Notes(gone)] if gone else []
    if len(drawn) < 2:
        return [table, *notes]
    said = ", ".join(f"{name} {value:.3f}" for name, value, _ in drawn)
    svg = plots.compared(f"{prefix}compared", title_of(main), drawn)
    return [Figure(svg, f"{main}: {said}", "The bands are 95% intervals."), table, *notes]


def _thresholds(run: RunScores, prefix: str) -> list[Any]:
    figures = []
    if run.confidence:
        said = "Accuracy when the rows that it is least sure of are left out"
        figures.append(Figure(plots.kept_rows(f"{prefix}kept", run.confidence), said, f"{said}."))
    for i, one in enumerate(run.curves[:CURVES], 1):
        said = (
            f"Precision, recall and F1 of no. {run.classes.index(one['label']) + 1}, {one['label']}, by its threshold"
        )
        figures.append(Figure(plots.thresholds(f"{prefix}threshold-{i}", one["points"]), said, f"{said}."))
    if not figures:
        return []
    areas = [[one["label"], number(one["average_precision"]), number(one["roc_auc"])] for one in run.curves]
    table = Grid("Over all thresholds", ("class", "average precision", "ROC AUC"), areas)
    kept = [[f"{one['threshold']:.3f}", f"{one['kept']:.1%}", number(one["accuracy"])] for one in run.confidence[::10]]
    folded = [Grid("Rows kept", ("probability from", "rows kept", "accuracy"), kept, folded=True)] if kept else []
    return [FigureRow(figures), *([table] if areas else []), *folded]


def _mistakes(run: RunScores) -> list[Any]:
    items = []
    for one in run.mistakes[:MISTAKES]:
        label, predicted = label_text(one["label"]), label_text(one["predicted"])
        if not kind_of(run.kind).has_classes:
            small = f"row {one['row']:,}; error {one['predicted'] - one['label']:+.4g}"
        else:
            small = f"row {one['row']:,}; probability {one['probability']:.3f}"
        items.append(([label, " taken for ", predicted], small, one["text"][:1000]))
    return [Mistakes(items)] if items else []


def _compared(report: EvaluationReport) -> list[Any]:
    rows = []
    for one in report.comparisons:
        interval = one["interval"]
        rows.append(
            [
                one["first"],
                baseline_name(one["second"]),
                title_of(one["metric"]),
                f"{one['difference']:+.4f}",
                f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "-",
                "-" if one["p"] is None else f"{one['p']:.3f}" if one["p"] >= 0.001 else "< 0.001",
                "within noise" if one["within_noise"] else "",
            ]
        )
    titles = ("first", "second", "score", "first less second", "95% interval", "p", "")
    return [Grid("Differences on the same rows, in pairs", titles, rows, words=(0, 1))] if rows else []


def _rows(report: EvaluationReport) -> list[Any]:
    pairs = [("Rows", report.source), ("Label column", report.label), ("Scored", count(report.rows))]
    pairs += [("Groups", f"{count(report.groups)} of {report.group}")] if report.groups is not None else []
    pairs += [("Left out, without a label", count(report.unlabelled))] if report.unlabelled else []
    pairs += [("Left out, used for training", count(report.left_out))] if report.left_out else []
    return [Facts(pairs)]
