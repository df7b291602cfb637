"""Are the losses of layers trained from cached states those of plain transformers, with real weights?

python -m benchmarks.finetune.parity [--models minilm,mpnet] [--rows 128] [--epochs 2]

Real reviews, no dropout, the same order and seed: the last layer and the last two, for the CLS row and the mean, from
float32 states and from float16 ones as caches store them, against transformers from token ids with the layers below
frozen, step by step. And the last layer for the CLS row alone against autograd through the whole layer: its gradients.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.data import model_folder, texts
from benchmarks.machine import RESULTS, machine
from embedcache.encoder import Encoder
from tests.finetune.plain_transformers import (
    cached_losses,
    largest_gradient_error,
    last_layer_both_ways,
    make_config,
    make_head,
    plain_losses,
)
from tests.finetune.token_caches import StatesInMemory, hidden_states

BATCH, LR = 16, 1e-4  # finetune's own rate


def gradients(encoder: Encoder, some: list[str]) -> dict[str, float]:
    """Of the last layer for the CLS row alone, against the whole layer's."""
    outs, grads = last_layer_both_ways(encoder, some)
    error = largest_gradient_error(*grads)
    return {"output": float((outs[0] - outs[1]).abs().max()), "gradient": error}


def losses(encoder: Encoder, some: list[str], epochs: int, scratch: Path) -> list[dict[str, Any]]:
    """How far the losses are from those of plain transformers, as shares of them."""
    y = (np.arange(len(some)) % 2).astype(np.int32)  # what is learned does not matter
    head, found = make_head(encoder.dim), []
    for keep in (1, 2):
        layer = encoder.layers - keep
        rows = hidden_states(encoder, some, layer)
        for pooling in ("cls", "mean"):
            config = make_config(f"top:{keep}", pooling, batch_size=BATCH, epochs=epochs, lr=LR)
            expected = np.array(plain_losses(encoder, some, y, config, head))
            one: dict[str, Any] = {"layers": keep, "pooling": pooling, "steps": len(expected)}
            for dtype in ("float32", "float16"):
                states = StatesInMemory([row.astype(dtype) for row in rows], keep, layer)
                mine = np.array(cached_losses(encoder, states, y, config, head, scratch / "checkpoint"))
                one[dtype] = float((np.abs(mine - expected) / expected).max())
            found.append(one)
            print(json.dumps(one), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="minilm,mpnet")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "finetune-parity.json")
    options = parser.parse_args()
    some = texts("short")[:: max(1, 10_000 // options.rows)][: options.rows]
    models: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models.split(","):
            folder = model_folder(name, Path(scratch))
            encoder = Encoder.load(folder, dtype="float32", max_length=250, device="cpu", kernel="plain")
            models[name] = {"last layer, CLS row": gradients(encoder, some[:32])}
            print(name, json.dumps(models[name]), flush=True)
            models[name]["losses"] = losses(encoder, some, options.epochs, Path(scratch))
    document = {"machine": machine("torch", "transformers", "numpy"), "rows": len(some), "batch": BATCH, "lr": LR}
    options.output.write_text(json.dumps({**document, "models": models}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
