"""The table of benchmarks/label_errors.py's JSON, as Markdown; tables.py writes it into docs/audit.md."""

from __future__ import annotations

from statistics import mean
from typing import Any

NAMES = {
    "drugs": "drug reviews, 600 in three classes, 393:153:54",
    "reviews": "reviews, 4,000 in two classes",
    "newsgroups": "newsgroups, 4,000 in twenty",
    "imbalanced": "reviews at 10:1, 3,300",
    "three": "three kinds of computers, 600 posts, 392:154:54",
    "one-way": "reviews, errors in one class alone",
}


def label_errors_table(report: dict[str, Any]) -> str:
    """One row for each data set and share of exchanged labels; means over the seeds."""
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
