"""How many instructions of ARM do a head's training and an encoder's layer take? Counted under QEMU, no time is taken.

    python -m benchmarks.arm.count --folder build/aarch64 --json benchmarks/results/arm-instructions.json

The folder is release/emulate.py's, with the wheel and an ARM Python; needs qemu-aarch64 with plugins, a C compiler and
the extra ``release`` (Zig). The plain build is the same source without NEON: the compiler makes scalars of its vectors.
Each work is run twice, once with more of it, and the difference counted: loading and Python do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, machine

WHERE = Path(__file__).parent
TARGET = ("-target", "aarch64-linux-gnu.2.17")
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread", "-w"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)  # as in setup.py
PLAIN = {  # the libraries, and their sources in csrc: what has no plain build (int8, BF16) is left out
    "heads/_heads_cpu.so": ("heads/cpu/*.cpp", "simd/memory.cpp"),
    "encoder/_encoder_cpu.so": ("encoder/*.cpp", "simd/memory.cpp"),
}
AMOUNTS = {"heads": (1, 3), "encoder": (1, 3)}  # batches of 128 rows, rows of 32 tokens
KINDS = {"heads": ("float32", "bfloat16"), "encoder": ("float32", "bfloat16", "int8")}


def is_for_any_cpu(source: Path) -> bool:
    return source.stem.endswith("_plain") or ("avx" not in source.stem and "neon" not in source.stem)


def build_plain(folder: Path) -> Path:
    """A copy of the installed package whose float32 kernels were compiled without NEON."""
    package = folder / "plain" / "embedcache"
    shutil.rmtree(package.parent, ignore_errors=True)
    shutil.copytree(folder / "site" / "embedcache", package)
    zig = [sys.executable, "-m", "ziglang", "c++", *TARGET]
    for library, patterns in PLAIN.items():
        sources = [path for pattern in patterns for path in sorted((ROOT / "csrc").glob(pattern))]
        made = []
        for source in filter(is_for_any_cpu, sources):
            made.append(str(package.parent / f"{source.stem}.o"))
            without = ["-mcpu=generic-neon"] if source.stem.endswith("_plain") else []
            subprocess.run([*zig, *FLAGS, *without, "-c", str(source), "-o", made[-1]], check=True)
        subprocess.run([*zig, "-shared", "-pthread", "-Wl,-s", *made, "-o", str(package / library)], check=True)
    return package.parent


def executed(folder: Path, first: Path, *work: str) -> tuple[int, int]:
    """(units, instructions) of work.py; ``first``: where embedcache is looked for before the folder's own."""
    path = os.pathsep.join(map(str, (first, folder / "site")))
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    python = ["-L", str(folder / "root"), str(folder / "root/usr/bin/python3.11"), str(WHERE / "work.py")]
    command = ["qemu-aarch64", "-cpu", "max", "-plugin", str(folder / "instructions.so"), *python, *work]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Error: {' '.join(work)} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout), int(done.stderr.split()[-1])


def count(folder: Path, first: Path, what: str, kind: str) -> float:
    """Instructions for one head-row or token."""
    few, many = (executed(folder, first, what, kind, str(amount)) for amount in AMOUNTS[what])
    return (many[1] - few[1]) / (many[0] - few[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "aarch64", help="release/emulate.py's")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    plugin = ["cc", "-O2", "-shared", "-fPIC", "-o", str(folder / "instructions.so"), str(WHERE / "instructions.c")]
    subprocess.run(plugin, check=True)
    plain = build_plain(folder)
    found: dict[str, Any] = {"machine": machine(), "per": {"heads": "head-row", "encoder": "token of one layer"}}
    for what, kinds in KINDS.items():
        found[what] = {"plain float32": count(folder, plain, what, "float32")}
        found[what] |= {f"neon {kind}": count(folder, folder / "site", what, kind) for kind in kinds}
        for name, number in found[what].items():
            print(f"{what:8} {name:14} {number:12,.0f}  {found[what]['plain float32'] / number:5.1f} times fewer")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
