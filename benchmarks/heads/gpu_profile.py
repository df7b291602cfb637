"""Where the time of a bank goes on a GPU: seconds of the call, of each kernel and copy, and of what the host waits in.

    python -m benchmarks.heads.gpu_profile [--only BANK] [--json PATH]

All banks without validation rows, and that of large batches also with a tenth of the rows. One turn without the
profiler, one with it (torch.profiler, which sees every library's kernels). "off the device" is the call's time without
the profiler less the time of all kernels and copies; where kernels overlap it can be below zero.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.heads.peers import Case
from benchmarks.heads.peers_cuda import rows_of
from benchmarks.heads.speed_cuda import CASES, ours, scaled

COMPUTES = {"1 head, batch 32": ("bfloat16", "float32"), "1024 probes, batch 32": ("float32",)}
VALIDATED = ("1024 heads, batch 1024",)
SHOWN = 9


def profiled(
    case: Case, x: np.ndarray, y: np.ndarray, compute: str, device: str, validated: bool = False
) -> dict[str, Any]:
    ours(replace(case, heads=1), x, y, device, compute, validated)
    plain = ours(case, x, y, device, compute, validated)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with torch.profiler.profile(activities=kinds) as profiler:
        begun = time.perf_counter()
        ours(case, x, y, device, compute, validated)
        watched = time.perf_counter() - begun
    rows = profiler.key_averages()
    device = sorted(((r.self_device_time_total / 1e6, r.count, r.key) for r in rows), reverse=True)
    host = sorted(((r.self_cpu_time_total / 1e6, r.count, r.key) for r in rows), reverse=True)
    total = sum(seconds for seconds, _, _ in device)
    return {
        "bank": case.name + (", validated" if validated else ""),
        "compute": compute,
        **plain,
        "seconds_with_profiler": watched,
        "device_seconds": total,
        "off_the_device": plain["seconds"] - total,
        "device": [row for row in device[:SHOWN] if row[0] > 0],
        "host": [row for row in host[:SHOWN] if row[0] > 0],
    }


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['bank']}, {found['compute']}: {found['seconds']:.3f} s, {found['training_seconds']:.3f} s of it "
        f"training, {found['device_seconds']:.3f} s on the device, {found['off_the_device']:.3f} s off it",
        flush=True,
    )
    for where in ("device", "host"):
        for seconds, count, name in found[where]:
            print(f"  {where:6} {1e3 * seconds:9.1f} ms {count:6} {name[:90]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the heads and rows, for a quick look")
    parser.add_argument("--only", default="", help="banks whose name contains this")
    parser.add_argument("--json", type=Path)
    options, all_found = parser.parse_args(), []
    for case in CASES:
        if options.only not in case.name:
            continue
        x, y = rows_of(case := scaled(case, options.scale))
        for compute in COMPUTES.get(case.name, ("bfloat16",)):
            for validated in (False, True) if case.name in VALIDATED else (False,):
                all_found.append(profiled(case, x, y, compute, options.device, validated))
                show(all_found[-1])
                if options.json:
                    options.json.write_text(json.dumps(all_found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
