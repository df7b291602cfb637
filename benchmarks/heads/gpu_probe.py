"""What a GPU can do, before anything is measured on it: clocks, copies and products.

    python -m benchmarks.heads.gpu_probe [--json PATH]

Clusters of 1 to 16 blocks that run at the same time, by the real kernel. Rates of host-to-device and device-to-host
copies (pageable and pinned), of device memory, and of torch's products in TF32 and bfloat16; the clocks by nvidia-smi
right after them. Every later figure is read against these. ``--device cpu`` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from embedcache.heads import engine_native

MEGABYTES = 256


def seconds(work: Callable[[], Any], turns: int = 5) -> float:
    """Of one run, the best of some."""
    work()
    wait()
    best = float("inf")
    for _ in range(turns):
        start = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def copies(device: str) -> dict[str, float]:
    """Gigabytes a second."""
    size = (MEGABYTES if device == "cuda" else 1) << 20
    there, other = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    found = {"device memory, read and written": 2 * size / seconds(lambda: other.copy_(there)) / 1e9}
    for kind in ("pageable", "pinned"):
        here = torch.empty(size, dtype=torch.uint8, pin_memory=kind == "pinned" and device == "cuda")
        here.fill_(1)
        found[f"to the device, {kind}"] = size / seconds(lambda here=here: there.copy_(here)) / 1e9
        found[f"to the host, {kind}"] = size / seconds(lambda here=here: here.copy_(there)) / 1e9
    return found


def products(device: str) -> dict[str, float]:
    """TFLOP/s."""
    n = 8192 if device == "cuda" else 256
    torch.set_float32_matmul_precision("high")
    found = {}
    for name, dtype in (("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        found[name] = 2 * n**3 / seconds(lambda a=a, b=b: a @ b) / 1e12
    return found


def clusters() -> dict[int, int]:
    """Clusters of 1 to 16 blocks at the same time; cudaOccupancyMaxActiveClusters."""
    cuda = engine_native.library("cuda")
    found = {blocks: cuda.active_clusters(blocks) for blocks in range(1, 17)}
    if min(found.values()) < 0:
        raise RuntimeError(cuda.last_error())
    return found


def clocks() -> str:
    fields = "clocks.sm,clocks.mem,clocks.max.sm,power.draw"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return f"{fields}: {subprocess.run(command, capture_output=True, text=True).stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    found: dict[str, Any] = {"clusters at once": clusters()}
    print(f"clusters of 1 to 16 blocks at once: {list(found['clusters at once'].values())}", flush=True)
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.exit(1, "gpu_probe: torch sees no GPU\n")
        about = torch.cuda.get_device_properties(0)
        found |= {"gpu": about.name, "multiprocessors": about.multi_processor_count, "L2 bytes": about.L2_cache_size}
    found |= {"copies, GB/s": copies(options.device), "products, TFLOP/s": products(options.device)}
    if options.device == "cuda":
        found["clocks after them"] = clocks()
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
