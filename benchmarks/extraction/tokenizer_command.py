"""What does the native tokenizer change in `embedcache extract`? The command with it and without it, in turns.

    python -m benchmarks.extraction.tokenizer_command [--model minilm] [--turns 5] [--texts short,long] [--json PATH]

MiniLM, CLS vectors in bfloat16 where the processor has it, or a static model (a random table, 256 wide, MiniLM's
tokenizer), the mean; a new file each time. "Without" is the same version, told
that the native tokenizer is not built, so the ``tokenizers`` library works in its own threads. Seconds of the whole
command, process start and model load included, and seconds of processor time (user and system) of all its threads,
which other processes on the machine disturb less; medians and the ratio of each turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.extraction import data
from benchmarks.extraction.static import write_model
from benchmarks.machine import machine

COMMAND = "from embedcache.encoder import tokenizer_native\n{}from embedcache.cli import main\nmain()"
CONTENDERS = {"native": "", "library": "tokenizer_native.is_built = lambda: False\n"}


def run(kind: str, table: Path, folder: Path, pooling: str, target: Path) -> dict[str, Any]:
    """One command: its seconds, its processor time, and what it says of itself."""
    code = COMMAND.format(CONTENDERS[kind])
    command = [sys.executable, "-c", code, "extract", table, "-o", target, "--model", folder, "--pooling", pooling]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*map(str, command), "--json"], stdout=subprocess.PIPE, check=True)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout)
    target.unlink()
    assert report["tokenizer"].partition(":")[0] == kind, report["tokenizer"]
    return {
        "seconds": seconds,
        "processor_seconds": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "rows": report["encoded"],
        "tokens": report["tokens"],
    }


def measure(texts: list[str], folder: Path, pooling: str, turns: int, scratch: Path) -> dict[str, Any]:
    table = scratch / "rows.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])
    done: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CONTENDERS}
    for turn in range(-1, turns):  # one that does not count
        for kind in sorted(CONTENDERS, reverse=turn % 2 == 1):
            one = run(kind, table, folder, pooling, scratch / "cache.h5")
            print(turn, kind, {name: round(value, 2) for name, value in one.items()}, file=sys.stderr, flush=True)
            if turn >= 0:
                done[kind].append(one)
    found: dict[str, Any] = {name: done["native"][0][name] for name in ("rows", "tokens")}
    for name in ("seconds", "processor_seconds"):
        of = {kind: [round(one[name], 3) for one in some] for kind, some in done.items()}
        medians = {kind: round(statistics.median(some), 3) for kind, some in of.items()}
        ratios = [round(a / b, 3) for a, b in zip(of["library"], of["native"], strict=True)]
        found[name] = {"of_turns": of, "medians": medians, "library_to_native": ratios}
        found[name]["median_ratio"] = statistics.median(ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", choices=("minilm", "static"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--texts", default="short,long", help="of short, long")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("tokenizers", "numpy"), "model": options.model, "turns": options.turns}
    report |= {"load_average_at_start": os.getloadavg()[0], "texts": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder, pooling = data.model_folder("minilm", Path(scratch)).resolve(), "cls"
        if options.model == "static":
            folder, pooling = write_model(Path(scratch) / "static", folder, 256), "mean"
        for kind in options.texts.split(","):
            report["texts"][kind] = measure(data.texts(kind), folder, pooling, options.turns, Path(scratch))
            for name in ("seconds", "processor_seconds"):
                one = report["texts"][kind][name]
                print(f"{kind}, {name}: {one['medians']}, ratio {one['median_ratio']} {one['library_to_native']}")
    report["load_average_at_end"] = os.getloadavg()[0]
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
