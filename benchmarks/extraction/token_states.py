"""What do token states cost, and how much memory do they take? `embedcache extract` with --tokens and without.

    python -m benchmarks.extraction.token_states [--rows 3000] [--turns 5] [--gigabytes 3] [--parts memory,cost]
        [--json PATH]

Cost: MiniLM on critics' snippets, its `model` and `cls` vectors, a new file each time; `--tokens 2` beside them, and
`--tokens 2` on the cache that has its vectors ("later": four of six layers are run, and their output stored). Processor
time (user and system) of the whole command, process start and model load included; medians and the ratio of each turn.

Memory: a random encoder of one layer, 1024 wide, on texts of 200 random words, so that the states are large and
little is computed. The highest memory that a process held at any moment (VmHWM: file pages that are mapped count, the
system's cache of files that were read or written does not): of the command with and without states, and of a process
that reads all states, in batches of 32 random rows, with ``take``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.extraction import data
from benchmarks.machine import machine

HIGHEST = "int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
EXTRACT = f"""import atexit, sys
atexit.register(lambda: print({HIGHEST}, file=sys.stderr))
from embedcache.cli import main
main()"""
READ = f"""import json, sys, time
import numpy as np
from embedcache.cache import open_cache
states = open_cache(sys.argv[1]).token_states()
order, read, begun = np.random.default_rng(0).permutation(len(states)), 0, time.perf_counter()
for start in range(0, len(order), 32):
    read += states.take(order[start : start + 32])[0].nbytes
print(json.dumps({{"bytes": read, "seconds": time.perf_counter() - begun, "highest_kb": {HIGHEST}}}))"""
WAYS = {"without": (), "with": ("--tokens", "2"), "later": ("--tokens", "2")}


def run(table: Path, folder: Path, target: Path, *more: str) -> dict[str, Any]:
    """One command: its seconds, its processor time, its highest memory, and what it says of itself."""
    command = [sys.executable, "-c", EXTRACT, "extract", table, "-o", target, "--model", folder, *more, "--json"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*map(str, command)], capture_output=True, check=True)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout)
    return {
        "seconds": seconds,
        "processor_seconds": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "highest_kb": int(done.stderr.split()[-1]),
        "tokens": report["tokens"],
        "state_bytes": (report["token_states"] or {"bytes": 0})["bytes"],
    }


def write_table(path: Path, texts: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])
    return path


def remove(cache: Path) -> None:
    for path in (cache, *cache.parent.glob(f"{cache.stem}.tokens.*")):
        path.unlink()


def cost(rows: int, turns: int, scratch: Path) -> dict[str, Any]:
    """Processor time with and without states."""
    folder, cache = data.model_folder("minilm", scratch).resolve(), scratch / "cost.h5"
    table = write_table(scratch / "cost.csv", data.texts("short")[:rows])
    done: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(turns):
        for way, more in WAYS.items():  # "later" goes on with the cache that "without" would leave
            if way == "later":
                run(table, folder, cache)
            done[way].append(run(table, folder, cache, *more))
            remove(cache)
            print(
                turn, way, {name: round(value, 2) for name, value in done[way][-1].items()}, file=sys.stderr, flush=True
            )
    times = {way: [round(one["processor_seconds"], 3) for one in some] for way, some in done.items()}
    found: dict[str, Any] = {"rows": rows, "tokens": done["with"][0]["tokens"]}
    found |= {"state_bytes": done["with"][0]["state_bytes"], "processor_seconds": times}
    for way in ("with", "later"):
        ratios = [round(a / b, 3) for a, b in zip(times[way], times["without"], strict=True)]
        found[f"{way}_to_without"] = {"of_turns": ratios, "median": statistics.median(ratios)}
    return found


def write_wide_model(folder: Path, tokenizer: Path) -> Path:
    """A random BERT of one layer, 1024 wide."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    made = AutoTokenizer.from_pretrained(tokenizer)
    made.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 16, "intermediate_size": 1024}
    BertModel(BertConfig(vocab_size=len(made), **sizes)).eval().save_pretrained(folder)
    return folder


def memory(gigabytes: float, scratch: Path) -> dict[str, Any]:
    """The highest memory of commands that write so many bytes of states, or none, and of one that reads them."""
    folder = write_wide_model(scratch / "wide", data.model_folder("minilm", scratch).resolve())
    rng, words = random.Random(0), sorted({word for text in data.texts("short")[:3000] for word in text.split()})
    rows = round(gigabytes * 1e9 / (1024 * 2 * 250))
    table = write_table(scratch / "large.csv", [" ".join(rng.choices(words, k=200)) for _ in range(rows)])
    cache, options = scratch / "large.h5", ("--pooling", "cls", "--max-length", "250")
    found: dict[str, Any] = {"rows": rows, "without": run(table, folder, cache, *options)}
    remove(cache)
    found["with"] = run(table, folder, cache, *options, "--tokens", "1")
    read = subprocess.run([sys.executable, "-c", READ, cache], stdout=subprocess.PIPE, check=True)
    return found | {"read": json.loads(read.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--parts", default="memory,cost")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine("numpy"), "load_average_at_start": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as scratch:
        if "memory" in options.parts:
            report["memory"] = memory(options.gigabytes, Path(scratch))
            print(json.dumps(report["memory"]), file=sys.stderr, flush=True)
        if "cost" in options.parts:
            report["cost"] = cost(options.rows, options.turns, Path(scratch))
    report["load_average_at_end"] = os.getloadavg()[0]
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
