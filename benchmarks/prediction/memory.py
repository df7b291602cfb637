"""How much memory does predict take, by the rows of its table? docs/trust.md.

python -m benchmarks.prediction.memory MINILM REVIEWS [--rows 10000,100000,1000000] [--json FILE]

A static model (a random table with MiniLM's tokenizer), a run on some reviews, and tables of reviews again and again,
each with its number. `predict --reject auto --threshold tuned` runs as a process of its own; what counts is its peak
resident memory. It must not grow with the rows, however fast the encoder is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.extraction.static import write_model
from benchmarks.machine import machine

CHILD = """
import json, resource, sys
from embedcache.prediction.job import predict_file
report = predict_file(*sys.argv[1:4], reject="auto", threshold="tuned", device="cpu")
print(json.dumps({"rows": report.rows, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  "cpu": sum(resource.getrusage(resource.RUSAGE_SELF)[:2])}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minilm", type=Path)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import embedcache as ec

    with arguments.reviews.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder / "static", arguments.minilm, 256)
        ec.extract(arguments.reviews, folder / "c.h5", model=model, labels=["label"])
        ec.train_run(folder / "c.h5", folder / "run", epochs=3)
        for rows in map(int, arguments.rows.split(",")):
            with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text", "number"])
                writer.writerows([f"{texts[i % len(texts)]} {i}", i] for i in range(rows))
            start = time.perf_counter()
            paths = [str(folder / name) for name in ("run", "in.csv", "out.csv")]
            command = [sys.executable, "-c", CHILD, *paths]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            size = (folder / "in.csv").stat().st_size
            results.append({**found, "bytes": size, "seconds": time.perf_counter() - start})
            print(json.dumps(results[-1]), flush=True)
            document = {"machine": machine("numpy", "pyarrow"), "load_average": os.getloadavg()[0], "tables": results}
            if arguments.json:
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
