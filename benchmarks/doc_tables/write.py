"""Write the measured tables into README.md and the pages of docs/, from the JSON in benchmarks/results/.

    python -m benchmarks.doc_tables.write [--check]

A table stands between a mark such as `<!-- heads -->` and the next `<!-- end -->`; nothing else of a page is
touched.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.doc_tables.audit import audit_table, label_errors_table
from benchmarks.doc_tables.extraction import full_tables
from benchmarks.doc_tables.first_page import measured_table
from benchmarks.doc_tables.hierarchy import hierarchy_table
from benchmarks.doc_tables.ladder import first_table, ladder_table
from benchmarks.doc_tables.runs import small_table
from benchmarks.doc_tables.search import center_table, cold_table
from benchmarks.doc_tables.search import full_tables as search_tables
from benchmarks.doc_tables.trust import drift_table, explain_table, explain_words_table, reject_table
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


LADDER = "ladder-12808"
Table = tuple[tuple[str, ...], Callable[[list[dict[str, Any]]], str]]  # how its JSON files begin; the table of them


def each(name: str, table: Callable[[dict[str, Any]], str]) -> Table:
    """A table for each JSON file, one under the other."""
    return (name,), lambda reports: "\n".join(map(table, reports))


TABLES: dict[Path, dict[str, Table]] = {  # page: name of the mark, table
    ROOT / "README.md": {
        "measured": (("extract", "heads", "search"), measured_table),
        LADDER: ((LADDER,), first_table),
    },
    ROOT / "docs" / "engine.md": {"heads": each("heads", heads_table)},
    ROOT / "docs" / "extraction.md": {"extract": each("extract", full_tables)},
    ROOT / "docs" / "finetuning.md": {LADDER: each(LADDER, ladder_table)},
    ROOT / "docs" / "ladder.md": {"ladder-4000": each("ladder-4000", ladder_table)},
    ROOT / "docs" / "hierarchy.md": {"hierarchy": each("hierarchy", hierarchy_table)},
    ROOT / "docs" / "recipes.md": {"small": each("small", small_table)},
    ROOT / "docs" / "audit.md": {
        "audit": each("audit", audit_table),
        "label-errors": each("label-errors", label_errors_table),
    },
    ROOT / "docs" / "search.md": {
        "search": each("search", search_tables),
        "center": each("center", center_table),
        "cold": each("cold", cold_table),
    },
    ROOT / "docs" / "trust.md": {
        "reject": each("reject", reject_table),
        "explain": each("explain", explain_table),
        "explain words": each("explained", explain_words_table),
    },
    ROOT / "docs" / "drift.md": {"drift": each("drift", drift_table)},
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
        for mark, (names, table) in tables.items():
            files = [file for name in names for file in sorted(RESULTS.glob(f"{name}-*.json"))]
            new = with_table(new, mark, table([json.loads(file.read_text()) for file in files]))
        if check and new != page:
            sys.exit(f"{path.name} is behind benchmarks/results/: run python -m benchmarks.doc_tables.write")
        if not check:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
