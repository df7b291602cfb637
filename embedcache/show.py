"""What people read on the screen. Notes and tables only; the numbers come from the verbs' reports."""

from __future__ import annotations

import shutil
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from embedcache.cache import VerifyReport
    from embedcache.extract import ExtractReport
    from embedcache.heads.job import HeadReport
    from embedcache.predict import FileReport, Prediction
    from embedcache.search import SearchReport

WIDEST = 160


def _print(*tables: Table | str) -> None:
    """Text from files is printed as it is: never as markup, links or emoji codes."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else max(100, min(shutil.get_terminal_size((100, 24)).columns, WIDEST))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets question marks
    console = Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for table in tables:
        console.print(table)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        title, wraps = _cell(column, 40), column == "text"
        table.add_column(title, justify="right" if column in right else "left", overflow="fold", no_wrap=not wraps)
    return table


def one_line(text: str) -> str:
    """Without line breaks, and with control characters (a terminal would obey them) made visible."""
    return "".join(
        char if char.isprintable() or char in "\u200c\u200d" else "\N{REPLACEMENT CHARACTER}"
        for char in " ".join(text.split())
    )


def _cell(text: str, length: int = 1000) -> Any:
    """A text of the user's in one line, cut."""
    from rich.text import Text

    line = one_line(text[: 4 * length])
    return Text(line if len(line) <= length else line[: length - 1] + "…")


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def extract(report: ExtractReport) -> None:
    done = f"{report.encoded:,} encoded at {report.rows_per_second:,.0f} rows/s ({report.tokens:,} tokens)"
    if not report.encoded:
        done = "nothing to encode"
    parts = [done]
    parts += [f"{report.reused:,} reused"] if report.reused else []
    parts += [_plural(report.duplicates, "duplicate")] if report.duplicates else []
    click.echo(f"{report.cache}: {_plural(report.rows, 'row')}; {', '.join(parts)}; {report.seconds:.1f} s in all")
    length = report.encoder["identity"]["max_length"]
    notes = {
        f"{report.truncated:,} truncated at {length} tokens (--max-length)": report.truncated,
        f"{report.blank:,} with a blank text": report.blank,
        f"{report.dropped:,} of the old cache dropped: no longer in the input": report.dropped,
        f"{_plural(report.repaired, 'damaged block')} made again": report.repaired,
        **{f"{n:,} without a value in {column!r}": n for column, n in report.missing_labels.items()},
    }
    for note, count in notes.items():
        if count:
            click.echo(f"  {note}")


def interrupted_extract(cache: str) -> str:
    """Read from the file itself, so that it is true."""
    from embedcache.cache import open_cache
    from embedcache.errors import EmbedcacheError

    again = "the same command goes on from there"
    try:
        with open_cache(cache) as opened:
            missing = max(opened.missing_rows(*output) for output in opened.outputs)
            return f"Interrupted: {opened.rows - missing:,} of {opened.rows:,} rows are saved in {cache}; {again}."
    except EmbedcacheError:
        return f"Interrupted before the first vector: {cache} is as it was; the same command starts again."


def info(document: dict[str, Any]) -> None:
    encoder, rows = document["encoder"], document["rows"]
    missing = max((output["missing_rows"] for output in document["outputs"]), default=0)
    outputs = [
        output["pooling"] + ("" if output["layer"] == -1 else f" (layer {output['layer']})")
        for output in document["outputs"]
    ]
    state = "complete" if document["complete"] else f"not complete: {missing:,} rows to go, run extract again"
    lines = {
        "file": f"{document['cache']} ({document['bytes'] / 1e6:,.1f} MB, {state})",
        "rows": f"{rows:,} of {document['dim']} x {encoder['store']}, {document['truncated']:,} truncated",
        "poolings": ", ".join(outputs),
        "columns": ", ".join(document["columns"]) or "none",
        "encoder": f"{encoder['source']} ({encoder['identity'].get('architecture', '')}, "
        f"{encoder['identity']['max_length']} tokens, {encoder['identity']['compute_dtype']})",
        "made": f"{document['created']}, fingerprint {document['fingerprint']}",
    }
    for name, line in lines.items():
        click.echo(f"{name:10}{_cell(line)}")
    for name, label in document["labels"].items():
        largest = sorted(label["classes"].items(), key=lambda item: -item[1])
        shown = ", ".join(f"{_cell(text, 40)} {count:,}" for text, count in largest[:8])
        more = f", and {len(largest) - 8:,} more" if len(largest) > 8 else ""
        none = f"; {label['missing']:,} without" if label["missing"] else ""
        click.echo(f"{'label':10}{_cell(name)}: {shown}{more}{none}")


def verify(cache: str, report: VerifyReport) -> None:
    if report.ok:
        click.echo(f"{cache}: {_plural(report.blocks, 'block')} checked, no damage")
    for span in report.incomplete:
        click.echo(f"  {span.dataset} rows {span.start:,} to {span.stop - 1:,} have no vectors yet; extract goes on")


def damage(cache: str, report: VerifyReport) -> str:
    """All damaged spans in one line."""
    spans = [f"{span.dataset} rows {span.start:,} to {span.stop - 1:,}" for span in report.damaged]
    shown = "; ".join(spans[:20]) + (f"; and {len(spans) - 20:,} more" if len(spans) > 20 else "")
    return f"{cache} is damaged: {shown}; run the same extract again, it makes these anew"


def train_head(report: HeadReport) -> None:
    split = report.split
    sides = ", ".join(f"{split[side]:,} {side}" for side in ("train", "val", "test") if split[side])
    grouped = f", grouped by {split['group']}" if split["group"] else ""
    click.echo(
        f"{report.run}: {_plural(report.heads, 'head')} in {report.train_seconds:.1f} s "
        f"({report.head_rows_per_second:,.0f} head-rows/s, {report.engine}); {sides} rows{grouped}"
    )
    settings = {"hidden": "hidden", "lr": "lr", "dropout": "dropout", "weight_decay": "decay", "seed": "seed"}
    rows = report.leaderboard
    swept = [key for key in settings if len({row[key] for row in rows}) > 1]
    titles = ["rank", "head", *(settings[key] for key in swept), "epoch", "val loss", "val acc", "test acc"]
    table = _table(*titles, right=[title for title in titles if title != "head"])
    for row in rows:
        # A linear probe has no place for dropout.
        values = ["-" if key == "dropout" and not row["hidden"] else f"{row[key]:g}" for key in swept]
        epoch = "-" if row["status"] != "ok" else f"{row['best_epoch'] + 1:g}"
        test = _number(report.best["test_accuracy"]) if row["rank"] == 1 else ""
        scores = [_number(row["val_loss"]), _number(row["val_accuracy"]), test]
        table.add_row(str(row["rank"]), row["name"], *values, epoch, *scores)
    table.add_section()
    for title, name in (("TF-IDF + logreg", "tfidf_logreg"), ("majority", "majority")):
        scores = [_number(report.baselines[name][key]) for key in ("val_accuracy", "test_accuracy")]
        table.add_row("", title, *[""] * (len(swept) + 2), *scores)
    _print(table)
    same = [f"{settings[key]} {rows[0][key]:g}" for key in settings if key not in swept]
    if same:
        click.echo(f"The same in all of these: {', '.join(same)}.")
    if report.best.get("test_accuracy_interval"):
        low, high = report.best["test_accuracy_interval"]
        click.echo(
            f"Chosen by validation loss: {report.best['name']}; on the test rows, scored once, "
            f"{report.best['test_accuracy']:.4f} (95% interval {low:.3f} to {high:.3f})."
        )
    for note in report.notes:
        click.echo(f"Note: {_cell(note)}")
    click.echo(f"{Path(report.run) / 'leaderboard.csv'} has every head.")


def predictions(predicted: Sequence[Prediction]) -> None:
    table = _table("label", "probability", "text", right=["probability"])
    for one in predicted:
        table.add_row(_cell(one.label), f"{one.probabilities[one.label]:.3f}", _cell(one.text, 300))
    _print(table)


def predicted_file(report: FileReport) -> None:
    counts = ", ".join(f"{_cell(label, 40)} {count:,}" for label, count in report.labels.items() if count)
    click.echo(f"{report.output}: {_plural(report.rows, 'row')} labelled in {report.seconds:.1f} s ({counts})")
    if report.truncated:
        click.echo(f"  {report.truncated:,} truncated")


def search(report: SearchReport) -> None:
    for answer in report.answers:
        names = list(answer.results[0].labels) if answer.results else []
        with_id = any(found.id is not None for found in answer.results)
        table = _table(
            "rank", "score", "row", *(["id"] if with_id else []), *names, "text", right=["rank", "score", "row"]
        )
        for found in answer.results:
            labels = [_cell(found.labels[name] or "-", 40) for name in names]
            ids = [_cell(found.id or "", 40)] if with_id else []
            table.add_row(str(found.rank), f"{found.score:.3f}", str(found.row), *ids, *labels, _cell(found.text, 300))
        what = "" if answer.row is None else f"row {answer.row}: "
        _print(_cell(f"{what}{answer.query}", 300), table)
        if len(answer.results) < report.k:
            click.echo(f"{_plural(len(answer.results), 'row')}: no more can be found ({report.k} were asked for).")
