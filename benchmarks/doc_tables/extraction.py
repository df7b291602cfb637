"""The tables of benchmarks/extraction's JSON, as Markdown; write.py puts them into the pages."""

from __future__ import annotations

import statistics
from typing import Any


def about(report: dict[str, Any]) -> str:
    machine, shape = report["machine"], report["shape"]
    return (
        f"{report['model']} ({shape['layers']} layers, {shape['dim']} wide), max_length {report['max_length']}; "
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}:"
    )


def full_tables(report: dict[str, Any]) -> str:
    """Everything that was measured: for docs/extraction.md."""
    load = f"load average {report['load_average_at_start']:.1f} to {report['load_average_at_end']:.1f}"
    parts = [f"{about(report)[:-1]}; medians of {report['turns']} turns, {load}:\n"]
    parts += [_encode(case) for case in report["encode"]]
    parts += [part(report) for part in (_command, _busy, _quality)]
    return "\n".join(part for part in parts if part)


def _title(case: dict[str, Any]) -> str:
    return f"{case['texts']} texts ({case['tokens_per_row']:.0f} tokens)"


def _encode(case: dict[str, Any]) -> str:
    product = ", ".join(f"{rate:,.0f} in {dtype}" for dtype, rate in case["product_gflops"].items())
    ours = sorted({one["ours"] for one in case["ratios"]}, reverse=True)
    head = [f"{_title(case)}; matrix products {product} GFLOP/s", "rows/s", "tokens/s", "useful GFLOP/s", "of the rate"]
    lines = [f"| {' | '.join([*head, 'worst cosine', *(name.replace(', ', ' in ') + ' to it' for name in ours)])} |"]
    lines.append(f"| --- |{' ---: |' * (5 + len(ours))}")
    for name, result in case["results"].items():
        numbers = [f"{result[key]:,.0f}" for key in ("rows_per_second", "tokens_per_second", "useful_gflops")]
        numbers += [f"{result['of_product_rate']:.0%}", f"{result['worst_cosine']:.6f}"]
        ratios = {one["ours"]: one for one in case["ratios"] if one["peer"] == name}
        numbers += [_ratio(ratios.get(one)) for one in ours]
        lines.append(f"| {name} ({result['settings']}) | {' | '.join(numbers)} |")
    return "\n".join(lines) + "\n"


def _ratio(one: dict[str, Any] | None) -> str:
    return f"**{one['ratio']:.2f}** ({one['lowest_turn']:.2f} to {one['highest_turn']:.2f})" if one else ""


def _command(report: dict[str, Any]) -> str:
    if "command" not in report:
        return ""
    lines = ["| `embedcache extract`, the whole command | rows encoded | seconds | rows/s | start and load |"]
    lines[0] += " rows/s without | 1% more | again |"
    lines.append(f"| --- |{' ---: |' * 7}")
    for kind, of in report["command"].items():
        for dtype, one in of.items():
            numbers = [f"{one['encoded']:,}", f"{one['seconds']:.1f}", f"{one['rows_per_second']:,.0f}"]
            numbers += [f"{one['load_seconds']:.1f} s", f"{one['rows_per_second_loaded']:,.0f}"]
            numbers += [f"{one[key]:.1f} s" if key in one else "" for key in ("append_seconds", "again_seconds")]
            lines.append(f"| {kind} texts, {dtype} | {' | '.join(numbers)} |")
    return "\n".join(lines) + "\n"


def _busy(report: dict[str, Any]) -> str:
    if "busy" not in report:
        return ""
    kept = [f"{name} {result['kept']:.0%}" for name, result in report["busy"]["results"].items()]
    return f"Beside a process that keeps one core busy they keep of their rate: {'; '.join(kept)}.\n"


def _quality(report: dict[str, Any]) -> str:
    if "quality" not in report:
        return ""
    quality = report["quality"]
    of = quality["validation_accuracy"]
    dtypes = list(next(iter(of.values())))
    title = f"validation accuracy, {quality['rows']:,} rows, {quality['seeds']} seeds"
    lines = [f"| {title} | {' | '.join(dtypes)} | difference of the means | spread of the seeds ({dtypes[0]}) |"]
    lines.append(f"| --- |{' ---: |' * (len(dtypes) + 2)}")
    for name, values in of.items():
        means = [statistics.mean(values[dtype]) for dtype in dtypes]
        last = [f"{100 * (means[-1] - means[0]):+.2f} points", f"{100 * statistics.stdev(values[dtypes[0]]):.2f}"]
        lines.append(f"| {name} | {' | '.join([*(f'{100 * mean:.2f}%' for mean in means), *last])} |")
    return "\n".join(lines) + "\n"
