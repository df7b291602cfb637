"""What `extract --store int8` costs: bytes a row, cosines to float32, recall of search, accuracy and time of heads.

    python -m benchmarks.extraction.store_int8 [--json FILE]

MiniLM on the demo's 4,000 reviews, extracted by the command's own code three times. Search: each row's 10 nearest other
rows by float32 vectors, against the same of the stored ones, queries in float32 as the encoder gives them. Heads: the
recipes' default and a linear probe, on splits of 80/20 by 8 seeds, the same for all types; the interval is Student's,
of the difference to float32 over the seeds, in points of 100. Time: processor seconds of one thread, types in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import embedcache as ec
from benchmarks.machine import RESULTS, machine
from demo import fetch
from embedcache.cache import open_cache
from embedcache.common.int8_rows import Int8Rows, Matrix, to_int8
from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import train_heads
from embedcache.index.search_index import SearchIndex
from embedcache.runs.recipes import make_recipe

STORES, POOLINGS = ("float32", "float16", "int8"), ("cls", "mean", "model")
K, SEEDS, TURNS = 10, 8, 7
ROWS, DIM = 100_000, 384  # of the timing


def vectors_of(folder: Path) -> tuple[dict[str, dict[str, Matrix]], np.ndarray]:
    """Pooling -> type -> vectors, and the labels' codes."""
    found: dict[str, dict[str, Matrix]] = {pooling: {} for pooling in POOLINGS}
    for store in STORES:
        path = folder / f"{store}.h5"
        ec.extract(fetch.reviews(), path, model=fetch.encoder(), pooling=POOLINGS, store=store)
        cache = open_cache(path)
        for pooling in POOLINGS:
            found[pooling][store] = cache.embeddings(pooling)
    return found, np.asarray(cache.labels("label")[0])


def closeness(x: Matrix, exact: np.ndarray) -> dict[str, Any]:
    """Cosines to the float32 vectors, and how many of their nearest are found."""
    a = np.asarray(x, np.float64)
    cosine = (a * exact).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(exact.astype(np.float64), axis=1)
    wanted, got = (SearchIndex.from_vectors(one, kind="exact").search(exact, K + 1).rows for one in (exact, x))
    hits = [len({*w.tolist()} - {i} & {*g.tolist()}) for i, (w, g) in enumerate(zip(wanted, got, strict=True))]
    return {
        "cosine_median": float(np.median(cosine)),
        "cosine_worst": float(cosine.min()),
        f"recall_at_{K}": float(np.mean(np.minimum(hits, K)) / K),
    }


def accuracies(of: dict[str, Matrix], y: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """Recipe -> type -> accuracy in points of 100 on each seed's held-out fifth."""
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(np.flatnonzero(y >= 0))
        held, rest = order[: len(order) // 5], order[len(order) // 5 :]
        recipe = make_recipe("default", seed=seed)
        for name, grid in {"default": recipe.specs(), "probe": [HeadSpec(hidden=0, lr=1e-3, seed=seed)]}.items():
            for store, x in of.items():
                options = {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "device": "cpu"}
                options["standardize"] = recipe.standardize
                bank = train_heads(x[rest], y[rest], grid, validation=(x[held], y[held]), **options)
                found.setdefault(name, {}).setdefault(store, []).append(100 * bank.best.val_accuracy)
    return found


def compared(found: dict[str, list[float]]) -> dict[str, Any]:
    """The difference of each type to float32, with its 95% interval."""
    exact, about = np.array(found["float32"]), {}
    for store in STORES[1:]:
        difference = np.array(found[store]) - exact
        spread = difference.std(ddof=1) / np.sqrt(SEEDS) * stats.t.ppf(0.975, SEEDS - 1)
        mean = float(difference.mean())
        about[store] = {"accuracy": float(np.mean(found[store])), "difference": mean, "interval": float(spread)}
    return {"float32": float(exact.mean()), **about, "of_seeds": found}


def times() -> dict[str, Any]:
    """Processor seconds of training on each type, a turn after another, and the medians of ratios to float16."""
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    y = rng.integers(0, 2, ROWS)
    of: dict[str, Matrix] = {"float32": exact, "float16": exact.astype(np.float16), "int8": Int8Rows(*to_int8(exact))}
    report = {}
    for name, spec, epochs in (("1 probe", HeadSpec(hidden=0), 20), ("1 head of 512", HeadSpec(hidden=512), 1)):
        seconds: dict[str, list[float]] = {store: [] for store in of}
        for _ in range(TURNS):
            for store, x in of.items():
                start = time.process_time()
                train_heads(x, y, spec, epochs=epochs, threads=1, device="cpu", engine="native")
                seconds[store].append(time.process_time() - start)
        half = np.array(seconds["float16"])
        ratios = {store: float(np.median(np.array(one) / half)) for store, one in seconds.items()}
        report[name] = {"to_float16": ratios, "seconds": seconds}
    return {"rows": ROWS, "dim": DIM, "threads": 1, "of": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "store-int8.json")
    arguments = parser.parse_args()
    before = os.getloadavg()
    report: dict[str, Any] = {"machine": machine("embedcache", "numpy"), "load_before": before, "poolings": {}}
    with tempfile.TemporaryDirectory() as folder:
        found, y = vectors_of(Path(folder))
        for pooling, of in found.items():
            exact = np.array(of["float32"])
            width = exact.shape[1]
            about = report["poolings"][pooling] = {
                "rows": len(exact),
                "bytes_a_row": {"float32": 4 * width, "float16": 2 * width, "int8": width + 4},
                **{store: closeness(of[store], exact) for store in STORES[1:]},
                "heads": {name: compared(one) for name, one in accuracies(of, y).items()},
            }
            print(pooling, json.dumps({**about, "heads": {n: {**h, "of_seeds": 0} for n, h in about["heads"].items()}}))
        report["file_bytes"] = {store: (Path(folder) / f"{store}.h5").stat().st_size for store in STORES}
    report["time"] = times()
    print({name: one["to_float16"] for name, one in report["time"]["of"].items()}, report["file_bytes"])
    report["load_after"] = os.getloadavg()
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
