"""What people read on the screen after evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.commands.show.run import class_table, confusion_table, level_table
from embedcache.common.screen import cell, label_text, make_score_table, make_table, number, plural, print_tables
from embedcache.heads.kinds import kind_of
from embedcache.runs.scores import title
from embedcache.runs.wording import baseline_name

if TYPE_CHECKING:
    from rich.table import Table

    from embedcache.evaluation import EvaluationReport, RunScores

KEPT = (1.0, 0.9, 0.75, 0.5)  # shares of rows of which the accuracy is shown
LISTED = 10  # mistakes


def evaluation(report: EvaluationReport) -> None:
    groups = "" if report.groups is None else f" in {plural(report.groups, 'group')} of {report.group}"
    click.echo(f"{report.source}: {plural(report.rows, 'row')}{groups} with a label in {report.label}")
    print_tables("", _scores(report))
    if report.comparisons:
        print_tables("", "Differences on the same rows:", _comparisons(report))
    if len(report.runs) == 1:
        _run(report.runs[0])
    for run in report.runs:
        for name, one in run.baselines.items():
            if one.note:
                click.echo(f"Note: {cell(run.run, 60)}, {baseline_name(name)}: {cell(one.note)}")
    for note in report.notes:
        click.echo(f"Note: {cell(note)}")
    if report.output:
        click.echo(f"{report.output}: all of it as a page")
    elif len(report.runs) > 1:
        click.echo("Classes, thresholds and mistakes of each run: -o PAGE.html, or --json")


def _scores(report: EvaluationReport) -> Table:
    """A line for each run, and under it its baselines."""
    metrics = kind_of(report.runs[0].kind).measured
    titles = [heading for name in metrics for heading in (title(name), "95% interval")]
    others = [name for name in report.runs[0].scores if name not in metrics]
    table = make_score_table("", *titles, *(title(name) for name in others), left=[""])
    for run in report.runs:
        lines = {run.run: run.scores} | {
            f"  {baseline_name(name)}": one.scores for name, one in run.baselines.items() if one.scores
        }
        for name, scores in lines.items():
            cells = []
            for metric in metrics:
                score = scores.get(metric)
                interval = score.interval if score else None
                cells += [
                    number(score.value) if score else "-",
                    f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
                ]
            cells += [number(scores[metric].value) if metric in scores else "" for metric in others]
            table.add_row(cell(name, 60), *cells)
    return table


def _comparisons(report: EvaluationReport) -> Table:
    table = make_score_table("", "score", "difference", "95% interval", "p", "", left=["", "score"])
    for one in report.comparisons:
        interval = one["interval"]
        between = f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "-"
        name = f"{one['first']} less {baseline_name(one['second'])}"
        word = "within noise" if one["within_noise"] else ""
        p = "-" if one["p"] is None else f"{one['p']:.3f}" if one["p"] >= 0.001 else "<0.001"
        table.add_row(cell(name, 70), title(one["metric"]), f"{one['difference']:+.4f}", between, p, word)
    return table


def _run(run: RunScores) -> None:
    """What is worth a screen of one run; of several, -o and --json have it."""
    if kind_of(run.kind).has_classes:
        print_tables(*level_table(run.evaluation, "rows"))
        print_tables("", *class_table(run.evaluation, "rows"), *confusion_table(run.evaluation, run.names))
        if calibration := run.evaluation.get("calibration"):
            scaled = run.evaluation.get("calibration_scaled")
            after = f", {scaled['ece']:.3f} with --calibrated" if scaled else ""
            click.echo(f"Calibration: ECE {calibration['ece']:.3f} on these rows{after}.")
        if run.confidence:
            print_tables("", "When the rows that it is least sure of are left out:", _kept(run))
    if run.mistakes:
        print_tables("", *_mistakes(run))


def _kept(run: RunScores) -> Table:
    table = make_score_table("probability from", "rows kept", "accuracy")
    for share in KEPT:
        one = min(run.confidence, key=lambda point: abs(point["kept"] - share))
        table.add_row(f"{one['threshold']:.3f}", f"{one['kept']:.0%}", number(one["accuracy"]))
    return table


def _mistakes(run: RunScores) -> list[Table | str]:
    kind = kind_of(run.kind)
    last = "probability" if kind.has_classes else "error"
    table = make_table("row", "label", "predicted", last, "text", right=("row", last))
    for one in run.mistakes[:LISTED]:
        label, predicted = (label_text(one[key]) for key in ("label", "predicted"))
        value = f"{one['probability']:.3f}" if kind.has_classes else f"{one['predicted'] - one['label']:+.4g}"
        table.add_row(f"{one['row']:,}", cell(label, 24), cell(predicted, 24), value, cell(one["text"], 160))
    return [f"{kind.mistakes}:", table]
