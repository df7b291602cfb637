"""Is torch faster with a batch on each core than with all cores on one batch? For families without native code.

Models with random weights and MiniLM's tokenizer (for speed, weights do not matter) through ``Encoder``, as extract
computes them on a CPU, against the way before (one batch of 2,048 padded tokens on all cores) and sentence-transformers
(whose ``encode`` sorts by length too, at the better of two batch sizes). Real review snippets; turns, medians.

    python -m benchmarks.extraction.side_by_side [--turns 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer, models

from benchmarks.extraction.data import texts as real_texts
from benchmarks.machine import RESULTS, machine
from demo import fetch
from embedcache.encoder import Encoder

MAX_LENGTH, ROWS = 256, 400
SIZES: dict[str, Any] = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
TOKENS: dict[str, Any] = {"vocab_size": 30522, "pad_token_id": 0}
CONFIGS = {
    "RoFormer, 6 x 768": transformers.RoFormerConfig(**SIZES, **TOKENS, num_hidden_layers=6),
}


def make_folder(config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).eval().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(fetch.encoder()).save_pretrained(folder)
    return folder


def ways(folder: Path, texts: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    encoder = Encoder.load(folder, max_length=MAX_LENGTH, device="cpu", dtype="float32")
    assert encoder.kernel == "plain"
    cores = encoder.threads

    def ours(threads: int, budget: int | None) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            encoder.threads = threads
            return encoder.encode_tokens(encoder.tokenize(texts), [("mean", -1)], batch_tokens=budget)[0]

        return run

    body = models.Transformer(str(folder), max_seq_length=MAX_LENGTH)
    peer = SentenceTransformer(modules=[body, models.Pooling(encoder.dim, pooling_mode="mean")], device="cpu")
    found: dict[str, Callable[[], np.ndarray]] = {
        "a batch on each core": ours(cores, None),
        "all cores on one batch": ours(1, 2048),
    }
    for size in (8, 32):
        found[f"sentence-transformers, batches of {size}"] = lambda size=size: peer.encode(texts, batch_size=size)
    return found


def measure(config: Any, turns: int, texts: list[str], scratch: Path) -> dict[str, Any]:
    runs = ways(make_folder(config, scratch), texts)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    load, wanted = [], None
    for turn in range(turns + 1):  # the first warms up
        for name, run in runs.items():
            wall, work = time.perf_counter(), time.process_time()
            vectors = run()
            if turn:
                seconds[name].append(time.perf_counter() - wall)
                processor[name].append(time.process_time() - work)
            wanted = vectors if wanted is None else wanted
            assert np.abs(vectors - wanted).max() < 1e-3 * np.abs(wanted).max()
        load.append(os.getloadavg()[0])
    rate = {name: len(texts) / statistics.median(all_of) for name, all_of in seconds.items()}
    best = max(one for name, one in rate.items() if name.startswith("sentence"))
    return {
        "rows_per_second": rate,
        "over_the_way_before": rate["a batch on each core"] / rate["all cores on one batch"],
        "over_sentence_transformers": rate["a batch on each core"] / best,
        "seconds": seconds,
        "processor_seconds": processor,
        "load": load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "side-by-side.json")
    asked = parser.parse_args()
    texts = real_texts("short")[:ROWS]
    found: dict[str, Any] = {"machine": machine("torch", "transformers", "sentence-transformers"), "rows": len(texts)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in CONFIGS.items():
            found[name] = measure(config, asked.turns, texts, Path(scratch, name.replace(" ", "-")))
            print(name, json.dumps({key: one for key, one in found[name].items() if "seconds" not in key}), flush=True)
            asked.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
