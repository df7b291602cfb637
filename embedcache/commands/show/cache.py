"""What people read on the screen. Notes and tables only; the numbers come from the jobs' reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np

from embedcache.common.display import human_bytes
from embedcache.common.encoder_schema import imported_name
from embedcache.common.label_names import visible
from embedcache.common.screen import cell, plural
from embedcache.heads.kinds import kind_of
from embedcache.tables.decimals import amounts

if TYPE_CHECKING:
    from embedcache.cache import VerifyReport
    from embedcache.extraction.job import ExtractReport
    from embedcache.extraction.merge import MergeReport


def extract(report: ExtractReport) -> None:
    tokens = f"{report.tokens:,} tokens" + (f", tokenizer {report.tokenizer}" if report.tokenizer else "")
    done = f"{report.encoded:,} encoded at {report.rows_per_second:,.0f} rows/s ({tokens})"
    if not report.encoded:
        done = "nothing to encode"
    name = f"{report.cache} (shard {report.shard})" if report.shard else report.cache
    parts = [done]
    parts += [f"{report.reused:,} reused"] if report.reused else []
    parts += [plural(report.duplicates, "duplicate")] if report.duplicates else []
    click.echo(f"{name}: {plural(report.rows, 'row')}; {', '.join(parts)}; {report.seconds:.1f} s in all")
    if made := report.token_states:
        of = f"{plural(made['texts'], 'text')}, {made['encoded']:,} of them made now"
        where = f"{human_bytes(made['bytes'])} in {made['files'][1]}"
        click.echo(f"  what the last {_layers(made)} read: {made['tokens']:,} tokens of {of}; {where}")
    row_notes(report)


def row_notes(report: ExtractReport) -> None:
    """What happened to some of the rows, and the notes."""
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


def interrupted_writing(cache: str) -> str:
    """Read from the file itself, so that it is true."""
    from embedcache.cache import open_cache
    from embedcache.cache.token_states import describe_states
    from embedcache.errors import EmbedcacheError

    again = "the same command continues from there"
    try:
        with open_cache(cache) as opened:
            missing = max(opened.missing_rows(*output) for output in opened.outputs)
            states = describe_states(opened.path, opened.encoder, opened.hashes) or {}
            missing = max(missing, states.get("missing_rows", 0))
            return f"Interrupted: {opened.rows - missing:,} of {opened.rows:,} rows are saved in {cache}; {again}."
    except EmbedcacheError:
        return f"Interrupted before the first vector: {cache} is unchanged; run the same command to start again."


def merge(report: MergeReport) -> None:
    done = f"{plural(report.shards, 'shard')} joined in {report.seconds:.1f} s"
    states = report.token_states
    more = (
        f"; with the token states of {plural(states['texts'], 'text')}, {human_bytes(states['bytes'])}"
        if states
        else ""
    )
    click.echo(f"{report.cache}: {plural(report.rows, 'row')}; {done}{more}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def incomplete_merge(report: MergeReport) -> str:
    names = ", ".join(report.unfinished[:20]) + (", ..." if report.unfinished[20:] else "")
    what = "vector or no token states" if report.token_states else "vector"
    return (
        f"{report.cache} is not complete: {report.missing_rows:,} of {report.rows:,} rows have no {what}, since "
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
        "encoder": f"{encoder['source']} ({_made_by(encoder)})",
        **_made_of(encoder),
        **_states(document["token_states"]),
        **_journal(document["labels_from"]),
        "made": f"{document['created']}, fingerprint {document['fingerprint']}",
    }
    for name, line in lines.items():
        click.echo(f"{name:10}{cell(line)}")
    for name, label in document["labels"].items():
        none = f"; {label['missing']:,} without" if label["missing"] else ""
        lists = kind_of(label["kind"]).has_lists
        values = ("" if lists else _amounts(label["classes"])) or _largest(label["classes"])
        click.echo(f"{'label':10}{cell(name)}{' (lists)' if lists else ''}: {values}{none}")
    of_journal = (document["labels_from"] or {"notes": []})["notes"]
    for line in [*document["notes"], *of_journal]:
        click.echo(f"Note: {cell(line)}")


def _amounts(classes: dict[str, int]) -> str:
    """Where amounts lie; of other classes nothing."""
    values = amounts(list(classes))
    if values is None:
        return ""
    low, high = np.quantile(np.repeat(values, list(classes.values())), (0.25, 0.75))
    between = f"half of the rows from {low:g} to {high:g}"
    return f"{len(classes):,} different numbers from {values.min():g} to {values.max():g}, {between}"


def _largest(classes: dict[str, int]) -> str:
    largest = sorted(classes.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{cell(visible(text), 40)} {count:,}" for text, count in largest[:8])
    return shown + (f", and {len(largest) - 8:,} more" if len(largest) > 8 else "")


def _journal(about: dict[str, Any] | None) -> dict[str, str]:
    """The line on what people labelled, where they did."""
    from embedcache.labelling.opened import labels_line

    if about is None:
        return {}
    entries = "1 entry" if about["entries"] == 1 else f"{about['entries']:,} entries"
    by = f" by {about['people']} people" if about["people"] > 1 else ""
    return {"journal": f"{labels_line(about)}; {entries}{by}"}


def _made_by(encoder: dict[str, Any]) -> str:
    """How the encoder made the vectors, in a few words."""
    identity = encoder["identity"]
    if imported_name(encoder) is not None:
        known = (
            "" if identity["imported"] == encoder["source"] else "; comparable with no others, as no --encoder is named"
        )
        return f"imported from {', '.join(encoder['import']['files'])}{known}"
    return f"{identity.get('architecture', '')}, {identity['max_length']} tokens, {identity['compute_dtype']}"


def _made_of(encoder: dict[str, Any]) -> dict[str, str]:
    """Lines on what the model's authors prescribe and on what is done to a text first, where there is anything."""
    from embedcache.encoder.int8 import in_int8
    from embedcache.encoder.prescription import in_words

    lines = {"model": in_words(encoder["model"])} if "model" in encoder else {}
    if encoder["identity"].get("compute_dtype") == "int8":
        lines["int8"] = in_int8(encoder["identity"].get("kept", []))
    if prompt := encoder["identity"].get("prompt"):
        lines["prompt"] = f"{prompt!r} before every text"
    if task := encoder["identity"].get("task"):
        lines["task"] = f"{task}, by the model's adapter for it"
    done = {"lower_case": "in lower case", "chunk": "longer ones in chunks"}
    texts = ", ".join(words for name, words in done.items() if encoder["identity"].get(name))
    return lines | ({"texts": texts} if texts else {})


def _layers(about: dict[str, Any]) -> str:
    return "layer" if about["layers"] == 1 else f"{about['layers']} layers"


def _states(about: dict[str, Any] | None) -> dict[str, str]:
    """The line on token states, where there are any."""
    if about is None:
        return {}
    if about["problem"]:
        return {"tokens": about["problem"]}
    todo = about["missing_rows"]
    state = f"{todo:,} rows to go, run extract again" if todo else "complete"
    return {
        "tokens": f"what the last {_layers(about)} read: {about['tokens']:,} x {about['dim']}, "
        f"{human_bytes(about['bytes'])} in {about['files'][1]}, {state}"
    }


def verify(cache: str, report: VerifyReport) -> None:
    if report.ok:
        states = f" and the token states of {plural(report.texts, 'text')}" if report.texts else ""
        click.echo(f"{cache}: {plural(report.blocks, 'block')}{states} checked, no damage")
    for span in report.incomplete:
        what = "none" if span.dataset == "token states" else "no vectors"
        click.echo(
            f"  {span.dataset} rows {span.start:,} to {span.stop - 1:,} have {what} yet; run extract to continue"
        )


def damage(cache: str, report: VerifyReport) -> str:
    """All damaged spans in one line."""
    spans = [f"{span.dataset} rows {span.start:,} to {span.stop - 1:,}" for span in report.damaged]
    shown = "; ".join(spans[:20]) + (f"; and {len(spans) - 20:,} more" if len(spans) > 20 else "")
    return f"{cache} is damaged: {shown}; run the same extract again to repair it"
