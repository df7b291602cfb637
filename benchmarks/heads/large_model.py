"""Predicts large batches in bfloat16 (LargeLayer, LargeGradient) on an H100 from their machine code and their bytes.

    python -m benchmarks.heads.large_model [--json PATH]

The work is speed_cuda.py's largest: 1,024 heads of 768-512-2, 32,768 rows, 5 epochs, batch 1,024. A chunk (64 of the
depth) takes as long as the busiest of the tensor cores, shared memory, L2 and the schedulers; what comes after the
product adds to that. Heads go in waves whose gradients fit L2. Every figure is a model's, not a measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.heads import sass
from benchmarks.heads.cycle_model import CLOCK, DIM, EPOCHS, HBM, HEADS, HIDDEN, L2, ROWS, WARPS, short_name
from benchmarks.heads.sass import Kernel
from benchmarks.heads.sass_trace import functions_of, longest_way, step_loop

BATCH, SMS, SCHEDULERS = 1024, 132, 4
WAVE, LAUNCH, BARRIER = 32, 3e-6, 2000  # heads at a time; seconds a launch; cycles from start to the first product
DRAWS = math.ceil(32 / (DIM // 64))  # calls of Philox a thread and chunk
IMAGE, GATHERED, SHARERS = 256 * 64 * 2, 128 * 64 * 2, 2  # bytes a chunk; blocks that share an image
GOAL = 0.85
ASSUMED = [
    "two copies in flight hide the latency of L2; a wgmma runs at the tensor cores' full rate (m64nN: N / 2 cycles)",
    "dropout, two classes, plain log-likelihood; clusters of 4 fill 128 multiprocessors, of 2 all 132",
    "m and v (two thirds of what AdamW reads) come into L2 while the product runs, as far as device memory is free",
    "x of a step is read from device memory once and found in L2 after that; launches follow each other",
]


def chunk_cycles(kernel: Kernel, columns: int, from_l2: float, repeats: int) -> dict[str, float]:
    """What 64 of the depth takes each part; ``repeats``: turns of an inner loop over draws."""
    loop = step_loop(kernel)
    way = longest_way(kernel, loop, 0, 1)
    products = sum(i.name == "HGMMA" for i in way)
    drawn = sum("draw" in functions_of(i) for i in way)
    read = products * 2 * (64 + columns) * 16 * 2
    return {
        "instructions": len(way) + (repeats - 1) * drawn,
        "issue": (len(way) + (repeats - 1) * drawn) * WARPS / SCHEDULERS,
        "tensor": products * 2 * columns / 2,
        "shared memory": (read + IMAGE + GATHERED) / 128,
        "L2": from_l2 / (L2 / SMS / CLOCK),
    }


def instructions_of(kernel: Kernel, *functions: str) -> int:
    """Of a warp, as compiled: each instruction once."""
    return sum(bool({*functions} & functions_of(i)) for i in kernel.code)


def column_pass(kernel: Kernel) -> int:
    """The shorter loop over eight rows in backward(): of two outputs."""
    loops = [[i for b in loop.blocks for i in kernel.blocks[b].code] for loop in kernel.loops]
    return min(len(code) for code in loops if len(code) > 50 and any("backward" in functions_of(i) for i in code))


def slowest(chunk: dict[str, float]) -> float:
    return max(value for name, value in chunk.items() if name != "instructions")


def model(kernels: dict[str, Kernel]) -> dict[str, Any]:
    layer, gradient = kernels["LargeLayer"], kernels["LargeGradient"]
    shared = GATHERED + IMAGE / SHARERS
    of_layer = chunk_cycles(layer, 256, shared, DRAWS)
    of_gradient = chunk_cycles(gradient, 128, shared, 1)
    # Twice the loop over outputs; 16 times eight rows; four warps have rows, whose other losses are not run.
    tail = instructions_of(layer, "activate", "push_parts") * 2 + 16 * column_pass(layer)
    tail = (tail + instructions_of(layer, "ec_log_sum_exp", "class_loss", "loss_gradient") / 2) * WARPS / SCHEDULERS
    layer_cycles = BARRIER + DIM // 64 * slowest(of_layer) + tail
    state, state_rate = 256 * 128 * (24 + 2), HBM / SMS / CLOCK
    loop_cycles = BATCH // 64 * slowest(of_gradient)
    early = min(256 * 128 * 8, loop_cycles * state_rate)
    update = max((state - early) / state_rate, instructions_of(gradient, "update_weights") * WARPS / SCHEDULERS)
    gradient_cycles = BARRIER + loop_cycles + update
    layers, gradients = WAVE * BATCH // 128 * HIDDEN // 256, WAVE * HIDDEN // 256 * DIM // 128
    per_step = {
        "LargeLayer": math.ceil(layers / 128) * layer_cycles / CLOCK + LAUNCH,
        "LargeGradient": math.ceil(gradients / SMS) * gradient_cycles / CLOCK + LAUNCH,
    }
    steps = HEADS / WAVE * EPOCHS * ROWS / BATCH
    bytes_of_step = 28 * HIDDEN * DIM + 2 * BATCH * DIM
    memory = HEADS * EPOCHS * ROWS / BATCH * bytes_of_step / HBM
    return {
        "what": "a model's predictions from the machine code; no GPU has run it",
        "assumed": ASSUMED,
        "a chunk, cycles": {"LargeLayer": of_layer, "LargeGradient": of_gradient},
        "a tile, cycles": {
            "LargeLayer": {"all": round(layer_cycles), "after the product": round(tail)},
            "LargeGradient": {"all": round(gradient_cycles), "after the product": round(update)},
        },
        "bytes from and to device memory, a head and step": bytes_of_step,
        "seconds": {
            **{name: round(steps * value, 3) for name, value in per_step.items()},
            "bound of device memory": round(memory, 3),
            "all, one kernel after the other": round(steps * sum(per_step.values()), 3),
            "goal": GOAL,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            kernels = {short_name(k.name): k for k in sass.read_kernels(*sass.compile_cubin(Path(folder)))}
    except RuntimeError as error:
        parser.exit(1, f"large_model: {error}\n")
    found = model(kernels)
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
