"""How fast is a static model, a table of tokens' vectors, and what bounds it?

    python -m benchmarks.extraction.static [--rows 20000] [--turns 5] [--dim 256] [--json PATH]

Short reviews through: the static model whole, its tokenizer alone, its gather alone; MiniLM of the same tokenizer, at
embedcache's best dtype (on fewer rows, which are a sample); sentence-transformers' StaticEmbedding and model2vec's
StaticModel of the same folder, each with its own batch size of 1,024. All take turns. The table is random: how fast
it is does not depend on its numbers. A rate is rows by wall-clock time, the median of the turns; ``cpu`` is the
processor's time of all threads. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.extraction import data
from benchmarks.machine import machine
from embedcache.encoder import Encoder

SAMPLE = 8  # MiniLM has one of so many rows
BATCH = 1024


def write_model(folder: Path, minilm: Path, dim: int) -> Path:
    """A folder that all three libraries open."""
    folder.mkdir()
    tokenizer = json.loads((minilm / "tokenizer.json").read_text("utf-8")) | {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    rows = len(tokenizer["model"]["vocab"])
    table = np.random.default_rng(0).normal(0, 1, (rows, dim)).astype(np.float32)
    save_file({"embeddings": table}, folder / "model.safetensors")
    kinds = {"StaticEmbedding": ".", "Normalize": "1_Normalize"}
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (kind, path) in enumerate(kinds.items())]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "1_Normalize").mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}), "utf-8")
    return folder


def contenders(folder: Path, minilm: Path, texts: list[str]) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Name -> (rows, the work)."""
    ours = Encoder.load(folder, max_length=1 << 20, device="cpu")
    encoder = Encoder.load(minilm, max_length=256, device="cpu")
    tokens, few = ours.tokenize(texts), texts[::SAMPLE]
    there: dict[str, tuple[int, Callable[[], Any]]] = {
        "embedcache": (len(texts), lambda: ours.encode_texts(texts, [("mean", -1)])),
        "its tokenizer alone": (len(texts), lambda: ours.tokenize(texts)),
        "its gather alone": (len(texts), lambda: ours.encode_tokens(tokens, [("mean", -1)])),
        f"MiniLM, {encoder.compute_dtype}": (len(few), lambda: encoder.encode_texts(few, [("mean", -1)])),
    }
    if importlib.util.find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(folder), device="cpu")
        there["sentence-transformers"] = (
            len(texts), lambda: theirs.encode(texts, batch_size=BATCH, show_progress_bar=False),
        )  # fmt: skip
    if importlib.util.find_spec("model2vec"):
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(str(folder))
        there["model2vec"] = (
            len(texts), lambda: model.encode(texts, batch_size=BATCH, max_length=None, use_multiprocessing=False),
        )  # fmt: skip
    return there


def measure(there: dict[str, tuple[int, Callable[[], Any]]], turns: int) -> dict[str, Any]:
    """Rows a second of each, in turns, and the processor's time for a million rows."""
    wall: dict[str, list[float]] = {name: [] for name in there}
    cpu: dict[str, list[float]] = {name: [] for name in there}
    for turn in range(turns + 1):
        for name, (rows, work) in there.items():
            begun, used = time.perf_counter(), time.process_time()
            work()
            if turn:  # the first warms up
                wall[name].append(rows / (time.perf_counter() - begun))
                cpu[name].append((time.process_time() - used) / rows * 1e6)
    return {
        name: {
            "rows_per_second": statistics.median(wall[name]),
            "spread": [min(wall[name]), max(wall[name])],
            "cpu_seconds_per_million_rows": statistics.median(cpu[name]),
        }
        for name in there
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    try:
        minilm = data.model_folder("minilm", scratch)
        every = data.texts("short")
        texts = (every * (options.rows // len(every) + 1))[: options.rows]
        there = contenders(write_model(scratch / "static", minilm, options.dim), minilm, texts)
        found = measure(there, options.turns)
    finally:
        shutil.rmtree(scratch)
    base = next(one["rows_per_second"] for name, one in found.items() if name.startswith("MiniLM"))
    for name, one in found.items():
        print(f"{name:24} {one['rows_per_second']:12,.0f} rows/s {one['rows_per_second'] / base:8.1f} x MiniLM")
    if options.json:
        about = machine("scipy", "sentence-transformers", "model2vec", "torch")
        report = {"machine": about, "load": os.getloadavg(), "dim": options.dim, "rows": options.rows, "found": found}
        options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
