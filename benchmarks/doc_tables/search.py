"""The tables and the picture of benchmarks/search's JSON; write.py puts the tables into the pages.

python -m benchmarks.doc_tables.search      docs/images/search-glove.png, search-reviews.png
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

TITLES = {"glove": "GloVe", "reviews": "Reviews (CLS of MiniLM)"}
PEERS = ("FAISS exact", "FAISS HNSW32", "autofaiss", "hnswlib", "usearch")


def about(report: dict[str, Any]) -> str:
    machine = report["machine"]
    load = f"load average {report['load_average_at_start']:.1f} to {report['load_average_at_end']:.1f}"
    versions = f"faiss {machine['faiss-cpu']}, hnswlib {machine['hnswlib']}, usearch {machine['usearch']}"
    return f"{machine['cpu']}, {machine['cores']} threads, {versions}; medians of {report['turns']} turns, {load}:\n"


def cores(report: dict[str, Any]) -> int:
    return int(report["machine"]["cores"])


def rate(point: dict[str, float], threads: int) -> float:
    """Queries a second of a machine that does nothing else: of a second of processor time, times the threads."""
    return threads * point["per_core_second"]


def full_tables(report: dict[str, Any]) -> str:
    """Each case at the recall of the comparison, then the whole curves: for docs/search.md."""
    return "\n".join(
        [
            about(report),
            *(part for case in report["cases"] for part in (_at(case, cores(report)), _curves(case, cores(report)))),
        ]
    )


def _at(case: dict[str, Any], threads: int) -> str:
    title = f"{TITLES[case['data']]}, {case['rows']:,} x {case['dim']}, {case['queries']:,} held-out queries"
    heads = ["queries/s", "recall@10", "build s", "by processor time", "build core-s", "MB", "one query ms"]
    lines = [f"| {title} | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for name, result in case["results"].items():
        at = result.get("at")
        rate = f"{at['queries_per_second']:,.0f}" if at else "-"
        cells = [f"**{rate}**" if name == "embedcache" else rate, f"{at['recall']:.4f}" if at else "not reached"]
        cells += [
            f"{result['build_seconds']:.1f}",
            f"{threads * at['per_core_second']:,.0f}" if at else "-",
            f"{result['build_core_seconds']:.1f}",
            f"{result['bytes'] / 1e6:,.0f}",
            f"{at['single_ms']:.2f}" if at else "-",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _ratio(case)]) + "\n"


def best_peer(case: dict[str, Any]) -> str:
    """The fastest of those that reach the recall of the comparison."""
    reached = [name for name in PEERS if "at" in case["results"].get(name, {})]
    return max(reached, key=lambda name: float(case["results"][name]["at"]["queries_per_second"]))


def _ratio(case: dict[str, Any]) -> str:
    """embedcache against the best peer, by turns of the same round."""
    results, best = case["results"], best_peer(case)
    ours, theirs = results["embedcache"]["at"], results[best]["at"]
    turns = [a / b for a, b in zip(ours["turns"], theirs["turns"], strict=True)]
    ratio = ours["queries_per_second"] / theirs["queries_per_second"]
    told = (
        f"To the best peer ({best}): **{ratio:.1f}** times the queries/s (single "
        f"turns {min(turns):.1f} to {max(turns):.1f})."
    )
    alone = results["embedcache"]["build_seconds_without_tuning"]
    if not alone:
        return told + " embedcache builds nothing here: it compares every row."
    graph = results["FAISS HNSW32"]["build_seconds"]
    return (
        f"{told} It is built in {alone:.1f} s, 1/{graph / alone:.1f} of HNSW32's time; with measuring and tuning "
        f"{results['embedcache']['build_seconds']:.1f} s, 1/{graph / results['embedcache']['build_seconds']:.1f}."
    )


def _curves(case: dict[str, Any], threads: int) -> str:
    lines = [f"| {TITLES[case['data']]}: recall@10 -> queries/s by processor time | |", "| --- | --- |"]
    for name, result in case["results"].items():
        points = [f"{point['recall']:.3f} -> {rate(point, threads):,.0f}" for point in result["curve"]]
        lines.append(f"| {name} ({result['settings']}) | {'; '.join(points)} |")
    return "\n".join(lines) + "\n"


def center_table(report: dict[str, Any]) -> str:
    """benchmarks/search/center.py: with and without centring, a line for each cache's pooling."""
    heads = "| vectors | median cosine | same label | the same, centred | other films | centred | same film | centred |"
    lines = [heads, "| --- |" + " ---: |" * 7]
    for plain, centred in zip(report["cases"][::2], report["cases"][1::2], strict=True):
        keys = ("label_agreement", "label_agreement_other_groups", "same_group")
        pairs = [f"{one[key]:.1%}" for key in keys for one in (plain, centred)]
        name = f"{plain['cache'].removesuffix('.h5')}, {plain['pooling']}"
        lines.append(f"| {name} | {plain['median_cosine']:.2f} | {' | '.join(pairs)} |")
    return "\n".join(lines) + "\n"


def cold_table(report: dict[str, Any]) -> str:
    """benchmarks/search/cold.py: seconds of whole processes."""
    lines = ["| from exec to exit | median s | worst s |", "| --- | ---: | ---: |"]
    for name, seconds in report["seconds"].items():
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")
    return "\n".join(lines) + "\n"


def draw(case: dict[str, Any], threads: int, path: Path) -> None:
    """recall@10 against queries/s, up and to the right is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, result in case["results"].items():
        points = sorted((point["recall"], rate(point, threads)) for point in result["curve"])
        points = [point for point in points if point[0] >= 0.8]
        if not points:
            continue
        ours = name == "embedcache"
        style = {"linewidth": 3, "zorder": 3, "color": "black"} if ours else {"linewidth": 1.4}
        axes.plot(*zip(*points, strict=True), marker="o", markersize=5 if ours else 4, label=name, **style)
    axes.set_yscale("log")
    axes.set_xlabel("recall@10")
    axes.set_ylabel("queries/s by processor time (log)")
    axes.set_title(f"{TITLES[case['data']]}, {case['rows']:,} x {case['dim']}, batch of {case['queries']:,}")
    axes.axvline(0.99, color="gray", linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    for file in sorted((ROOT / "benchmarks" / "results").glob("search-*.json")):
        report = json.loads(file.read_text())
        for case in report["cases"]:
            draw(case, cores(report), ROOT / "docs" / "images" / f"search-{case['data']}.png")


if __name__ == "__main__":
    main()
