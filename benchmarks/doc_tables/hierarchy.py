"""The tables of benchmarks/runs/hierarchy.py's JSON, as Markdown; write.py puts them into docs/hierarchy.md."""

from __future__ import annotations

from typing import Any

from benchmarks.doc_tables.trust import mean


def hierarchy_table(report: dict[str, Any]) -> str:
    """Accuracy of each way at each level; then what --sure promises and what the test rows do."""
    splits = report["splits"]
    rows, f1 = mean([one["test_rows"] for one in splits]), mean([one["hierarchical_f1"] for one in splits])
    levels = list(splits[0]["levels"])
    lines = [
        f"20 newsgroups, MiniLM, {len(splits)} splits of about {rows:,.0f} test rows; accuracy, means over the splits "
        f"(hierarchical F1 {f1:.3f}). Each split's difference of the path and the head, with its 95% interval:",
        "",
        "| level | path of the class | node of the largest sum | a head for the level alone | path less head |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for level in levels:
        ways = [one["levels"][level] for one in splits]
        cells = [f"{mean([one[way]['accuracy'] for one in ways]):.4f}" for way in ways[0]]
        apart = [one["head of the level"]["less"] for one in ways]
        less = "; ".join(f"{one['difference']:+.4f} ({_bounds(one['interval'])})" for one in apart)
        cells.append("the same head" if level == levels[-1] else less)
        lines.append(f"| {level} | {' | '.join(cells)} |")
    contradict = [one["heads_that_contradict"] for one in splits]
    lines += [
        "",
        f"The heads of the three levels contradict each other on {min(contradict):.1%} to {max(contradict):.1%} of the "
        "test rows; a path never does.",
        "",
        f"| `--sure` | {' | '.join(f'on {level}: promised, test' for level in levels)} | right: promised, test |",
        f"| --- |{' ---: |' * (len(levels) + 1)}",
    ]
    for i, first in enumerate(splits[0]["sure"]):
        some = [one["sure"][i] for one in splits]
        cells = [_both([one[side]["levels"][level] for one in some] for side in SIDES) for level in levels]
        cells.append(_both([one[side]["accuracy"] for one in some] for side in SIDES))
        lines.append(f"| {first['sure']:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


SIDES = ("promise", "test")


def _both(values: Any) -> str:
    return ", ".join(f"{mean(some):.1%}" for some in values)


def _bounds(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
