"""How fast are the last layers trained natively, from cached states, for the CLS row or the mean?

    python -m benchmarks.finetune.block [--json benchmarks/results/finetune-block.json] [--loop BERT-base/128]
        [--ways "last, cls" "top:2, cls" "last, mean" "top:2, mean"] [--models MiniLM] [--lengths 27] [--batches 32]

Random weights and states; texts of one length, so that nobody pads. Peers in turns, medians of the turns' ratios:

- torch: the torch engine's own module (finetune/top.py), reading the same cached states, fused AdamW, clipping.
- loop: plain transformers from token ids, the layers below frozen and without gradients, the trained ones whole, CLS or
  the mean to the head; float32 and bfloat16 autocast, the better of the two. Batch 32 alone: more rows a step gain it
  nothing. It takes long: --loop names the models and lengths to set beside it.

What counts is processor time (user and system, all threads) of whole steps: the machine may be in use. Both torch peers
run on as many threads as native, with passive waiting. "products" and "copy" are torch's sgemm (1024 wide; bfloat16 for
bfloat16) and copy_ in the same run, on as many threads at once as native has: native's share of each, its bytes being
32 a weight and step (24 of AdamW, 4 + 4 of the products) and the states twice; not of layers for every token, whose
bytes are activations.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import nn

from benchmarks.machine import machine
from embedcache.encoder.families import FAMILIES
from embedcache.finetune import engine_native
from embedcache.finetune.blocks import Block, Ragged, Shape
from embedcache.finetune.inputs import States
from embedcache.finetune.layer_tensors import shape_of, tensors_of
from embedcache.finetune.top import Top, first_alone, set_dropout
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View

MODELS = {"MiniLM": (6, 384, 1536), "BERT-base": (12, 768, 3072)}
WAYS = {"last, cls": (1, "cls"), "top:2, cls": (2, "cls"), "last, mean": (1, "mean"), "top:2, mean": (2, "mean")}
LENGTHS, BATCHES, DROP = (27, 128), (32, 256), 0.1
# An epoch ends with a copy of the weights, a call begins with fresh memory: of few steps these would be a part.
EPOCH_ROWS, EPOCHS = 2048, 4


class InOnePiece:
    """States as a cache hands them out."""

    def __init__(self, values: np.ndarray, length: int) -> None:
        self.values, self.length = values, length

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = (rows[:, None] * self.length + np.arange(self.length)).ravel()
        return self.values[places], np.arange(len(rows) + 1) * self.length


def processor_seconds(work: Callable[[], int]) -> float:
    """Of a row. work: returns how many rows it trained."""
    before = time.process_time()
    rows = work()
    return (time.process_time() - before) / rows


def groups(modules: list[nn.Module]) -> list[dict[str, Any]]:
    weights = [one for module in modules for one in module.parameters() if one.requires_grad]
    return [
        {"params": [one for one in weights if one.dim() > 1], "weight_decay": 0.01},
        {"params": [one for one in weights if one.dim() < 2], "weight_decay": 0.0},
    ]


def step(modules: list[nn.Module], adamw: torch.optim.Optimizer, logits: torch.Tensor, y: torch.Tensor) -> None:
    loss = nn.functional.cross_entropy(logits.float(), y)
    adamw.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([one for group in adamw.param_groups for one in group["params"]], 1.0)
    adamw.step()


def pool(hidden: torch.Tensor, pooling: str) -> torch.Tensor:
    return hidden[:, 0] if pooling == "cls" else hidden.mean(1)


class Case:
    """One model, way, length and batch size."""

    def __init__(self, model: Any, way: str, length: int, batch: int, threads: int) -> None:
        self.model, self.way, self.length, self.batch, self.threads = model, way, length, batch, threads
        self.depth, self.pooling = WAYS[way]
        self.rows = 4 * batch if self.whole else EPOCH_ROWS
        rng = np.random.default_rng(0)
        dim = model.config.hidden_size
        self.values = rng.normal(size=(self.rows * length, dim)).astype(np.float16)
        self.y = rng.integers(0, 2, self.rows).astype(np.int32)
        self.head = nn.Linear(dim, 2)

    @property
    def whole(self) -> int:
        """Layers that are computed for every token."""
        return self.depth - (self.pooling == "cls")

    @property
    def shape(self) -> Shape:
        query = "first" if self.pooling == "cls" else "mean"
        return replace(shape_of(self.model.config, FAMILIES["bert"]), query=query, layers=self.depth)

    def native(self, compute: str) -> int:
        """One block on each thread: a bank, as a sweep is."""
        lengths, start = np.full(self.rows, self.length), {}
        for k, layer in enumerate(self.model.encoder.layer[-self.depth :]):
            tensors = tensors_of(dict(layer.named_parameters()), FAMILIES["bert"])
            start |= {f"{k}.{name}": array for name, array in tensors.items()}
        start |= {"head2": self.head.weight.detach().numpy(), "head2_bias": self.head.bias.detach().numpy()}
        task = Task(View(self.values, self.y, np.arange(self.rows)), None, 2)
        epochs = max(1, 16_000_000 // self.values.size) if self.whole else EPOCHS
        block = Block(HeadSpec(hidden=0, lr=1e-4), 0, start, batch_size=self.batch, epochs=epochs)
        states = Ragged(self.values, np.arange(self.rows) * self.length, lengths)
        blocks = [block] * self.threads
        engine_native.train(states, self.shape, [task], blocks, compute=compute, threads=self.threads)
        return self.threads * epochs * self.rows

    def torch_engine(self, bfloat16: bool) -> int:
        top = Top(self.model, self.depth, first_alone(self.model, self.pooling), self.length).train()
        set_dropout(top, DROP)
        top.requires_grad_(True)
        adamw = torch.optim.AdamW(groups([top, self.head]), lr=1e-4, fused=True)
        inputs, y = States(InOnePiece(self.values, self.length), np.full(self.rows, self.length)), self.y.astype(int)
        for start in range(0, 4 * self.batch, self.batch):
            rows = np.arange(start, start + self.batch)
            x, mask = inputs.batch(rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                z = self.head(pool(top(x, mask), self.pooling))
            step([top, self.head], adamw, z, torch.from_numpy(y[rows]))
        return 4 * self.batch

    def loop(self, bfloat16: bool) -> int:
        self.model.train()
        self.model.requires_grad_(False)
        layers = self.model.encoder.layer[-self.depth :].requires_grad_(True)
        adamw = torch.optim.AdamW(groups([layers, self.head]), lr=1e-4, fused=True)
        ids = torch.randint(5, 1000, (self.batch, self.length))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            z = self.head(pool(self.model(input_ids=ids).last_hidden_state, self.pooling))
        step([layers, self.head], adamw, z, torch.from_numpy(self.y[: self.batch].astype(int)))
        return self.batch


def rates(threads: int) -> dict[str, float]:
    """What each of so many threads does at once: multiply-adds in GFLOP/s, copies in GB/s (read and written).

    At once, as a bank trains a block on each: threads share the memory.
    """
    torch.set_num_threads(1)

    def rate(works: list[Callable[[], Any]], amount: float) -> float:
        """works: one for each thread."""

        def repeat(work: Callable[[], Any]) -> None:
            for _ in range(20):
                work()

        def together() -> int:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(repeat, works))
            return 20 * threads

        together()
        return amount / processor_seconds(together) / 1e9

    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(1024, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
        found[name] = rate([partial(torch.matmul, a, b)] * threads, 2 * 1024**3)
    # Ones: memory of zeros that nobody has written is one page, and reading it costs nothing.
    copies: list[Callable[[], Any]] = [
        partial(torch.ones(32_000_000).copy_, torch.ones(32_000_000)) for _ in range(threads)
    ]
    found["copy"] = rate(copies, 8 * 32e6)
    return found


def measure(case: Case, rounds: int, with_loop: bool) -> dict[str, Any]:
    """Processor microseconds of a row, each turn; and ratios of turns that ran next to each other."""
    peers: dict[str, Callable[[], int]] = {
        "native float32": lambda: case.native("float32"),
        "native bfloat16": lambda: case.native("bfloat16"),
        "torch float32": lambda: case.torch_engine(False),
        "torch bfloat16": lambda: case.torch_engine(True),
    }
    if with_loop and case.batch == BATCHES[0]:
        peers |= {"loop float32": lambda: case.loop(False), "loop bfloat16": lambda: case.loop(True)}
    turns: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(rounds):
        speeds = rates(case.threads)
        torch.set_num_threads(case.threads)
        for name, work in peers.items():
            if not turn and not name.startswith("native"):
                work()
            turns[name].append(processor_seconds(work) * 1e6)
        turns.setdefault("rates", []).append(speeds)  # type: ignore[arg-type]
    return turns


def summary(case: Case, turns: dict[str, Any]) -> dict[str, Any]:
    config = case.model.config
    d, f, h = config.hidden_size, config.intermediate_size, config.num_attention_heads
    weights = 4 * d * d + 2 * d * f
    folded = case.depth - case.whole
    # Forward, back to what was read and to the weights; the lowest layer's keys, values and queries end there.
    flop = folded * 3 * (2 * weights + 4 * h * case.length * d)
    flop += case.length * (case.whole * 3 * (2 * weights + 4 * case.length * d) - (case.whole > 0) * 6 * d * d)
    moved = 32 * weights / case.batch + 4 * case.length * d
    found: dict[str, Any] = {}
    for compute in ("float32", "bfloat16"):
        ours = turns[f"native {compute}"]
        one: dict[str, float] = {
            "rows_per_processor_second": 1e6 / statistics.median(ours),
            "of_products": statistics.median(
                flop / t * 1e6 / 1e9 / r[compute] for t, r in zip(ours, turns["rates"], strict=True)
            ),
        }
        if not case.whole:
            one["of_copy"] = statistics.median(
                moved / t * 1e6 / 1e9 / r["copy"] for t, r in zip(ours, turns["rates"], strict=True)
            )
        for peer in ("torch", "loop"):
            if f"{peer} float32" in turns:
                best = map(min, turns[f"{peer} float32"], turns[f"{peer} bfloat16"])
                one[f"times_{peer}"] = statistics.median(b / t for b, t in zip(best, ours, strict=True))
        found[compute] = one
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=3)
    every = [f"{name}/{length}" for name in MODELS for length in LENGTHS]
    parser.add_argument("--loop", nargs="*", choices=every, default=every)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    from transformers import BertConfig, BertModel

    results: list[dict[str, Any]] = []
    computer = {"machine": machine("torch", "transformers")}
    loads = [os.getloadavg()[0]]
    for name in asked.models:
        layers, dim, inner = MODELS[name]
        settings = {"num_hidden_layers": layers, "hidden_size": dim, "intermediate_size": inner}
        model = BertModel(BertConfig(**settings, num_attention_heads=12), add_pooling_layer=False)
        for way, length, batch in itertools.product(asked.ways, asked.lengths, asked.batches):
            case = Case(model, way, length, batch, asked.threads)
            turns = measure(case, asked.rounds, f"{name}/{length}" in asked.loop)
            about = {"model": name, "way": way, "tokens": length, "batch": batch}
            loads.append(os.getloadavg()[0])
            results.append({**about, **summary(case, turns), "microseconds": turns, "load": loads[-1]})
            print(json.dumps({**about, **summary(case, turns)}), flush=True)
            report = {**computer, "load": loads, "threads": asked.threads, "results": results}
            if asked.json:
                Path(asked.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
