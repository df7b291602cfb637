"""The README's table of measured speeds: a line a case, ours beside the best peer's of the same run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.doc_tables.search import TITLES, best_peer

Line = tuple[str, str, str, float]  # case, ours, the best peer's, ratio


def measured_table(reports: list[dict[str, Any]]) -> str:
    """Markdown, from the JSON of extraction/speed.py, heads/speed.py and search/speed.py."""
    lines = ["| | embedcache | the best of its peers | ratio |", "| --- | ---: | ---: | ---: |"]
    for report in reports:
        of = _encoding if "encode" in report else _searching if "faiss-cpu" in report["machine"] else _training
        lines += [f"| {case} | **{ours}** | {theirs} | **{ratio:.1f}** |" for case, ours, theirs, ratio in of(report)]
    return "\n".join(lines) + "\n"


def _encoding(report: dict[str, Any]) -> Iterator[Line]:
    for dtype in ("float32", "bfloat16"):
        for case in report["encode"]:
            rates = {name: one["rows_per_second"] for name, one in case["results"].items()}
            ours = rates[f"embedcache, {dtype}"]
            peers = {name: rate for name, rate in rates.items() if not name.startswith("embedcache")}
            if dtype == "float32":  # who computes in bfloat16 may choose
                peers = {name: rate for name, rate in peers.items() if name.endswith(dtype)}
            best = max(peers, key=lambda name: peers[name])
            title = f"{case['texts']} texts ({case['tokens_per_row']:.0f} tokens) to vectors, MiniLM, {dtype}"
            yield title, f"{ours:,.0f} rows/s", f"{peers[best]:,.0f} ({best})", ours / peers[best]


def _training(report: dict[str, Any]) -> Iterator[Line]:
    for case in report["cases"]:
        ours, best = next(iter(case["results"].values())), case["best_peer"]
        title = f"train {case['name']} (768-512-2); {case['rows']:,} rows x {case['epochs']} epochs"
        title = title.replace("768-512-2", "768-2") if "probes" in title else title
        yield title, f"{ours['seconds']:.2f} s", f"{case['results'][best]['seconds']:.2f} s ({best})", case["ratio"]


def _searching(report: dict[str, Any]) -> Iterator[Line]:
    for case in report["cases"]:
        best = best_peer(case)
        at = {name: case["results"][name]["at"] for name in ("embedcache", best)}
        ours, theirs = (at[name]["queries_per_second"] for name in ("embedcache", best))
        size, recall = f"{case['rows']:,} x {case['dim']}", f"recall {at['embedcache']['recall']:.2f}"
        title = f"search in {TITLES[case['data']]}, {size}, {recall}"
        yield title, f"{ours:,.0f} queries/s", f"{theirs:,.0f} ({best})", ours / theirs
