"""CLS vectors from texts: embedcache against what people use now; same weights, same real texts, same max_length 250.

    python -m benchmarks.extraction.speed [--model minilm] [--texts short,long] [--turns 5] [--json PATH]

From texts to vectors, tokenizing included, each contender (peers.py) at its best settings, all cores, in turns;
medians of the turns, each turn in the JSON. Rows and tokens a second are of true tokens. `useful GFLOP/s` counts what
the vectors need at the least (yardstick.py: CLS row only in the last layer, no padding), the same for
everybody, against the matrix product rate measured in the same turns. `worst cosine`: the worst row, to the float32
vectors of plain transformers. Then the command itself on a file, beside a busy process, and heads on the vectors of
both dtypes (extract_command.py). `--quick` only shows that it runs. `--device cuda` has peers of its own, and fills up
the texts with rotations of their words: a GPU needs more rows than there are.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.command import extract_file, head_accuracy
from benchmarks.extraction.data import fetch, model_folder
from benchmarks.extraction.data import texts as real_texts
from benchmarks.extraction.peers import MAX_LENGTH, OURS, REFERENCE, Contender, contenders
from benchmarks.extraction.yardstick import product_rate, read_shape, token_counts, useful_flop
from benchmarks.machine import RESULTS, machine

ROWS = {
    "cpu": {"short": 1500, "long": 192, "mixed": 1200},
    "cuda": {"short": 60_000, "long": 6_000, "mixed": 30_000},
}
SLOW = {"article's loop, float32": {"cpu": 64, "cuda": 2048}}  # rows a turn; the cost of a row is always the same
COMPARED = 2000  # rows whose vectors are compared with those of plain transformers
BUSY = ("embedcache, float32", "embedcache, bfloat16", "sentence-transformers, float32", "OpenVINO, bfloat16")
BUSY_ROWS = 400
GOALS = {  # ours, peer: at least so many times its rate, on which texts
    ("embedcache, float32", "sentence-transformers, float32"): (1.5, ("short", "long", "mixed")),
    ("embedcache, bfloat16", "OpenVINO, bfloat16"): (1.2, ("short", "long", "mixed")),
    ("embedcache, bfloat16", "sentence-transformers, float32"): (2.8, ("short", "long", "mixed")),
    ("embedcache, bfloat16", "article's loop, float32"): (20.0, ("short",)),
}
PARTS = ("encode", "busy", "command", "quality")


def fill_up(texts: list[str], rows: int) -> list[str]:
    """So many texts; after the real ones come the same with their words rotated, for the same mix of lengths."""
    made, turn = list(texts[:rows]), 0
    while len(made) < rows:
        turn += 1
        rotated = (text.split() for text in texts)
        made += [" ".join(words[turn % len(words) :] + words[: turn % len(words)]) for words in rotated if words]
    return made[:rows]


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min())


def measure(kind: str, folder: Path, plain: np.ndarray, there: list[Contender], options: Any) -> dict[str, Any]:
    """All contenders on one kind of texts: tuned on a sample, one pass that does not count, then in turns."""
    texts, shape = texts_of(kind, options), read_shape(folder)
    lengths = token_counts(folder, texts, MAX_LENGTH)
    rows = {one.name: np.arange(len(texts)) for one in there}
    for name, few in SLOW.items():
        slow = min(few[options.device] // options.less, len(texts))
        rows[name] = np.linspace(0, len(texts) - 1, slow).astype(np.int64)
    parts = {name: [texts[i] for i in of] for name, of in rows.items()}
    results: dict[str, dict[str, Any]] = {}
    for one in list(there):
        try:
            tuned = one.tune(texts[:: 4 if options.device == "cuda" else max(3, len(texts) // 400)])
            vectors, of = one.run(parts[one.name])[1], lengths[rows[one.name]]
        except (RuntimeError, OSError) as error:  # a peer that dies of these texts must not cost the other figures
            print(f"{kind}: {one.name} left out, {error}", flush=True)
            there.remove(one)
            one.close()
            continue
        results[one.name] = {"settings": one.best, "seconds_of_settings": tuned, "seconds_of_turns": []}
        results[one.name] |= {"rows": len(of), "tokens": int(of.sum()), "useful_gflop": useful_flop(of, shape) / 1e9}
        _, mine, theirs = np.intersect1d(rows[one.name], compared(len(texts)), return_indices=True)
        results[one.name]["worst_cosine"] = worst_cosine(vectors[mine], plain[theirs])
    rates: dict[str, list[float]] = {dtype: [] for dtype in sorted({one.dtype for one in there})}
    for turn in range(options.turns):
        for dtype, values in rates.items():
            values.append(max(product_rate(shape, options.device, dtype).values()))
        for one in there:
            seconds = one.run(parts[one.name])[0]
            results[one.name]["seconds_of_turns"].append(seconds)
            print(f"{kind}, turn {turn}: {one.name} {seconds:.2f} s", file=sys.stderr, flush=True)
    product = {dtype: statistics.median(values) for dtype, values in rates.items()}
    for one in there:
        add_rates(results[one.name], product[one.dtype])
    about = {"texts": kind, "rows": len(texts), "tokens_per_row": float(lengths.mean()), "product_gflops": product}
    return about | {"product_gflops_of_turns": rates, "results": results, "ratios": ratios(kind, results)}


def compared(rows: int) -> np.ndarray:
    return np.linspace(0, rows - 1, min(rows, COMPARED)).astype(np.int64)


def add_rates(result: dict[str, Any], product: float) -> None:
    seconds = statistics.median(result["seconds_of_turns"])
    result |= {f"{name}_per_second": result[name] / seconds for name in ("rows", "tokens")}
    result["useful_gflops"] = result.pop("useful_gflop") / seconds
    result["of_product_rate"] = result["useful_gflops"] / product


def ratios(kind: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Ours to every peer, by the median rates and the lowest and highest turn; with the goal where there is one."""
    found = []
    for ours in (name for name in OURS if name in results):
        for peer in (name for name in results if not name.startswith("embedcache")):
            per_row = [
                [seconds / results[name]["rows"] for seconds in results[name]["seconds_of_turns"]]
                for name in (peer, ours)
            ]
            turns = [theirs / mine for theirs, mine in zip(*per_row, strict=True)]
            goal, kinds = GOALS.get((ours, peer), (None, ()))
            found.append(
                {
                    "ours": ours,
                    "peer": peer,
                    "ratio": results[ours]["rows_per_second"] / results[peer]["rows_per_second"],
                    "lowest_turn": min(turns),
                    "highest_turn": max(turns),
                    "goal": goal if kind in kinds else None,
                }
            )
    return found


def beside_a_busy_process(there: list[Contender], texts: list[str], turns: int) -> dict[str, Any]:
    """What each keeps of its rate while another process keeps one core busy; alone and beside it in turns."""
    results: dict[str, Any] = {one.name: {"alone": [], "beside": []} for one in there}
    for _ in range(turns):
        for one in there:
            results[one.name]["alone"].append(one.run(texts)[0])
            busy = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
            try:
                time.sleep(0.2)
                results[one.name]["beside"].append(one.run(texts)[0])
            finally:
                busy.kill()
                busy.wait()
    for result in results.values():
        result["kept"] = statistics.median(result["alone"]) / statistics.median(result["beside"])
    return {"rows": len(texts), "results": results}


def run_command(options: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    """The command on all texts of each kind, in both dtypes; then heads on what it wrote of the labelled ones."""
    chosen = [name for name in contenders(options.device) if any(part in name for part in options.only.split(","))]
    dtypes = [name.split(", ")[1] for name in chosen if name.startswith("embedcache")]
    measured: dict[str, Any] = {"command": {}}
    for kind in options.texts:
        rows = rows_of(kind, options)
        for dtype in dtypes:
            one = extract_file(rows, folder, options.device, dtype, scratch, more=kind == options.texts[0])
            measured["command"].setdefault(kind, {})[dtype] = one
            show_command(kind, dtype, one)
        if "quality" in options.parts and len({label for _, label in rows}) > 1:
            measured["quality"] = head_accuracy({dtype: scratch / f"{dtype}.h5" for dtype in dtypes})
            show_quality(measured["quality"])
    return measured


def rows_of(kind: str, options: argparse.Namespace) -> list[tuple[str, str]]:
    """(text, label) of the command's file; only the snippets have labels, and there are duplicates among them."""
    rows = [(text, "") for text in texts_of(kind, options, whole=True)]
    if kind == "short" and options.device == "cpu":
        with fetch.all_reviews().open(encoding="utf-8", newline="") as file:
            labelled = [(row["text"], row["label"]) for row in csv.DictReader(file)]
        rows = labelled[: len(rows)] if options.quick else labelled
    return rows


def texts_of(kind: str, options: argparse.Namespace, whole: bool = False) -> list[str]:
    texts, rows = real_texts(kind), ROWS[options.device][kind] // options.less
    if options.quick:
        return texts[: rows // 8]
    if options.device == "cpu":
        return texts if whole else texts[:rows]
    return fill_up(texts, rows * 4 if whole else rows)


def show(measured: dict[str, Any]) -> None:
    product = ", ".join(f"{dtype} {value:,.0f}" for dtype, value in measured["product_gflops"].items())
    print(f"\n{measured['texts']}: {measured['rows']:,} rows of {measured['tokens_per_row']:.0f} tokens; ", end="")
    print(f"matrix products {product} GFLOP/s")
    for name, result in measured["results"].items():
        print(
            f"  {name:33} {result['rows_per_second']:9,.1f} rows/s {result['tokens_per_second']:10,.0f} tokens/s"
            f" {result['useful_gflops']:8,.0f} useful GFLOP/s = {result['of_product_rate']:4.0%}"
            f"  worst cosine {result['worst_cosine']:.7f}  ({result['settings']})"
        )
    for one in measured["ratios"]:
        goal = "" if one["goal"] is None else f"  goal {one['goal']}: {'yes' if one['ratio'] >= one['goal'] else 'NO'}"
        turns = f"{one['lowest_turn']:.2f} to {one['highest_turn']:.2f}"
        print(f"  {one['ours']} / {one['peer']}: {one['ratio']:.2f} ({turns}){goal}")
    sys.stdout.flush()


def show_command(kind: str, dtype: str, one: dict[str, Any]) -> None:
    print(f"embedcache extract, {kind}, {dtype}: {one['encoded']:,} rows in {one['seconds']:.1f} s", end="")
    print(f" = {one['rows_per_second']:,.0f} rows/s; {one['rows_per_second_loaded']:,.0f} without the", end="")
    print(f" {one['load_seconds']:.1f} s of start and load", end="")
    if "append_rows" in one:
        print(f"; {one['append_rows']:,} more in {one['append_seconds']:.1f} s", end="")
        print(f", the same again in {one['again_seconds']:.1f} s", end="")
    print(flush=True)


def show_quality(quality: dict[str, Any]) -> None:
    for name, of in quality["validation_accuracy"].items():
        means = ", ".join(f"{dtype} {np.mean(values):.4f}" for dtype, values in of.items())
        print(f"heads on {quality['rows']:,} rows, {name}: accuracy {means} ({quality['seeds']} seeds)", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, mpnet, bert-base-shape or a folder")
    parser.add_argument("--texts", default="short,long", help="of short, long, mixed")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--only", default="", help="contenders whose names hold one of these, with commas between")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="an eighth of the rows, one turn; writes no JSON by itself"
    )
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/[cuda-]extract-<model>-<processor>.json")
    options = parser.parse_args()
    options.texts, options.parts = options.texts.split(","), options.parts.split(",")
    options.turns = 1 if options.quick else options.turns
    if unknown := (set(options.texts) - set(ROWS["cpu"])) | (set(options.parts) - set(PARTS)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def start_contenders(options: argparse.Namespace, folder: Path) -> tuple[list[Contender], dict[str, Any]]:
    there, about = [], {}
    for name in contenders(options.device):
        if any(part in name for part in options.only.split(",")):
            one = Contender(name, folder, options.device)
            about[name] = one.about | ({"failed": one.failed} if one.failed else {})
            if one.failed:
                print(f"{name}: left out, {one.failed}", flush=True)
                one.close()
            else:
                there.append(one)
    return there, about


def measure_contenders(options: argparse.Namespace, folder: Path, report: dict[str, Any]) -> None:
    texts = {kind: texts_of(kind, options) for kind in options.texts}
    plain = Contender(REFERENCE, folder, options.device)
    reference = {kind: plain.run([of[i] for i in compared(len(of))])[1] for kind, of in texts.items()}
    plain.close()
    there, report["contenders"] = start_contenders(options, folder)
    try:
        for kind in texts if "encode" in options.parts else ():
            report["encode"].append(measure(kind, folder, reference[kind], there, options))
            show(report["encode"][-1])
            save(report, options)
        if "busy" in options.parts:
            some = [one for one in there if one.name in BUSY]
            report["busy"] = beside_a_busy_process(some, texts[options.texts[0]][:BUSY_ROWS], min(3, options.turns))
            for name, result in report["busy"]["results"].items():
                print(f"beside a busy process {name} keeps {result['kept']:.0%}", flush=True)
            save(report, options)
    finally:
        for one in there:
            one.close()


def save(report: dict[str, Any], options: argparse.Namespace) -> None:
    """After every part: what is measured is kept if the next one dies."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def result_path(options: argparse.Namespace, about: dict[str, Any]) -> Path:
    processor = about.get("gpu", about["cpu"])
    name = re.sub(r"[^a-z0-9]+", "-", f"{Path(options.model).name} {processor}".lower()).strip("-")
    name = f"extract-{name}.json" if options.device == "cpu" else f"cuda-extract-{name}.json"
    return RESULTS / name


def main() -> None:
    options, start = parse(), time.perf_counter()
    about = machine("numpy", "torch", "transformers", "tokenizers")
    if options.device == "cuda":
        import torch

        about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    report: dict[str, Any] = {"machine": about, "model": options.model, "device": options.device}
    report |= {"max_length": MAX_LENGTH, "turns": options.turns, "load_average_at_start": os.getloadavg()[0]}
    report["encode"] = []
    if not options.quick:
        options.json = options.json or result_path(options, about)
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(options.model, Path(scratch)).resolve()
        report["shape"] = read_shape(folder)
        wide = report["shape"]["dim"] > 512  # BERT-base: 8 times the work of MiniLM
        options.less = 4 if options.device == "cpu" and wide else 1
        if {"encode", "busy"} & set(options.parts):
            measure_contenders(options, folder, report)
        if {"command", "quality"} & set(options.parts):
            report |= run_command(options, folder, Path(scratch))
    report |= {"load_average_at_end": os.getloadavg()[0], "seconds": time.perf_counter() - start}
    save(report, options)
    print(f"{report['seconds']:.0f} s in all" + (f"; written: {options.json}" if options.json else ""))


if __name__ == "__main__":
    main()
