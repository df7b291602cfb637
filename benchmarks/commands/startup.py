"""How long `embedcache --help` and a usage error take, against a bare interpreter: the bound is 0.25 s.

python -m benchmarks.commands.startup [--json benchmarks/results/startup.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import machine

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "embedcache --help": ["-m", "embedcache", "--help"],
    "embedcache train-head --help": ["-m", "embedcache", "train-head", "--help"],
    "usage error (--lr abc)": ["-m", "embedcache", "train-head", "c.h5", "-o", "run", "--lr", "abc"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name:32} median {statistics.median(times):.3f} s   worst {max(times):.3f} s")
    if arguments.json:
        document = {"machine": machine("click"), "bound_seconds": 0.25, "seconds": seconds}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
