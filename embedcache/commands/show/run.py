"""What people read on the screen after train-head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import (
    cell,
    fits,
    label_text,
    make_score_table,
    make_table,
    number,
    one_line,
    plural,
    print_tables,
)
from embedcache.heads.kinds import kind_of
from embedcache.report.evaluation_sections import level_rows
from embedcache.report.mistakes import label_now
from embedcache.report.names import in_words, same_in_all, setting, swept
from embedcache.runs.scores import SCORES, headlines
from embedcache.runs.settings_shown import SHOWN
from embedcache.runs.wording import baseline_name, worth_saying
from embedcache.runs.wording import in_words as comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from embedcache.export import ExportReport
    from embedcache.finetune.outcome import TuneReport
    from embedcache.report import ReportFile
    from embedcache.report.contents import ColumnContents
    from embedcache.runs.column import ColumnReport
    from embedcache.runs.job import HeadReport

MANY_CLASSES = 20  # above it the report shows the best and the worst five only
MATRIX_CLASSES = 10  # of the largest confusion matrix that is shown
SPREADS = 5
MISTAKES = 10
TEXT = 120  # characters of a mistake's text


def train_head(report: HeadReport, documents: Sequence[str] = ()) -> None:
    """The whole report: for every label column the chosen head, the first ten, the spread, the classes, calibration."""
    rate = f"{report.head_rows_per_second:,.0f} head-rows/s, {report.engine}"
    kept = f"; {report.kept:,} needed no training" if report.kept else ""
    click.echo(f"{report.run}: {plural(report.heads, 'head')} in {report.train_seconds:.1f} s ({rate}){kept}")
    _columns(report, documents)


def finetune(report: TuneReport, documents: Sequence[str] = ()) -> None:
    """The same report, and what was trained."""
    rate = f"{report.head_rows_per_second:,.0f} rows/s, {report.engine}"
    kept = f"; {report.kept:,} needed no training" if report.kept else ""
    click.echo(f"{report.run}: {plural(report.heads, 'configuration')} in {report.train_seconds:.1f} s ({rate}){kept}")
    layers, start = report.trained["layers"], report.start
    which = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
    begun = f"{start['name']} of {start['run']}" if start["run"] else "a head trained on the cached vectors"
    click.echo(
        f"{report.best['name']} is --train {report.trained['train']}, {report.pooling}: {which}, "
        f"{report.trained['parameters']:,} parameters of the encoder; it started from {one_line(begun)}"
    )
    _columns(report, documents)


def _columns(report: HeadReport, documents: Sequence[str]) -> None:
    for column in report.columns.values():
        _column(column, titled=len(report.columns) > 1)
    click.echo(f"{Path(report.run) / ('*' if len(report.columns) > 1 else '') / 'leaderboard.csv'} has every head.")
    if documents:
        click.echo(f"{documents[0]} is the whole report, {Path(documents[-1]).name} beside it the model card.")


def report(written: ReportFile, tables: bool) -> None:
    """Where the page is; with tables, what it says: train-head's, then the mistakes with their texts, and the times."""
    contents = written.contents
    if tables:
        click.echo(f"{contents.path}: {plural(contents.heads, 'head')}, trained {contents.info.get('created', '-')}")
        for column in contents.columns.values():
            _column(column.report, titled=len(contents.columns) > 1)
            _mistakes(column)
        print_tables("", _times(contents.info))
    if contents.texts:
        click.echo(f"Note: {one_line(contents.texts)}")
    for line in contents.notes:
        click.echo(f"Note: {cell(line)}")
    click.echo(f"{written.report}: {written.bytes / 1000:,.0f} kB")


def _mistakes(column: ColumnContents) -> None:
    """The wrong rows of which the chosen head was surest; of a regression, the largest errors."""
    side = "test" if column.mistakes.get("test") else "val"
    mistakes = column.mistakes.get(side, [])[:MISTAKES]
    if not mistakes:
        return
    kind = kind_of(column.report.kind)
    last = "probability" if kind.has_classes else "error"
    table = make_table("row", "label", "predicted", last, "text", right=("row", last))
    for one in mistakes:
        label, predicted = (label_text(one[key]) for key in ("label", "predicted"))
        label += label_now(one)
        number = f"{one['probability']:.3f}" if kind.has_classes else f"{one['predicted'] - one['label']:+.4g}"
        text = "(not in the cache any more)" if one["text"] is None else one["text"]
        table.add_row(
            f"{one['row']:,}",
            cell(label, 48 if "label_now" in one else 24),
            cell(predicted, 24),
            number,
            cell(text, TEXT),
        )
    rows = "test rows" if side == "test" else "rows out of fold" if column.report.split["folds"] else "validation rows"
    print_tables("", f"{kind.mistakes} on the {rows}:", table)


def _times(info: dict[str, Any]) -> Table:
    table = make_score_table("phase", "seconds", left=["phase"])
    for name, seconds in {**info.get("times", {}), "everything": info.get("seconds")}.items():
        table.add_row(cell(name, 40), number(seconds, ".1f"))
    return table


def _column(report: ColumnReport, titled: bool) -> None:
    split = report.split
    sides = ", ".join(f"{split[side]:,} {side}" for side in ("train", "val", "test") if split[side])
    tested = report.best.get("test_groups")
    grouped = f", grouped by {split['group']}" if split["group"] else ""
    grouped += f" ({plural(tested, 'group')} of it test)" if tested else ""
    folds = f", {len(split['folds'])} folds of the training rows" if split["folds"] else ""
    title = f"\nLabel {cell(report.label, 40)}: {report.kind}" if titled else report.kind.capitalize()
    kind = kind_of(report.kind)
    count = f", {len(report.classes):,} {kind.outputs}" if kind.has_classes else ""
    click.echo(f"{title}{count}; {sides} rows{grouped}{folds}")
    print_tables("", _against_baselines(report), *_compared(report), "", *_first_ten(report), *_spreads(report))
    evaluation = report.evaluation["test"] or report.evaluation["val"]
    if evaluation and kind.has_classes:
        side = "test" if report.evaluation["test"] else "validation"
        print_tables(*level_table(evaluation, f"{side} rows"))
        print_tables("", *class_table(evaluation, f"{side} rows"), *confusion_table(evaluation, report.classes))
        click.echo(_calibration(report.evaluation))
    for note in report.notes:
        click.echo(f"Note: {cell(note)}")


def _against_baselines(report: ColumnReport) -> Table:
    """The chosen head, scored on the test rows once, above what it must beat; the second interval where it fits."""
    main, beside, *_ = headlines(report.kind)
    keys = [f"val_{main}", f"test_{main}", f"test_{main}_interval", f"test_{beside}", f"test_{beside}_interval"]
    table = _scores(report, keys)
    return table if fits(table) else _scores(report, keys[:-1])


def _scores(report: ColumnReport, keys: Sequence[str]) -> Table:
    scored = {report.best["name"] + ", chosen": report.best}
    scored |= {baseline_name(name): scores for name, scores in report.baselines.items()}
    keys = [key for key in keys if any(scores.get(key) is not None for scores in scored.values())]
    titles = ["95%\ninterval" if "interval" in key else key.replace("_", "\n", 1).replace("_f1", " F1") for key in keys]
    table = make_score_table("", *titles, left=[""])
    for name, scores in scored.items():
        table.add_row(name, *(_score(scores, key) for key in keys))
    return table


def _compared(report: ColumnReport) -> list[str]:
    """The chosen head and each baseline that learns, by the metric that chooses."""
    return [f"{report.best['name']} is {comparison(one)}." for one in worth_saying(report.best, report.comparisons)]


def _score(scores: dict[str, Any], key: str) -> str:
    value = scores.get(key)
    if key.endswith("_interval"):
        return "" if value is None else f"{value[0]:.3f} to {value[1]:.3f}"
    return number(value)


def _first_ten(report: ColumnReport) -> list[Table | str]:
    """The top of the leaderboard: the settings in which its heads differ, and the scores."""
    rows = report.leaderboard
    columns = {f"val_{name}": f"val\n{SCORES[name].short}" for name in dict.fromkeys(["loss", *headlines(report.kind)])}
    scores = [key for key in columns if any(row.get(key) is not None for row in rows)]
    before = [(str(row["rank"]), row["name"]) for row in rows]
    epochs = ["-" if row["status"] != "ok" else f"{row['best_epoch']:.3g}" for row in rows]
    after = [(epoch, *(number(row[key]) for key in scores)) for epoch, row in zip(epochs, rows, strict=True)]
    table = _with_settings(
        ("rank", "head"), before, rows, swept(rows)[0], ("epoch", *(columns[key] for key in scores)), after
    )
    shared = same_in_all(rows)
    return [table, f"The same in all of these: {shared}."] if shared else [table]


def _spreads(report: ColumnReport) -> list[Table | str]:
    """What the seed alone changes: the scores of a setting's seeds."""
    spreads = report.spread[:SPREADS]
    if not spreads:
        return []
    rows = [one["settings"] for one in spreads]
    numbers = [
        (str(len(one["heads"])), *(number(one[key]) for key in ("mean", "std", "min", "max"))) for one in spreads
    ]
    titles = ("seeds", "mean", "std", "lowest", "highest")
    table = _with_settings((), [()] * len(rows), rows, swept(rows)[0], titles, numbers)
    more = f"; the first {SPREADS} of {len(report.spread)} settings" if len(report.spread) > SPREADS else ""
    return ["", f"What the seed alone changes (validation {spreads[0]['score']}{more}):", table]


def _with_settings(
    first: Sequence[str],
    before: Sequence[Sequence[str]],
    rows: Sequence[dict[str, Any]],
    keys: Sequence[str],
    last: Sequence[str],
    after: Sequence[Sequence[str]],
) -> Table:
    """A table with a column for every setting; where the screen is too narrow, with one that holds all of them."""
    table = make_score_table(*first, *(SHOWN[key].label for key in keys), *last, left=["head"])
    narrow = make_score_table(*first, "settings", *last, left=["head", "settings"], wraps="settings")
    for some, row, others in zip(before, rows, after, strict=True):
        table.add_row(*some, *(setting(key, row) for key in keys), *others)
        narrow.add_row(*some, in_words(row, keys), *others)
    return table if fits(table) else narrow


def level_table(evaluation: dict[str, Any], rows: str) -> list[Table | str]:
    """Of a hierarchy: the share of rows that are right down to each level, and hierarchical F1."""
    if "levels" not in evaluation:
        return []
    table = make_score_table("level", "nodes", "accuracy", "95% interval", left=["level"])
    for name, *cells in level_rows(evaluation):
        table.add_row(cell(name, 40), *cells)
    return ["", f"Right down to each level, of {evaluation['rows']:,} {rows}:", table]


def class_table(evaluation: dict[str, Any], rows: str) -> list[Table | str]:
    """Precision, recall and F1 of each class; of many classes the five of the best and of the worst F1."""
    classes, which = evaluation["per_class"], ""
    if len(classes) > MANY_CLASSES:
        there = sorted((one for one in classes if one["support"]), key=lambda one: -one["f1"])
        classes = [*there[:5], *there[5:][-5:]]
        which = f", the five best and the five worst of {len(there):,}" if len(there) > 10 else ""
    title = kind_of(evaluation["kind"]).output
    table = make_score_table(title, "precision", "recall", "F1", "rows", left=[title])
    for i, one in enumerate(classes):
        scores = (number(one[key]) for key in ("precision", "recall", "f1"))
        table.add_row(
            cell(visible(one["label"]), 40), *scores, f"{one['support']:,}", end_section=bool(which) and i == 4
        )
    return [f"The chosen head on the {evaluation['rows']:,} {rows}{which}:", table]


def confusion_table(evaluation: dict[str, Any], classes: list[str]) -> list[Table | str]:
    """The matrix where it is small enough for the screen, else the pairs that are mixed up most."""
    matrix = evaluation.get("confusion_matrix")
    if matrix and len(classes) <= MATRIX_CLASSES:
        names = [cell(visible(name), 16) for name in classes]
        numbers = [str(i + 1) for i in range(len(classes))]
        numbered = [f"{i} {name}" for i, name in zip(numbers, names, strict=True)]
        for titles, labels in ((names, names), (numbers, numbered)):
            table = make_score_table("label \\ predicted", *titles, left=["label \\ predicted"])
            for label, row in zip(labels, matrix, strict=True):
                table.add_row(label, *map(str, row))
            if fits(table):
                return ["", table]
    mixed = evaluation.get("confusions", [])[:5]
    pairs = (
        f"{cell(visible(one['label']), 40)} as {cell(visible(one['predicted']), 40)} ({one['rows']:,})" for one in mixed
    )
    return [f"Mixed up most (rows): {', '.join(pairs)}."] if mixed else []


def _calibration(evaluation: dict[str, Any]) -> str:
    """One line: the honest error is that of the test rows, which neither the head nor the temperature has seen."""
    side = "test" if evaluation["test"] else "validation"
    found = evaluation["test"] or evaluation["val"]
    line = f"Calibration: ECE {found['calibration']['ece']:.3f} on the {side} rows"
    if found["calibration_scaled"] is None:
        return f"{line}."
    after = f"{found['calibration_scaled']['ece']:.3f} with temperature {found['temperature']:.2f}"
    return f"{line}, {after} (fitted on the validation rows)."


def export(report: ExportReport) -> None:
    size, checked = f"{report.bytes / 1e6:.1f} MB in {plural(len(report.files), 'file')}", report.checked
    click.echo(f"{report.output}: encoder and head for {report.to}, {size}; {report.seconds:.1f} s in all")
    click.echo(f"Opened again: {checked['texts']} texts differ by {checked['max_difference']:.1e} at most.")
    click.echo(f"{Path(report.output) / 'README.md'} has the lines that use it.")
