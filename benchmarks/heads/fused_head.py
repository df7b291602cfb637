"""embedcache.ops.fused_head against nn.Sequential(Linear, ReLU, Linear, LogSoftmax), eager: speed and memory.

    python -m benchmarks.heads.fused_head [--device cpu|cuda] [--json benchmarks/results/fused-head-cpu.json]

A step is forward, NLL and backward of 768-512-2 in float32, one of each in turns; medians. Memory is the peak above
weights and inputs at 131,072 rows, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.machine import machine
from embedcache.ops import fused_head

NAMES = ("fused_head", "nn.Sequential")
MEMORY_ROWS = 131_072


def runner(name: str, device: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], list[nn.Parameter]]:
    modules = nn.Sequential(nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 2), nn.LogSoftmax(1)).to(device)
    parameters = list(modules.parameters())
    return (modules if name == "nn.Sequential" else lambda x: fused_head(x, *parameters)), parameters


def step(run: Callable[[torch.Tensor], torch.Tensor], parameters: list[nn.Parameter], x: torch.Tensor) -> None:
    for parameter in parameters:
        parameter.grad = None
    nn.functional.nll_loss(run(x), torch.zeros(len(x), dtype=torch.long, device=x.device)).backward()


def speed(batch: int, turns: int, device: str) -> dict[str, Any]:
    """Median seconds of a step, and the median ratio of neighbouring steps."""
    x = torch.randn(batch, 768, device=device)
    runners = {name: runner(name, device) for name in NAMES}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(turns + 20):
        for name, (run, parameters) in runners.items():
            start = time.perf_counter()
            step(run, parameters, x)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (seconds[name][20:] for name in NAMES)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    medians = {name: statistics.median(times[20:]) for name, times in seconds.items()}
    return {"batch": batch, "turns": turns, "seconds": medians, "ratio": ratio}


def peak_mib(name: str, training: bool, device: str) -> float:
    """Peak MiB of one pass above what was there before it. On Linux, for a CPU: the high-water mark of this process."""

    def status(key: str) -> int:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() if key == "VmHWM" else torch.cuda.memory_allocated()
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    run, parameters = runner(name, device)
    x = torch.randn(MEMORY_ROWS, 768, device=device)
    step(run, parameters, x[:64])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    with torch.set_grad_enabled(training):
        step(run, parameters, x) if training else run(x)
    return (status("VmHWM") - before) / 2**20


def memory(device: str) -> dict[str, dict[str, float]]:
    peaks: dict[str, dict[str, float]] = {}
    for work in ("training", "prediction"):
        for name in NAMES:
            command = [sys.executable, "-m", "benchmarks.heads.fused_head", "--device", device, "--peak", name, work]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.setdefault(work, {})[name] = float(done.stdout)
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_mib(arguments.peak[0], arguments.peak[1] == "training", arguments.device))
        return
    report = {
        "machine": machine("torch"),
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "speed": [speed(32, 4000, arguments.device), speed(1024, 200, arguments.device)],
        "memory_rows": MEMORY_ROWS,
        "peak_mib": memory(arguments.device),
    }
    for case in report["speed"]:
        times = ", ".join(f"{name} {value * 1e6:,.0f} us" for name, value in case["seconds"].items())
        print(f"batch {case['batch']}: {times}; {case['ratio']:.2f} times as fast")
    for work, peaks in report["peak_mib"].items():
        print(f"{work}, {MEMORY_ROWS:,} rows: " + ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in peaks.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
