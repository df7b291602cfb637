"""The table of benchmarks/audit.py's JSON, as Markdown; tables.py writes it into docs/audit.md."""

from __future__ import annotations

from statistics import mean
from typing import Any

COLUMNS = {
    "audit": "audit",
    "self-confidence": "cleanlab self_confidence, heads",
    "margin": "cleanlab normalized_margin, heads",
    "find_label_issues": "cleanlab find_label_issues, heads",
    "tutorial, self-confidence": "cleanlab self_confidence, tutorial",
}


def audit_table(report: dict[str, Any]) -> str:
    """One row a data set and pooling; means over the seeds, and the lowest of audit's."""
    lines = [f"| {report['model']} | {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
    for name, measured in report["precision"].items():
        shown = [f"{mean(measured[key]):.3f}" if key in measured else "" for key in COLUMNS.values()]
        shown[0] = f"**{shown[0]}** ({min(measured['audit']):.3f} at least)"
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"
