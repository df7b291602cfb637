"""int8 on one core: rows a second of CPU time, cosines to float32, and heads on the vectors.

    python -m benchmarks.extraction.int8 [--peers FOLDER] [--turns 5] [--parts speed,quality] [--json PATH]

Mean vectors of MiniLM from texts, tokenizing left out. embedcache in int8 and bfloat16; OpenVINO in int8, quantized by
NNCF (transformer preset, calibrated on other texts of the same kind), the rest in bfloat16 or in float32; ONNX Runtime,
quantized dynamically. Each has one thread and batches of like length, of 1,024 or 4,096 padded tokens, whichever is
faster. CPU time of the process, in turns, medians of the turns' ratios: other work on the machine disturbs that least.
``--peers`` is a folder with openvino and nncf (pip install --target FOLDER openvino nncf).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.data import model_folder, texts
from benchmarks.machine import RESULTS, machine

Run = Callable[[], np.ndarray]
ROWS = {"short": 200, "long": 24}
CALIBRATION, MAX_LENGTH, SEEDS = 64, 250, 8
BUDGETS = (1024, 4096)
OURS = "embedcache, int8"


def batches(rows: list[list[int]], budget: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, ids, mask) of padded batches of like length."""
    order, start, found = np.argsort([-len(row) for row in rows], kind="stable"), 0, []
    while start < len(order):
        longest = len(rows[order[start]])
        some = order[start : start + max(1, budget // longest)]
        ids, mask = np.zeros((len(some), longest), np.int64), np.zeros((len(some), longest), np.int64)
        for i, row in enumerate(some):
            ids[i, : len(rows[row])], mask[i, : len(rows[row])] = rows[row], 1
        found.append((some, ids, mask))
        start += len(some)
    return found


def peer(compute: Callable[[np.ndarray, np.ndarray], np.ndarray], rows: list[list[int]], budget: int) -> Run:
    parts = batches(rows, budget)

    def run() -> np.ndarray:
        vectors: np.ndarray | None = None
        for some, ids, mask in parts:
            found = compute(ids, mask)
            vectors = np.empty((len(rows), found.shape[1]), np.float32) if vectors is None else vectors
            vectors[some] = found
        assert vectors is not None
        return vectors

    return run


def ours(folder: Path, dtype: str, rows: list[list[int]]) -> Run:
    from embedcache.encoder import Encoder

    encoder, parts = Encoder.load(folder, dtype=dtype, max_length=MAX_LENGTH), batches(rows, BUDGETS[1])

    def run() -> np.ndarray:
        vectors = np.empty((len(rows), encoder.dim), np.float32)
        for some, _, _ in parts:
            (vectors[some],) = encoder.encode([rows[i] for i in some], [("mean", -1)])
        return vectors

    return run


def mean_model(folder: Path) -> Any:
    import torch
    from transformers import AutoModel

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            kept = attention_mask[..., None].to(hidden.dtype)
            return (hidden * kept).sum(1) / kept.sum(1)

    return Mean().eval()


def openvino(folder: Path, calibration: list[list[int]]) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    import nncf
    import openvino as ov
    import torch

    names = ("input_ids", "attention_mask")
    example = dict.fromkeys(names, torch.ones(2, 16, dtype=torch.int64))
    shapes = [(name, [-1, -1], ov.Type.i64) for name in names]
    model = ov.convert_model(mean_model(folder), example_input=example, input=shapes)
    samples = [{"input_ids": ids, "attention_mask": mask} for _, ids, mask in batches(calibration, 1)]
    quantized = nncf.quantize(
        model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
    )
    found = {}
    for name, one, hint in (
        ("OpenVINO, int8 and bfloat16", quantized, "bf16"),
        ("OpenVINO, int8 and float32", quantized, "f32"),
        ("OpenVINO, bfloat16", model, "bf16"),
    ):
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        compiled = ov.Core().compile_model(one, "CPU", options)

        def compute(ids: np.ndarray, mask: np.ndarray, compiled: Any = compiled) -> np.ndarray:
            result: np.ndarray = compiled([ids, mask])[0]
            return result

        found[name] = compute
    return found


def onnx_runtime(folder: Path, scratch: Path) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    import onnxruntime
    import torch
    from onnxruntime.quantization import quantize_dynamic

    paths, names = (scratch / "model.onnx", scratch / "int8.onnx"), ["input_ids", "attention_mask"]
    ones = torch.ones(2, 16, dtype=torch.int64)
    torch.onnx.export(
        mean_model(folder), (ones, ones), str(paths[0]), input_names=names, output_names=["mean"], dynamo=False,
        dynamic_axes={name: {0: "n", 1: "t"} for name in names} | {"mean": {0: "n"}},
    )  # fmt: skip
    quantize_dynamic(str(paths[0]), str(paths[1]))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(paths[1]), settings, providers=["CPUExecutionProvider"])

    def compute(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(["mean"], {"input_ids": ids, "attention_mask": mask})[0]
        return result

    return {"ONNX Runtime, dynamic int8": compute}


def timed(run: Run) -> tuple[float, np.ndarray]:
    begun = time.process_time()
    vectors = run()
    return time.process_time() - begun, vectors


def cosines(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    x, y = x.astype(np.float64), y.astype(np.float64)
    found = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    return {"median": float(np.median(found)), "worst": float(found.min())}


def speed(kind: str, folder: Path, turns: int, scratch: Path) -> dict[str, Any]:
    from embedcache.encoder import Encoder

    some, n = texts(kind), ROWS[kind]
    tokenizer = Encoder.load(folder, dtype="float32", max_length=MAX_LENGTH)
    rows, calibration = (
        [row.tolist() for row in map(np.asarray, tokenizer.tokenize(part).rows)]
        for part in (some[:n], some[-CALIBRATION if kind == "short" else -CALIBRATION // 4 :])
    )
    exact = tokenizer.encode(rows, [("mean", -1)])[0]
    runs = {"embedcache, int8": ours(folder, "int8", rows), "embedcache, bfloat16": ours(folder, "bfloat16", rows)}
    for name, compute in {**openvino(folder, calibration), **onnx_runtime(folder, scratch)}.items():
        both = {budget: peer(compute, rows, budget) for budget in BUDGETS}
        best = min(BUDGETS, key=lambda budget: min(timed(both[budget])[0] for _ in range(2)))
        runs[f"{name} ({best} tokens)"] = both[best]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, dict[str, float]] = {}
    for turn in range(turns + 1):
        for name, run in runs.items():
            spent, vectors = timed(run)
            found[name] = cosines(vectors, exact)
            if turn:  # the first one warms up
                seconds[name].append(spent)
        print(f"{kind}, turn {turn}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    result = {}
    for name in runs:
        ratios = [theirs / mine for theirs, mine in zip(seconds[name], seconds[OURS], strict=True)]
        result[name] = {
            "rows_per_cpu_second": n / statistics.median(seconds[name]),
            "ours_to_it": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
            "cosine": found[name], "seconds_of_turns": seconds[name],
        }  # fmt: skip
    return {"rows": n, "tokens_per_row": float(np.mean([len(row) for row in rows])), "results": result}


def quality(folder: Path, scratch: Path) -> dict[str, Any]:
    """Validation accuracy of linear probes on 4,000 reviews, the same splits for all dtypes."""
    import embedcache as ec
    from demo import fetch

    table, accuracy, cosine = fetch.DATA / "reviews-4000.csv", {}, {}
    vectors: dict[str, np.ndarray] = {}
    for dtype in ("float32", "int8"):
        report = ec.extract(table, scratch / f"{dtype}.h5", model=folder, pooling="mean", dtype=dtype, device="cpu")
        print(*report.notes, sep="\n", file=sys.stderr, flush=True)
        with ec.open_cache(scratch / f"{dtype}.h5") as cache:
            vectors[dtype], (codes, _) = np.asarray(cache.embeddings("mean"), np.float32), cache.labels("label")
        y = np.asarray(codes)
        for seed in range(SEEDS):
            order = np.random.default_rng(seed).permutation(len(y))
            held, rest = order[: len(y) // 5], order[len(y) // 5 :]
            mean, spread = vectors[dtype][rest].mean(0), vectors[dtype][rest].std(0) + 1e-6
            x = (vectors[dtype] - mean) / spread
            grid = ec.head_grid(hidden=0, lr=1e-3, seed=seed)
            trained = ec.train_heads(x[rest], y[rest], grid, epochs=20, validation=(x[held], y[held]))
            accuracy.setdefault(dtype, []).append(float((trained.best.predict(x[held]) == y[held]).mean()))
    cosine = cosines(vectors["int8"], vectors["float32"])
    means = {dtype: float(np.mean(values)) for dtype, values in accuracy.items()}
    return {
        "rows": len(y), "seeds": SEEDS, "accuracy": accuracy, "means": means,
        "points_lost": 100 * (means["float32"] - means["int8"]), "cosine": cosine,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--parts", default="speed,quality")
    parser.add_argument("--json", type=Path, default=RESULTS / "int8-minilm.json")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    report: dict[str, Any] = {"machine": machine("embedcache"), "load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = model_folder(options.model, scratch)
        if "speed" in options.parts:
            report["speed"] = {kind: speed(kind, model, options.turns, scratch) for kind in ROWS}
        if "quality" in options.parts:
            report["quality"] = quality(model, scratch)
    report["load_after"] = os.getloadavg()
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for kind, measured in report.get("speed", {}).items():
        for name, one in measured["results"].items():
            print(
                f"{kind:6}{name:45}{one['rows_per_cpu_second']:8.1f} rows/s  int8 to it {one['ours_to_it']:.2f} "
                f"({one['lowest']:.2f} to {one['highest']:.2f})  cosine {one['cosine']['median']:.5f}, worst "
                f"{one['cosine']['worst']:.4f}"
            )
    if "quality" in report:
        print({name: value for name, value in report["quality"].items() if name != "accuracy"})


if __name__ == "__main__":
    main()
