"""The tables of benchmarks/audit's JSON, as Markdown; write.py puts them into docs/audit.md."""

from __future__ import annotations

from statistics import mean
from typing import Any

COLUMNS = {  # shown: key in the JSON
    "audit": "audit",
    "self-confidence": "cleanlab self_confidence, heads",
    "margin": "cleanlab normalized_margin, heads",
    "find_label_issues": "cleanlab find_label_issues, heads",
    "tutorial, self-confidence": "cleanlab self_confidence, tutorial",
}
NAMES = {
    "drugs": "drug reviews, 600 in three classes, 393:153:54",
    "reviews": "reviews, 4,000 in two classes",
    "newsgroups": "newsgroups, 4,000 in twenty",
    "imbalanced": "reviews at 10:1, 3,300",
    "three": "three kinds of computers, 600 posts, 392:154:54",
    "one-way": "reviews, errors in one class alone",
}


def audit_table(report: dict[str, Any]) -> str:
    """precision.py: one row a data set and pooling; means over the seeds, and the lowest of audit's."""
    lines = [f"| {report['model']} | {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
    for name, measured in report["precision"].items():
        shown = [f"{mean(measured[key]):.3f}" if key in measured else "" for key in COLUMNS.values()]
        shown[0] = f"**{shown[0]}** ({min(measured['audit']):.3f} at least)"
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def label_errors_table(report: dict[str, Any]) -> str:
    """count.py: one row for each data set and share of exchanged labels; means over the seeds."""
    lines = [
        f"MiniLM, seeds {', '.join(map(str, report['seeds']))}, cleanlab {report['machine']['cleanlab']}:",
        "",
        "| | exchanged | estimate (mean interval) | held | errors in the rows to read: expected, found | listed | "
        "cleanlab find_label_issues | cleanlab joint |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for data, shares in report["counts"].items():
        for i, runs in enumerate(shares.values()):
            of = {key: mean(run[key] for run in runs) for key in ("truth", "estimate", "listed", "cleanlab")}
            joint, held = mean(run["cleanlab_joint"] for run in runs), sum(run["inside"] for run in runs)
            low, high = (mean(run["interval"][end] for run in runs) for end in (0, 1))
            expected, found = mean(run["expected"][1] for run in runs), mean(run["there"][1] for run in runs)
            lines.append(
                f"| {'' if i else NAMES.get(data, data)} | {of['truth']:,.0f} | **{of['estimate']:,.0f}** "
                f"({low:,.0f} to {high:,.0f}) | {held} of {len(runs)} | {expected:,.0f}, {found:,.0f} "
                f"| {of['listed']:,.0f} | {of['cleanlab']:,.0f} | {joint:,.0f} |"
            )
    return "\n".join(lines) + "\n"
