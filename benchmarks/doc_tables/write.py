"""Write the measured tables into README.md and the pages of docs/, from the JSON in benchmarks/results/.

    python -m benchmarks.doc_tables.write [--check]

A table stands between `<!-- heads -->` (or `<!-- extract -->`) and the next `<!-- end -->`; nothing else of a page is
touched.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks.doc_tables.audit import audit_table, label_errors_table
from benchmarks.doc_tables.extraction import full_tables, rates_table
from benchmarks.doc_tables.ladder import first_table, ladder_table
from benchmarks.doc_tables.runs import small_table
from benchmarks.doc_tables.search import center_table, cold_table
from benchmarks.doc_tables.search import full_tables as search_tables
from benchmarks.doc_tables.search import short_table as search_short
from benchmarks.doc_tables.trust import drift_table, explain_table, reject_table
from benchmarks.machine import RESULTS, ROOT

END = "<!-- end -->\n"


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


LADDER = "ladder-12808"
TABLES = {  # page: name of the mark and of the JSON files, table
    ROOT / "README.md": {"heads": short_table, "extract": rates_table, "search": search_short, LADDER: first_table},
    ROOT / "docs" / "engine.md": {"heads": heads_table},
    ROOT / "docs" / "extraction.md": {"extract": full_tables},
    ROOT / "docs" / "finetuning.md": {LADDER: ladder_table},
    ROOT / "docs" / "recipes.md": {"small": small_table},
    ROOT / "docs" / "audit.md": {"audit": audit_table, "label-errors": label_errors_table},
    ROOT / "docs" / "search.md": {"search": search_tables, "center": center_table, "cold": cold_table},
    ROOT / "docs" / "trust.md": {"reject": reject_table, "explain": explain_table},
    ROOT / "docs" / "drift.md": {"drift": drift_table},
}


def with_table(page: str, name: str, table: str) -> str:
    start = f"<!-- {name} -->\n"
    if start not in page:
        return page
    before, rest = page.split(start)
    return before + start + table + END + rest.split(END, 1)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where a table is old")
    check = parser.parse_args().check
    for path, tables in TABLES.items():
        page = new = path.read_text(encoding="utf-8")
        for name, table in tables.items():
            reports = [json.loads(file.read_text()) for file in sorted(RESULTS.glob(f"{name}-*.json"))]
            new = with_table(new, name, "\n".join(table(report) for report in reports))
        if check and new != page:
            sys.exit(f"{path.name} is behind benchmarks/results/: run python -m benchmarks.doc_tables.write")
        if not check:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
