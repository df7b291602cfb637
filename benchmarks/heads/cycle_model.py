"""Predicts how long the CUDA kernels take on an H100, from their machine code: no GPU is needed, and none was asked.

    python -m benchmarks.heads.cycle_model [--json PATH]

nvcc compiles the kernels for sm_90a, nvdisasm (CUDA's, or the wheel nvidia-cuda-nvdisasm) takes them apart, and one
multiprocessor runs the step loop's instructions on paper (sm_pipeline.py) along the longest way through it
(sass_trace.py). Printed beside the goals: instructions, shared-memory wavefronts and special functions a chunk of 64
inputs, what each part of the multiprocessor is busy with, and the cycles of a step. The work is that of speed_cuda.py.
The assumptions are in the JSON; every figure here is a model's, not a measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.heads import sass, sass_trace, sm_pipeline
from benchmarks.heads.sass import Instruction, Kernel
from benchmarks.heads.sass_trace import function_at, functions_of, step_loop, trace, varying_addresses
from benchmarks.heads.sm_pipeline import Multiprocessor, Step

DIM, HIDDEN, HEADS, ROWS, EPOCHS = 768, 512, 1024, 32768, 5
CHUNK, CHUNKS, WARPS = 64, DIM // 64, 8
CLOCK, L2, HBM = 1.98e9, 5.5e12, 3.0e12  # a second: cycles (as measured under load), bytes, bytes that a kernel gets
STEPS = EPOCHS * ROWS // 32  # of a head, at a batch of 32
GOALS = {  # seconds on the device
    "1,024 heads, batch 32, 7 clusters, Split": 5.0,
    "1,024 heads, batch 32, 7 clusters, Tf32": 2.5,
    "1,024 heads, batch 32, 7 clusters, Bf16": 2.5,
    "1 head, batch 32, Tf32": 0.025,
    "1 head, batch 32, Bf16": 0.025,
    "1,024 heads, batch 1,024, Tf32": 0.85,
}
ASSUMED = [
    "every warp takes the longest way through the step loop that calls no function (slow division, focal loss)",
    "a class a row, plain log-likelihood, two outputs, dropout, no smoothing, no weights, constant rate",
    "shared memory has no bank conflicts; a load of one address by all lanes is one wavefront",
    "x and the settings lie in L2; the blocks of a cluster go in step",
    "inner loops run once, loops with tensor-core products once a chunk of 64 inputs",
    "launches, Shuffle, validation and all host work are left out",
]


def part_of(steps: list[Step]) -> dict[str, float]:
    """What a chunk of 64 inputs costs a warp, by the functions that the pass over the first layer is made of."""
    chunk = [s for s in steps if {"chunk_pass", "pass"} & functions_of(s.instruction)]
    counts = {
        "instructions": len(chunk),
        "shared-memory wavefronts": sum(s.wavefronts for s in chunk),
        "special functions": sum(s.instruction.name == "MUFU" for s in chunk),
        "tensor-core products": sum(s.instruction.name == "HMMA" for s in chunk),
        "least cycles by stalls alone": sum(s.stall for s in chunk),
    }
    return {name: round(value / CHUNKS, 1) for name, value in counts.items()}


def where(i: Instruction) -> str:
    """The engine's source line that a barrier ends."""
    own = [place for place in i.places if place.file.endswith((".cuh", ".h")) and place.file != "block.cuh"]
    own = [place for place in own if function_at(place)]
    return f"{own[0].file}:{own[0].line} {function_at(own[0])}" if own else "?"


def steady(traces: list[list[Step]], blocks: int, turns: int) -> tuple[float, dict[str, float]]:
    """Cycles of one turn among many, and what each part was busy with in it."""
    few, many = (Multiprocessor([t * n for t in traces], blocks).run() for n in (turns, 2 * turns))
    busy = {name: (many.busy[name] - few.busy[name]) / turns for name in few.busy}
    return (many.cycles - few.cycles) / turns, {name: round(value) for name, value in busy.items()}


def model_cluster(kernel: Kernel) -> dict[str, Any]:
    """One step of a head in a cluster: a block a multiprocessor."""
    loop, varying = step_loop(kernel), varying_addresses(kernel)
    own = {warp: trace(kernel, loop, warp, CHUNKS, varying) for warp in {0, 1, WARPS - 1}}
    traces = [own[warp] if warp in own else own[1] for warp in range(WARPS)]
    cycles, busy = steady(traces, 1, 1)
    once = Multiprocessor(traces).run()
    begins = [0.0, *(when for when, _ in once.barriers)]
    phases = [[round(when - begin), where(i)] for begin, (when, i) in zip(begins, once.barriers, strict=False)]
    passes = [i for i in range(len(phases)) if _has_products(once.barriers, i, own[0])]
    in_pass = sum(phases[i][0] for i in passes)
    code = [s.instruction for s in own[0]]
    from_l2 = 512 * WARPS * sum(s.instruction.name == "LDGSTS" for s in own[0])  # bytes a block and step
    if "Bf16" in kernel.name:
        from_l2 = 2 * 32 * DIM * 2 // 16  # a share of the rows, for all blocks
    return {
        "registers": kernel.registers,
        "spilled bytes": kernel.spilled,
        "a chunk": part_of(own[0]),
        "a step": {
            "cycles": round(cycles),
            "of those in the pass over the first layer": in_pass,
            "busy": busy,
            "bytes from L2 a block": from_l2,
            "fences of the whole GPU": kernel.count("MEMBAR.ALL.GPU", code=code),
            "barriers": len(phases),
            "cycles to each barrier": phases,
        },
    }


def _has_products(barriers: list[tuple[float, Instruction]], phase: int, steps: list[Step]) -> bool:
    """Whether the code before a barrier, from the one before it, multiplies on the tensor cores."""
    number, found = 0, False
    for step in steps:
        found = found or (number == phase and step.instruction.name == "HMMA")
        number += step.instruction.name in ("BAR", "UCGABAR_WAIT") and ".ARV" not in step.instruction.opcode
    return found


def model_product(kernel: Kernel) -> dict[str, Any]:
    """16 k of a 128 x 128 tile, two blocks a multiprocessor; in float32 eight k are an inner loop."""
    loop, varying = step_loop(kernel), varying_addresses(kernel)
    one = trace(kernel, loop, 0, 2, varying)
    cycles, busy = steady([one] * WARPS, 2, 8)
    flop = 2 * 2 * 128 * 128 * 16
    return {
        "registers": kernel.registers,
        "spilled bytes": kernel.spilled,
        "16 of the depth": {
            "instructions": len(one),
            "shared-memory wavefronts": sum(s.wavefronts for s in one),
            "tensor-core products": sum(s.instruction.name == "HMMA" for s in one),
            "cycles, two blocks": round(cycles, 1),
            "busy, two blocks": busy,
        },
        "TFLOP/s of 132 multiprocessors": round(132 * flop / cycles * CLOCK / 1e12, 1),
    }


def predictions(kernels: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Seconds on the device of the headline cases, beside the goals."""
    found: dict[str, dict[str, Any]] = {}
    for operands in ("Split", "Tf32", "Bf16"):
        clusters = {name: k for name, k in kernels.items() if name.startswith(f"TrainClusters<{operands}")}
        if not clusters:
            continue
        name, best = min(clusters.items(), key=lambda item: item[1]["a step"]["cycles"])
        step = best["a step"]
        second = step["cycles"] * STEPS / CLOCK
        l2 = HEADS * STEPS * 16 * step["bytes from L2 a block"] / L2
        for count in (7, 8):
            case = {"seconds": max(math.ceil(HEADS / count) * second, l2), "kernel": name, "bound of L2": l2}
            found[f"1,024 heads, batch 32, {count} clusters, {operands}"] = case
        found[f"1 head, batch 32, {operands}"] = {"seconds": second, "kernel": name}
    for compute, split in (("Tf32", 0), ("float32", 1)):
        pair = [kernels.get(f"FirstLayer<1, {split}>"), kernels.get(f"FirstGradient<{split}>")]
        rates = [kernel["TFLOP/s of 132 multiprocessors"] for kernel in pair if kernel]
        if len(rates) < 2:
            continue
        flop = 2.0 * HEADS * EPOCHS * ROWS * DIM * HIDDEN
        bytes_of_step = 28 * HIDDEN * (DIM + 1) + 20 * 1024 * HIDDEN + 2 * 4 * 1024 * DIM
        memory = HEADS * EPOCHS * ROWS / 1024 * bytes_of_step / HBM
        products = sum(flop / (rate * 1e12) for rate in rates)
        found[f"1,024 heads, batch 1,024, {compute}"] = {
            "seconds": max(products, memory),
            "kernel": "FirstLayer, FirstGradient; OutputLayer left out",
            "products": products,
            "device memory": memory,
        }
    for case, goal in GOALS.items():
        if case in found:
            found[case]["goal"] = goal
    return found


def short_name(mangled: str) -> str:
    """TrainClusters<Tf32, 12, 2> from the linker's name."""
    found = re.search(r"kernelINS_\d+([A-Za-z]+?)(?:I((?:L[a-z]\d+E|NS_\d\w{2,9}?E)+)E)?EEEvNS", mangled)
    if not found:
        return mangled
    of = [number or name for number, name in re.findall(r"L[a-z](\d+)E|NS_\d(\w{2,9}?)E", found[2] or "")]
    return found[1] + (f"<{', '.join(of)}>" if of else "")


def model() -> dict[str, Any]:
    """Compiles, disassembles and models every kernel that multiplies on the tensor cores.

    Raises:
        RuntimeError: nvcc or nvdisasm is missing or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = sass.compile_cubin(Path(folder))
        kernels = {short_name(k.name): k for k in sass.read_kernels(*compiled) if k.count("HMMA")}
    modelled = {
        name: model_cluster(kernel) if name.startswith("TrainClusters") else model_product(kernel)
        for name, kernel in sorted(kernels.items())
    }
    version = subprocess.run([str(sass.find_nvcc()), "--version"], capture_output=True, text=True).stdout
    return {
        "what": "a model's predictions from the machine code; cuda-clusters-h200.json has what was measured",
        "nvcc": re.sub(r"\s+", " ", version.strip().splitlines()[-1]),
        "assumed": ASSUMED,
        "costs, cycles": sm_pipeline.COSTS,
        "of those measured": sm_pipeline.MEASURED,
        "rates": {"clock": CLOCK, "L2 bytes a second": L2, "device memory bytes a second": HBM},
        "never run": [*sass_trace.AVOIDED, *sass_trace.AVOIDED_LINES],
        "kernels": modelled,
        "predictions": predictions(modelled),
    }


def show(found: dict[str, Any]) -> None:
    for name, kernel in found["kernels"].items():
        unit = "a chunk" if "a chunk" in kernel else "16 of the depth"
        print(f"{name}: {kernel['registers']} registers, {kernel['spilled bytes']} bytes spilled")
        print(f"  {unit}: " + ", ".join(f"{value} {what}" for what, value in kernel[unit].items()))
        if step := kernel.get("a step"):
            in_pass, fences = step["of those in the pass over the first layer"], step["fences of the whole GPU"]
            print(f"  a step: {step['cycles']:,} cycles, {in_pass:,} of them in the pass over the first layer")
            print(f"  {step['barriers']} barriers, {fences} fences of the whole GPU")
            print("  busy: " + ", ".join(f"{part} {cycles:,}" for part, cycles in step["busy"].items()))
            print("  cycles to each barrier: " + "; ".join(f"{n} {at}" for n, at in step["cycles to each barrier"]))
        else:
            print(f"  {kernel['TFLOP/s of 132 multiprocessors']} TFLOP/s")
    for case, figures in found["predictions"].items():
        goal = f"goal {figures['goal']:g} s" if figures.get("goal") else "no goal"
        print(f"{case}: {figures['seconds']:.3g} s by the model ({goal}; {figures['kernel']})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        found = model()
    except RuntimeError as error:
        parser.exit(1, f"cycle_model: {error}\n")
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
