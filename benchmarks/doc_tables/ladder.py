"""The tables of what `embedcache ladder --json` printed, as Markdown; write.py puts them into the pages."""

from __future__ import annotations

from typing import Any


def first_table(reports: list[dict[str, Any]]) -> str:
    """For the README: each rung of all ladders once, its test score, its seconds."""
    lines = ["| rung | encoder | test accuracy | 95% interval | seconds |", "| --- | --- | ---: | --- | ---: |"]
    rungs = {(one["encoder"] or "", one["rung"]): one for report in reports for one in report["rungs"]}
    for (encoder, rung), one in sorted(rungs.items(), key=lambda item: item[0][0]):  # each encoder's keep their order
        lines.append(f"| `{rung}` | {encoder} | {_score(one)} | {_interval(one)} | {_seconds(one)} |")
    return "\n".join(lines) + "\n"


def ladder_table(report: dict[str, Any]) -> str:
    """Everything: the scores of the seeds, the gain over the rung below, what it cost."""
    rows, seeds = report["rows"], report["seeds"]
    lines = [
        f"{rows['train']:,} training, {rows['val']:,} validation, {rows['test']:,} test rows of "
        f"{report['test_groups']} films; seeds {', '.join(map(str, seeds))}:",
        "",
        f"| {_rung(report)} | parameters | test accuracy | its seeds | 95% interval | gain | p | seconds | load |",
        "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in report["rungs"]:
        each = ", ".join(f"{score:.3f}" for score in one["scores"]) if one["seeds"] else ""
        gain = "" if one["gain"] is None else f"{one['gain']:+.3f}"
        p = one["p_over_previous"]
        shown = "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
        load = "" if one["load"] is None else f"{one['load']:.0f}"
        lines.append(
            f"| {_name(one)} | {one['parameters']:,} | {_score(one)} | {each} | {_interval(one)} | {gain} | {shown} "
            f"| {_seconds(one)} | {load} |"
        )
    better: dict[str, list[str]] = {}
    for one in report["better"]:
        better.setdefault(one["rung"], []).append(f"`{one['than']}`")
    said = "; ".join(f"`{rung}` than {', '.join(than)}" for rung, than in better.items())
    lines += ["", f"Where to stop: `{report['stop_at']}`. Significantly better: {said or 'none'}."]
    return "\n".join(lines) + "\n"


def _rung(report: dict[str, Any]) -> str:
    names = [one["name"] for one in report["encoders"]]
    return f"rung, {names[0]}" if len(names) == 1 else "rung (encoder)"


def _name(one: dict[str, Any]) -> str:
    return f"`{one['rung']}`" + (f" ({one['encoder']})" if one["name"] != one["rung"] else "")


def _score(one: dict[str, Any]) -> str:
    """The mean over the seeds."""
    return f"**{one['test_score']:.3f}**"


def _interval(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{low:.3f} to {high:.3f}"


def _seconds(one: dict[str, Any]) -> str:
    """Of the seed that other work on the machine slowed down least."""
    return f"{min(one['seconds_of_seeds']):,.0f}"
