"""The section on the data themselves: what `embedcache audit` found and wrote as JSON beside its CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedcache.audit.report import beside_table
from embedcache.common.checked import SchemaError, conform, read_json
from embedcache.common.label_names import visible
from embedcache.common.screen import number, plural
from embedcache.errors import EmbedcacheError
from embedcache.report.audit_schema import Audit
from embedcache.report.blocks import Facts, Grid, Mistakes, Paragraph, Section, count

FILE = "audit.json"  # in a run's folder it is taken without being named
CLASSES = 20  # whose errors are counted
LABELS, GROUPS, ROWS, OUTLIERS = 20, 10, 4, 10  # that are shown; rows of a group


def read_audit(path: Path) -> dict[str, Any]:
    """AuditReport.to_dict() from the .json, or from that beside a table. Raises EmbedcacheError for anything else."""
    path = path if path.suffix.lower() == ".json" else beside_table(path)
    again = "embedcache audit CACHE -o audit.csv writes one"
    try:
        audit: dict[str, Any] = read_json(path)
        conform(audit, Audit)
    except OSError as error:
        raise EmbedcacheError(f"cannot read {path}: {error.strerror}; {again}") from None
    except SchemaError as error:
        raise EmbedcacheError(f"{path} is not the report of an audit, or is damaged ({error}); {again}") from None
    return audit


def audit_section(audit: dict[str, Any], prefix: str) -> Section:
    """prefix: of its id."""
    found = audit["found"]
    sides = f", {count(found['across'])} of them on several sides of the split" if audit["split"] else ""
    facts = [
        ("Cache", f"{audit['cache']}, {count(audit['rows'])} rows, {count(audit['judged'])} of them judged"),
        ("Label errors", _estimate(audit)),
        ("Texts there more than once", f"{plural(found['duplicate'], 'group')}{sides}"),
        ("Unlike all others", plural(found["outlier"], "row")),
        ("Judged by", ", ".join(f"{name} {weight:.2f}" for name, weight in audit["weights"].items())),
    ]
    said = (
        "Rows on which heads, neighbours and words that have not seen them disagree with the label. Some are wrongly "
    )
    said += "labelled, some are merely hard: check before you change them."
    blocks: list[Any] = [
        Paragraph(said),
        Facts(facts),
        *_per_class(audit),
        *_labels(audit),
        *_duplicates(audit),
        *_outliers(audit),
    ]
    return Section(f"Audit of the data, column {audit['label']}", f"{prefix}audit", blocks)


def _estimate(audit: dict[str, Any]) -> str:
    """How many; audits of older versions only list rows."""
    errors = audit.get("errors")
    if not errors:
        return f"{count(audit['found']['label'])} rows for which another label is likelier, not all of them wrong"
    low, high = errors["interval"]
    return f"about {count(errors['estimate'])} (95% interval {count(low)} to {count(high)})"


def _per_class(audit: dict[str, Any]) -> list[Any]:
    errors = audit.get("errors")
    if not errors:
        return []
    some = sorted(errors["per_class"], key=lambda one: -one["estimate"])[:CLASSES]
    rows = [
        [
            visible(one["label"]),
            count(one["rows"]),
            count(one["estimate"]),
            "{} to {}".format(*map(count, one["interval"])),
        ]
        for one in some
    ]
    which = f"; the {CLASSES} with the most" if len(errors["per_class"]) > CLASSES else ""
    read = errors["read"]
    said = f"Read the first {count(read['rows'])} rows of the list: about {read['expected']:.0f} errors are expected "
    said += f"among them, {read['expected_first']:.0f} of these among the first {count(read['first'])}."
    table = Grid(f"Estimated label errors of each class{which}", ("labelled", "rows", "errors", "interval"), rows)
    return [table, Paragraph(said)] if read["rows"] else [table]


def _labels(audit: dict[str, Any]) -> list[Any]:
    items: list[tuple[list[str], str, str | None]] = []
    for one in audit["labels"][:LABELS]:
        head = [
            visible(str(one["label"])),
            ", likelier ",
            visible(str(one["suggested"])),
            f": {number(one['suggested_probability'], '.3f')}",
        ]
        asked = [
            f"{name} {number(one[name], '.2f')}" for name in ("heads", "neighbours", "words") if one[name] is not None
        ]
        items.append((head, f"{_where(one)}; its own label: {', '.join(asked)}", str(one["text"])))
    which = f"The first {len(items)} of the {count(audit['found']['label'])} rows listed, worst first:"
    return [Paragraph(which), Mistakes(items)] if items else []


def _duplicates(audit: dict[str, Any]) -> list[Any]:
    rows = [
        [group, many["kind"], count(one["row"]), one["label"] or "-", one["split"] or "-", one["text"]]
        for group, many in enumerate(audit["duplicates"][:GROUPS], 1)
        for one in many["rows"][:ROWS]
    ]
    title = f"Texts that are there more than once: {min(GROUPS, len(audit['duplicates']))} of "
    title += plural(audit["found"]["duplicate"], "group")
    return [Grid(title, ("group", "how", "row", "label", "side", "text"), rows, words=(1, 3, 4, 5))] if rows else []


def _outliers(audit: dict[str, Any]) -> list[Any]:
    rows = [[count(one["row"]), number(one["score"]), one["label"] or "-", one["text"]] for one in audit["outliers"]]
    title = f"Unlike all others: {min(OUTLIERS, len(rows))} of {plural(audit['found']['outlier'], 'row')}"
    columns = ("row", "distance", "label", "text")
    return [Grid(title, columns, rows[:OUTLIERS], words=(2, 3))] if rows else []


def _where(one: dict[str, Any]) -> str:
    named = f", id {one['id']}" if one["id"] is not None else ""
    return f"row {count(one['row'])}{named}" + (f", {one['split']}" if one["split"] else "")
