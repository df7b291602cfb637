"""Write the measured tables into README.md and docs/engine.md, from the JSON in benchmarks/results/.

    python benchmarks/tables.py [--check]

A table stands between `<!-- heads -->` and `<!-- end -->`; nothing else of a page is touched.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- heads -->\n", "<!-- end -->\n"


def heads_table(report: dict[str, Any]) -> str:
    """Markdown: one row for every engine of every case; the ratio is native's, to the best peer."""
    machine = report["machine"]
    lines = [
        f"{machine['cpu']}, {report['threads']} threads, torch {machine['torch']}, load average "
        f"{report['load_average_at_start']:.1f} to {report['load_average_at_end']:.1f}:",
        "",
        "| case | engine | seconds | head-rows/s | GFLOP/s | of sgemm | ratio to the best peer (single turns) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in report["cases"]:
        title = f"{case['name']}; {case['rows']:,} rows x {case['epochs']} epochs"
        turns = f"{case['ratio_lowest_turn']:.1f} to {case['ratio_highest_turn']:.1f}"
        ratio = f"**{case['ratio']:.1f}** ({case['best_peer']}; {turns})"
        for i, (engine, result) in enumerate(case["results"].items()):
            lines.append(
                f"| {'' if i else title} | {engine} | {result['seconds']:.2f} | {result['head_rows_per_second']:,.0f} "
                f"| {result['gflops']:.0f} | {result['of_sgemm']:.0%} | {'' if i else ratio} |"
            )
    return "\n".join(lines) + "\n"


def short_table(report: dict[str, Any]) -> str:
    """Markdown: one row a case; ours, the best peer, and the loop that most people write."""
    machine = report["machine"]
    lines = [
        f"{machine['cpu']}, {report['threads']} threads, torch {machine['torch']}:",
        "",
        "| case | embedcache | head-rows/s | the best peer | ratio (single turns) | torch eager |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in report["cases"]:
        ours, best, eager = next(iter(case["results"].values())), case["best_peer"], case["results"]["torch eager"]
        lines.append(
            f"| {case['name']}; {case['rows']:,} rows x {case['epochs']} epochs | {ours['seconds']:.2f} s "
            f"| {ours['head_rows_per_second']:,.0f} | {case['results'][best]['seconds']:.2f} s ({best}) "
            f"| **{case['ratio']:.1f}** ({case['ratio_lowest_turn']:.1f} to {case['ratio_highest_turn']:.1f}) "
            f"| {eager['seconds']:.2f} s |"
        )
    return "\n".join(lines) + "\n"


PAGES = {ROOT / "README.md": short_table, ROOT / "docs" / "engine.md": heads_table}


def with_table(page: str, table: str) -> str:
    before, rest = page.split(START)
    return before + START + table + END + rest.split(END, 1)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where a table is old")
    check = parser.parse_args().check
    reports = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("heads-*.json"))]
    for path, table in PAGES.items():
        page = path.read_text(encoding="utf-8")
        new = with_table(page, "\n".join(table(report) for report in reports))
        if check and new != page:
            sys.exit(f"{path.name} does not show what benchmarks/results/ holds: run python benchmarks/tables.py")
        if not check:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
