"""A first question, from a cold start of the program: a row of 100,000 x 384, a text among real reviews, a prediction.

    python -m benchmarks.search.cold --json benchmarks/results/cold-minilm.json

Beside it what one writes without embedcache: sentence-transformers loads the same encoder, compares the query with the
same saved vectors. Whole processes, from exec to exit, in turns; files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import ROOT, machine
from benchmarks.serve.load import made_cache
from demo import fetch

QUERY = "a horror film that forgets to be scary"
PEER = """
import numpy as np
from sentence_transformers import SentenceTransformer, util
model = SentenceTransformer({model!r}, device="cpu")
found = util.semantic_search(model.encode([{query!r}], convert_to_tensor=True), np.load({vectors!r}), top_k=10)
print(found[0][0])
"""


def run(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = str(fetch.encoder())
    with tempfile.TemporaryDirectory() as folder:
        big = str(made_cache(Path(folder, "big.h5"), 100_000, 384))
        reviews, heads, vectors = f"{folder}/reviews.h5", f"{folder}/heads", f"{folder}/vectors.npy"
        embedcache = ["-m", "embedcache"]
        run(*embedcache, "extract", str(fetch.all_reviews()), "-o", reviews, "--model", model, "--pooling", "mean")
        run(*embedcache, "train-head", reviews, "-o", heads, "--hidden", "64")
        import embedcache as ec

        with ec.open_cache(reviews) as cache:
            np.save(vectors, cache.embeddings("mean").astype(np.float32))
        commands = {
            "search --row, 100,000 x 384": [*embedcache, "search", big, "--row", "7"],
            "search TEXT, 12,808 reviews": [*embedcache, "search", reviews, QUERY],
            "predict TEXT": [*embedcache, "predict", heads, QUERY],
            "sentence-transformers, TEXT, 12,808 reviews": [
                "-c",
                PEER.format(model=model, query=QUERY, vectors=vectors),
            ],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.turns):
            for name, command in commands.items():
                seconds[name].append(run(*command))
    for name, times in seconds.items():
        print(f"{name:44} median {statistics.median(times):.2f} s   worst {max(times):.2f} s")
    if options.json:
        versions = machine("numpy", "faiss-cpu", "torch", "transformers", "sentence-transformers")
        options.json.write_text(json.dumps({"machine": versions, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
