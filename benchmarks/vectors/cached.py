"""What do known texts cost `ec.cached(...).encode` beside new ones, and how near is it to sentence-transformers?

    python -m benchmarks.vectors.cached [--new 10000] [--known 90000] [--turns 3] [--json PATH]

New texts are reviews, encoded by MiniLM in float32. Known texts are made up, and their vectors are random numbers that
were put into the store beforehand: how they came there does not change what finding them costs. Each turn encodes the
new texts alone in an empty folder, then new and known texts mixed in a folder that knows the latter, then the
same again, of which all are known. Processor time of the call; the model is loaded before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import embedcache as ec
from benchmarks.extraction import data
from benchmarks.machine import RESULTS, machine
from embedcache.cache.strings import hash_texts


def spent(encoder: Any, texts: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    encoder.encode(texts)
    return time.process_time() - cpu, time.perf_counter() - wall


def fill(encoder: Any, texts: list[str]) -> None:
    """Make texts known, with random vectors."""
    store, rng = encoder._with_prompt(None).store, np.random.default_rng(0)
    for start in range(0, len(texts), 10_000):
        part = texts[start : start + 10_000]
        vectors = rng.standard_normal((len(part), encoder.get_sentence_embedding_dimension())).astype(np.float32)
        store.append(hash_texts([text.encode() for text in part]), part, vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=int, default=10_000)
    parser.add_argument("--known", type=int, default=90_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "cached.json")
    options = parser.parse_args()
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = data.model_folder("minilm", Path(scratch)).resolve()
        new = data.texts("short")[: options.new]
        known = [f"a text that is known, number {i}" for i in range(options.known)]
        mixed = random.Random(0).sample([*new, *known], len(new) + len(known))
        for turn in range(options.turns):
            alone = ec.cached(folder, Path(scratch, f"alone-{turn}"))
            both = ec.cached(folder, Path(scratch, f"both-{turn}"))
            fill(both, known)
            alone.encode("warm"), both.encode("warm")
            first, second = spent(alone, new), spent(both, mixed)
            again = spent(both, mixed)
            turns.append({"new": first[0], "both": second[0], "all_known": again[0], "new_wall": first[1],
                          "both_wall": second[1], "all_known_wall": again[1]})  # fmt: skip
            print(json.dumps(turns[-1]), flush=True)
        expected = _theirs(folder, new)
        found = alone.encode(new)
        cosines = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    document = {
        "machine": machine("numpy", "sentence-transformers"),
        "new": len(new),
        "known": len(known),
        "turns": turns,
        "ratio": statistics.median(one["both"] / one["new"] for one in turns),
        "worst_cosine": float(cosines.min()),
        "largest_difference": float(np.abs(expected - found).max()),
        "load": os.getloadavg()[0],
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({name: document[name] for name in ("ratio", "worst_cosine", "largest_difference", "load")}))


def _theirs(folder: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    vectors: np.ndarray = SentenceTransformer(str(folder), device="cpu").encode(texts)
    return vectors.astype(np.float64)


if __name__ == "__main__":
    main()
