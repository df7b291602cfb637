"""A ladder as one HTML file that needs no network: the report's blocks."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from embedcache.common.machine import size
from embedcache.common.screen import number, plural
from embedcache.common.whole_file import whole_file
from embedcache.ladder.outcome import LadderReport, RungResult
from embedcache.ladder.plan import minutes
from embedcache.report import plots
from embedcache.report.blocks import Cards, Chapter, Facts, Figure, Grid, Notes, Paragraph, Section, count
from embedcache.report.page import render
from embedcache.runs.scores import title


def write_page(report: LadderReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises EmbedcacheError where nothing can be written there."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        Section("Where to stop", "stop", _stop(report)),
        Section("The rungs", "rungs", [_picture(report), _scores(report)]),
        Section("What they cost", "costs", [_costs(report), *_passes(report)]),
        Section("The rows", "rows", [_facts(report), *([Notes(report.notes)] if report.notes else [])]),
    ]
    name = Path(report.output).resolve().name
    page = render("embedcache ladder", name, "ladder", f"Climbed {now}", [Chapter(None, "ladder", sections)], [])
    with whole_file(path) as file:
        file.write(page)


def _stop(report: LadderReport) -> list[Any]:
    stop = next(one for one in report.rungs if one.name == report.stop_at)
    best = max(report.rungs, key=lambda one: -1e9 if one.test_score is None else one.test_score)
    cards = [
        ("Stop at", stop.name, f"{number(stop.test_score)}, {count(stop.parameters)} trained parameters"),
        ("Highest score", best.name, f"{number(best.test_score)}; the same rows"),
        ("Test rows", count(report.rows["test"]), _groups(report)),
    ]
    found = [
        [one["rung"], one["than"], f"{one['difference']:+.4f}", between(one["interval"], "+.3f"), p_value(one["p"])]
        for one in report.better
    ]
    titles = ("better", "than", f"{title(report.metric)} gained", "95% interval", "p")
    pairs = [Grid("Significantly better, in pairs on the same rows", titles, found, words=(0, 1))] if found else []
    return [Cards(cards), Paragraph(f"Stop at: {report.rule}."), *pairs]


def _groups(report: LadderReport) -> str:
    return "scored once by every rung" if report.test_groups is None else f"of {plural(report.test_groups, 'group')}"


def _picture(report: LadderReport) -> Figure:
    """Encoders by their number: a picture holds no text from the data."""
    place = {one["name"]: i for i, one in enumerate(report.encoders, 1)}
    several = len(place) > 1
    drawn = [
        (f"{one.rung} ({place[one.encoder]})" if several and one.encoder else one.rung, one.test_score, one.interval)
        for one in report.rungs
        if one.test_score is not None
    ]
    names = [one.name for one in report.rungs if one.test_score is not None]
    ours = names.index(report.stop_at) if report.stop_at in names else 0
    said = ", ".join(f"{name} {value:.3f}" for name, (_, value, _) in zip(names, drawn, strict=True))
    which = "".join(f" ({i}) is {name}." for name, i in place.items()) if several else ""
    with plots.drawing():
        svg = plots.compared("ladder", title(report.metric), drawn, ours)
    return Figure(svg, f"{report.metric}: {said}", f"The bands are 95% intervals; where to stop stands out.{which}")


def _scores(report: LadderReport) -> Grid:
    several = len(report.seeds) > 1
    spread = [f"of {len(report.seeds)} seeds"] if several else []
    titles = [
        "rung", "trained", "parameters", title(report.metric), *spread, "95% interval", "gain", "its 95% interval", "p",
    ]  # fmt: skip
    rows = [
        [
            one.name, one.trained, count(one.parameters), number(one.test_score), *([seeds(one)] if several else []),
            between(one.interval), number(one.gain, "+.4f"), between(one.gain_interval, "+.3f"),
            p_value(one.p_over_previous),
        ]
        for one in report.rungs
    ]  # fmt: skip
    return Grid("On the same test rows; the gain is over the rung below", titles, rows, words=(0, 1))


def _costs(report: LadderReport) -> Grid:
    own = "its own, a seed" if len(report.seeds) > 1 else "its own"
    titles = ("rung", "once", own, "planned", "peak memory", "disk", "predictions/s", "load")
    return Grid("Seconds, memory, disk, speed", titles, [[one.name, *costs(one)] for one in report.rungs])


def costs(one: RungResult) -> list[str]:
    """The cells behind the name."""
    return [
        "-" if one.seconds_once is None else minutes(one.seconds_once),
        minutes(one.seconds),
        "-" if one.predicted_seconds is None else minutes(one.predicted_seconds),
        "-" if one.peak_memory is None else size(one.peak_memory),
        size(one.disk),
        "-" if one.predictions_per_second is None else f"{one.predictions_per_second:,.0f}",
        number(one.load, ".1f"),
    ]


def _passes(report: LadderReport) -> list[Grid]:
    rows = [
        [one["name"], minutes(one["seconds"]), size(one["disk"]), size(one["peak_memory"] or 0)]
        for one in report.encoders
        if one["seconds"] is not None
    ]
    return (
        [Grid("Once for all rungs: the pass over the texts", ("encoder", "time", "disk", "peak memory"), rows)]
        if rows
        else []
    )


def _facts(report: LadderReport) -> Facts:
    pairs = [("Rows", report.input), ("Label column", report.label), ("Kind", report.kind)]
    pairs += [(f"{side.capitalize()} rows", count(rows)) for side, rows in report.rows.items()]
    pairs += [("Groups", f"{report.group}: {_groups(report)}")] if report.group is not None else []
    return Facts([*pairs, ("Seed of the split", str(report.seed)), ("Seeds", ", ".join(map(str, report.seeds)))])


def seeds(one: RungResult) -> str:
    """The lowest and the highest score of its seeds."""
    known = [score for score in one.scores if score is not None]
    return "-" if len(known) < 2 else between((min(known), max(known)), ".4f")


def between(interval: Any, form: str = ".3f") -> str:
    """An interval in words."""
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def p_value(p: float | None) -> str:
    """A p value for people."""
    return "-" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
