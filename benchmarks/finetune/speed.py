"""How much faster are epochs from cached states than plain transformers with the same layers frozen? On a CPU.

python -m benchmarks.finetune.speed [--model demo/data/minilm | --base] [--rows 512] [--turns 5]

Peer: a plain transformers loop. The lower layers are frozen, so autograd records nothing of them; batches are sorted by
length and padded dynamically, the very same rows in the same order as ours; SDPA, fused AdamW, no dropout on either
side. Only epochs are timed, after one of each side: what the cache costs once is left out. In turns, each side over the
same batches; the ratios of a turn are what counts, by processor time of the process (user and system), as other work on
the machine changes the clock's. --base: 12 layers x 768, random weights.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.machine import RESULTS, ROOT, machine
from embedcache.encoder import Encoder
from embedcache.finetune.config import Config, Way
from embedcache.finetune.inputs import States, even_batches
from embedcache.finetune.loop import CLIP, LoopOptions, Training
from embedcache.finetune.top import Top, first_alone, layers_of, set_dropout
from embedcache.finetune.trainee import Trainee
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View

BATCH = 32


class Stored:
    """States of all rows in memory, float16, as TokenStates gives them."""

    def __init__(self, encoder: Encoder, rows: Sequence[Sequence[int]], layer: int) -> None:
        self.lengths = np.array([len(row) for row in rows])
        self._values: list[Any] = [None] * len(rows)
        for places in even_batches(self.lengths, np.arange(len(rows))):
            ids, mask = encoder.pad([rows[place] for place in places])
            with torch.no_grad():
                hidden = encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            states = hidden.hidden_states[layer].numpy().astype(np.float16)
            for place, state in zip(places, states, strict=True):
                self._values[place] = state[: self.lengths[place]].copy()

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        some = [self._values[row] for row in rows]
        return np.concatenate(some), np.cumsum([0, *map(len, some)])


def base_model(folder: Path, tokenizer: Path) -> Path:
    """BERT-base's shape with random weights and MiniLM's tokenizer."""
    import shutil

    from transformers import BertConfig, BertModel

    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    return folder


def plain_step(encoder: Encoder, keep: int, pooling: str, rows: Any, y: np.ndarray) -> Callable[[np.ndarray], None]:
    """A step of the peer."""
    model = copy.deepcopy(encoder.model).requires_grad_(False).train()
    model.pooler = None
    set_dropout(model, 0.0)
    layers = model.get_submodule(layers_of(model)[0])[-keep:].requires_grad_(True)
    linear = nn.Linear(encoder.dim, 2)
    weights = [*layers.parameters(), *linear.parameters()]
    adamw = torch.optim.AdamW(weights, lr=1e-5, fused=True)

    def step(batch: np.ndarray) -> None:
        ids, mask = encoder.pad([rows[place] for place in batch])
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].float()
        pooled = hidden[:, 0] if pooling == "cls" else (hidden * weight).sum(1) / weight.sum(1)
        loss = nn.functional.cross_entropy(linear(pooled), torch.from_numpy(y[batch]).long())
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, CLIP)
        adamw.step()

    return step


def our_step(encoder: Encoder, keep: int, pooling: str, stored: Stored, y: np.ndarray) -> Callable[[np.ndarray], Any]:
    """A step of ours."""
    top = Top(encoder.model, keep, first_alone(encoder.model, pooling), int(stored.lengths.max()))
    head = TrainedHead(
        HeadSpec(hidden=0), {"w2": np.zeros((2, encoder.dim), np.float32), "b2": np.zeros(2, np.float32)}
    )
    config = Config(Way.parse(f"top:{keep}"), pooling, HeadSpec(hidden=0, lr=1e-5), 1e-5, BATCH, 1, None, 0.0)
    view = View(np.zeros((len(y), 1), np.float32), y, np.arange(len(y)))
    options = LoopOptions(0, "loss", "cpu", False, Path("unused"), False, lambda rows: None)
    trainee = Trainee(top, encoder, pooling, head)
    set_dropout(top, 0.0)
    training = Training(trainee, States(stored, stored.lengths), Task(view, None, 2), config, "", options)
    trainee.train()
    return training.step


def measure(steps: dict[str, Callable[[np.ndarray], Any]], batches: list[np.ndarray], turns: int) -> dict[str, Any]:
    """Each side over the same batches in turns; rows/s by processor time and by the clock, and the turns' ratios."""
    rows = sum(map(len, batches))
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            begun, used = time.perf_counter(), time.process_time()
            for batch in batches:
                step(batch)
            if turn:  # the first is a warm-up
                cpu[name].append(time.process_time() - used)
                wall[name].append(time.perf_counter() - begun)
    ratios = [theirs / ours for theirs, ours in zip(cpu["transformers"], cpu["embedcache"], strict=True)]
    clock = [theirs / ours for theirs, ours in zip(wall["transformers"], wall["embedcache"], strict=True)]
    return {
        "rows_per_cpu_second": {name: rows / statistics.median(some) for name, some in cpu.items()},
        "rows_per_second": {name: rows / statistics.median(some) for name, some in wall.items()},
        "ratio_cpu": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "ratio": {"median": statistics.median(clock), "least": min(clock), "most": max(clock)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "data" / "minilm")
    parser.add_argument("--texts", type=Path, default=ROOT / "demo" / "data" / "reviews-4000.csv")
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with options.texts.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][: options.rows]
    y = (np.arange(len(texts)) % 2).astype(np.int32)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = base_model(Path(folder), options.model) if options.base else options.model
        encoder = Encoder.load(model, dtype="float32", kernel="plain")
        rows = encoder.tokenize(texts).rows.lists()
        lengths = np.array(list(map(len, rows)))
        order = np.argsort(lengths, kind="stable")
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        for keep in (1, 2):
            stored = Stored(encoder, rows, encoder.layers - keep)
            for pooling in ("cls", "mean"):
                steps = {
                    "transformers": plain_step(encoder, keep, pooling, rows, y),
                    "embedcache": our_step(encoder, keep, pooling, stored, y),
                }
                name = f"top:{keep}, {pooling}"
                found[name] = measure(steps, batches, options.turns)
                print(name, json.dumps(found[name]), flush=True)
    shape = "base, 12 x 768" if options.base else f"{options.model.name}, {encoder.layers} x {encoder.dim}"
    document = {
        "machine": machine("torch", "transformers"),
        "threads": options.threads,
        "load": os.getloadavg(),
        "model": shape,
        "rows": len(texts),
        "batch": BATCH,
        "mean_tokens": float(lengths.mean()),
        "turns": options.turns,
        "ways": found,
    }
    output = options.output or RESULTS / f"finetune-speed-{'base' if options.base else 'minilm'}.json"
    output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
