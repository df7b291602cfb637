"""How long an installation takes, from an empty environment to the first labelled text, and how large it is.

python -m benchmarks.commands.install WHEEL --run RUN [--turns 3] [--json benchmarks/results/install.json]

Each in a new environment, in turn; pip keeps what it downloads, and the first turn, which downloads it, is not counted.
RUN: of train-head, whose encoder's folder is still where it was. The peers are installed only: their models come from a
hub. The load stands beside each number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

PEERS = ("sentence-transformers", "fastembed", "model2vec", "setfit")
TEXT = "A tender, funny film that stays with you for days."


def size(folder: Path) -> float:
    """Megabytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def install(package: str, run: Path | None, cache: Path) -> dict[str, Any]:
    """Seconds of pip and of the first prediction, and megabytes: all, and those of packages that peers have too."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # nothing of this checkout
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = Path(folder).glob("lib/python*/site-packages")
        before, begin = size(site), time.perf_counter()
        pip = [f"{folder}/bin/pip", "install", "--quiet", "--cache-dir", str(cache), package]
        subprocess.run(pip, check=True, capture_output=True, env=env)
        seconds = time.perf_counter() - begin
        found: dict[str, Any] = {
            "install_seconds": seconds,
            "megabytes": size(site) - before,
            "load": os.getloadavg()[0],
        }
        for name in ("numpy", "faiss"):
            found[f"megabytes_{name}"] = sum(size(path) for path in site.glob(f"{name}*") if path.is_dir())
        if run:
            begin = time.perf_counter()
            predict = [f"{folder}/bin/embedcache", "predict", str(run), TEXT]
            subprocess.run(predict, check=True, capture_output=True, env=env)
            found["prediction_seconds"] = time.perf_counter() - begin
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    wheel, run = str(arguments.wheel.resolve()), arguments.run.resolve()
    packages = {"embedcache": (wheel, run), "embedcache[search]": (f"{wheel}[search]", run)}
    packages |= {name: (name, None) for name in arguments.peers}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in packages}
    with tempfile.TemporaryDirectory() as cache:
        for turn in range(arguments.turns + 1):
            for name, (package, of) in packages.items():
                one = install(package, of, Path(cache))
                if turn:
                    found[name].append(one)
    for name, turns in found.items():
        seconds, most = (statistics.median(one[key] for one in turns) for key in ("install_seconds", "megabytes"))
        first = [one["prediction_seconds"] for one in turns if "prediction_seconds" in one]
        more = f", first prediction {statistics.median(first):.2f} s" if first else ""
        print(f"{name:24} {seconds:6.1f} s, {most:6.0f} MB{more}")
    if arguments.json:
        document = {"machine": machine("pip"), "installs": found}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
