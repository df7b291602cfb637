"""What people read on the screen. Notes and tables only; the numbers come from the verbs' reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import cell, label_text, make_console, make_table, plural, print_tables
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedcache.cache import VerifyReport
    from embedcache.export import ExportReport
    from embedcache.extraction.job import ExtractReport
    from embedcache.extraction.merge import MergeReport
    from embedcache.search.file import SearchFileReport
    from embedcache.search.job import SearchReport
    from embedcache.search.searcher import Found


def extract(report: ExtractReport) -> None:
    done = f"{report.encoded:,} encoded at {report.rows_per_second:,.0f} rows/s ({report.tokens:,} tokens)"
    if not report.encoded:
        done = "nothing to encode"
    name = f"{report.cache} (shard {report.shard})" if report.shard else report.cache
    parts = [done]
    parts += [f"{report.reused:,} reused"] if report.reused else []
    parts += [plural(report.duplicates, "duplicate")] if report.duplicates else []
    click.echo(f"{name}: {plural(report.rows, 'row')}; {', '.join(parts)}; {report.seconds:.1f} s in all")
    notes = {
        f"{report.blank:,} with a blank text": report.blank,
        f"{report.dropped:,} of the old cache dropped: no longer in the input": report.dropped,
        f"{plural(report.repaired, 'damaged block')} made again": report.repaired,
        **{f"{n:,} without a value in {column!r}": n for column, n in report.missing_labels.items()},
    }
    for note, count in notes.items():
        if count:
            click.echo(f"  {note}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


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


def merge(report: MergeReport) -> None:
    done = f"{plural(report.shards, 'shard')} joined in {report.seconds:.1f} s"
    click.echo(f"{report.cache}: {plural(report.rows, 'row')}; {done}")


def incomplete_merge(report: MergeReport) -> str:
    names = ", ".join(report.unfinished[:20]) + (", ..." if report.unfinished[20:] else "")
    return (
        f"{report.cache} is not complete: {report.missing_rows:,} of {report.rows:,} rows have no vector, since "
        f"{names} is not finished or damaged; run the extract of each again, then merge again"
    )


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
        click.echo(f"{name:10}{cell(line)}")
    for name, label in document["labels"].items():
        largest = sorted(label["classes"].items(), key=lambda item: -item[1])
        shown = ", ".join(f"{cell(visible(text), 40)} {count:,}" for text, count in largest[:8])
        more = f", and {len(largest) - 8:,} more" if len(largest) > 8 else ""
        none = f"; {label['missing']:,} without" if label["missing"] else ""
        kind = " (lists)" if label["kind"] == "multilabel" else ""
        click.echo(f"{'label':10}{cell(name)}{kind}: {shown}{more}{none}")
    for line in document["notes"]:
        click.echo(f"Note: {cell(line)}")


def verify(cache: str, report: VerifyReport) -> None:
    if report.ok:
        click.echo(f"{cache}: {plural(report.blocks, 'block')} checked, no damage")
    for span in report.incomplete:
        click.echo(f"  {span.dataset} rows {span.start:,} to {span.stop - 1:,} have no vectors yet; extract goes on")


def damage(cache: str, report: VerifyReport) -> str:
    """All damaged spans in one line."""
    spans = [f"{span.dataset} rows {span.start:,} to {span.stop - 1:,}" for span in report.damaged]
    shown = "; ".join(spans[:20]) + (f"; and {len(spans) - 20:,} more" if len(spans) > 20 else "")
    return f"{cache} is damaged: {shown}; run the same extract again, it makes these anew"


def export(report: ExportReport) -> None:
    size, checked = f"{report.bytes / 1e6:.1f} MB in {plural(len(report.files), 'file')}", report.checked
    click.echo(f"{report.output}: encoder and head for {report.to}, {size}; {report.seconds:.1f} s in all")
    click.echo(f"Opened again: {checked['texts']} texts differ by {checked['max_difference']:.1e} at most.")
    click.echo(f"{Path(report.output) / 'README.md'} has the lines that use it.")


def search(report: SearchReport, columns: Sequence[str] | None = None) -> None:
    """The answers; ``columns`` beside the texts, by default id, labels and what fits of the kept ones."""
    for answer in report.answers:
        values = _shown_columns(answer.results, columns)
        table = make_table("rank", "score", "row", *values, "text", right=["rank", "score", "row"])
        for place, found in enumerate(answer.results):
            cells = [cell(of[place], WIDEST_CELL) for of in values.values()]
            table.add_row(str(found.rank), f"{found.score:.3f}", str(found.row), *cells, cell(found.text, 300))
        what = "" if answer.row is None else f"row {answer.row}: "
        print_tables(cell(f"{what}{answer.query}", 300), table)
        if len(answer.results) < report.k:
            click.echo(f"{plural(len(answer.results), 'row')}: no more can be found ({report.k} were asked for).")
        hidden = [name for name in _kept(answer.results) if name not in values]
        if hidden and columns is None:
            click.echo(f"Not shown: {cell(', '.join(hidden), 200)} (--show names columns).")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


WIDEST_CELL, NARROWEST_TEXT, GAP = 40, 40, 3  # characters


def _kept(results: Sequence[Found]) -> list[str]:
    """Kept columns whose names are not those of labels, which are shown as such."""
    return [name for name in results[0].columns if name not in results[0].labels] if results else []


def _shown_columns(results: Sequence[Found], columns: Sequence[str] | None) -> dict[str, list[str]]:
    """Column -> what is shown of it, for each row."""
    if not results:
        return {}
    with_id = any(found.id is not None for found in results)
    names = list(columns) if columns is not None else [*(["id"] if with_id else []), *results[0].labels]
    values = {name: [_value(found, name) for found in results] for name in names}
    if columns is None:
        taken = sum(map(_width, values.items())) + sum(len(name) + GAP for name in ("rank", "score", "row"))
        room = make_console().width - NARROWEST_TEXT - taken
        for name in _kept(results):
            of = [_value(found, name) for found in results]
            if any(of) and (width := _width((name, of))) <= room:
                values[name], room = of, room - width
    return values


def _value(found: Found, name: str) -> str:
    """A row's label or labels, kept value or id. Raises EmbedcacheError for another name."""
    if name in found.labels:
        return label_text(found.labels[name])
    if name in found.columns:
        return found.columns[name]
    if name == "id" and found.id is not None:
        return found.id
    known = ", ".join([*found.labels, *found.columns, *([] if found.id is None else ["id"])]) or "none"
    raise EmbedcacheError(f"--show {name}: the cache has no such column; it has: {known}")


def _width(column: tuple[str, list[str]]) -> int:
    name, values = column
    return max(min(cell(one).cell_len, WIDEST_CELL) for one in (name, *values)) + GAP


def searched_file(report: SearchFileReport) -> None:
    found = f"{plural(report.found, 'row')} found for {plural(report.queries, 'query')}".replace("querys", "queries")
    click.echo(f"{report.output}: {found} in {report.seconds:.1f} s")
    if report.blank:
        click.echo(f"  {report.blank:,} blank, without an answer")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")
