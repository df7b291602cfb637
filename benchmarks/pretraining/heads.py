"""Are heads better on an encoder that has read the texts? Caches of the same rows, one a model, on the same splits.

python -m benchmarks.pretraining.heads BEFORE.h5 AFTER.h5 [--adapt ADAPT.json] [--group movie] [--splits 3] [--json F]

For each split (80/10/10, by group) the default recipe's heads are trained on each cache, and the head that validation
chooses is scored on the test rows. ADAPT.json is what ``adapt --json`` printed. The encoder may have read the texts of
the test rows, never their labels.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

import embedcache as ec
from benchmarks.machine import RESULTS, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+")
    parser.add_argument("--adapt", type=Path)
    parser.add_argument("--group", default="movie")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "adapt-heads.json")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for cache in options.caches:
        for split in range(options.splits):
            with tempfile.TemporaryDirectory() as folder:
                report = ec.train_run(cache, Path(folder, "run"), group=options.group, split=split)
            found.setdefault(Path(cache).stem, []).append(report.best["test_accuracy"])
        scores = found[Path(cache).stem]
        print(f"{cache}: {np.mean(scores):.4f} ({', '.join(f'{one:.4f}' for one in scores)})")
    document = {
        "machine": machine("torch", "transformers"),
        "load": os.getloadavg(),
        "adapt": None if options.adapt is None else json.loads(options.adapt.read_text(encoding="utf-8")),
        "test_accuracy": found,
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
