"""Does an audit see less with vectors of an encoder that was tuned on the labels that are audited?

python -m benchmarks.audit.tuned [--model demo/data/minilm] [-o JSON]

5% of the labels of the demo's reviews are exchanged, the last layer is tuned on them (by film, best epoch by
validation), and both caches, of the frozen and of the tuned encoder, are audited. Of the rows on which it was tuned and
of the others: how many of the first rows of the list, as many as are exchanged, are exchanged ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, ROOT, machine
from embedcache.audit.job import audit_cache
from embedcache.audit.sides import run_sides
from embedcache.cache import open_cache
from embedcache.extraction.job import extract
from embedcache.finetune.job import finetune

SHARE, GROUP = 0.05, "movie"
SETTINGS: dict[str, dict[str, Any]] = {"cls": {}, "model": {"epochs": 3}}  # by what the head reads


def exchange(texts: Path, noisy: Path) -> np.ndarray:
    """Write the table with other labels; which of them are, bool [N]."""
    with texts.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["label"] for row in rows})
    chosen = np.zeros(len(rows), bool)
    chosen[np.random.default_rng(0).permutation(len(rows))[: int(SHARE * len(rows))]] = True
    for row in np.flatnonzero(chosen):
        rows[row]["label"] = names[1 - names.index(rows[row]["label"])]
    with noisy.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return chosen


def judge(cache: Path, pooling: str, exchanged: np.ndarray, side: np.ndarray) -> dict[str, Any]:
    report = audit_cache(cache, group=GROUP, pooling=pooling)
    listed = np.array([one.row for one in report.labels])
    found: dict[str, Any] = {"estimate": report.errors.estimate, "interval": report.errors.interval}
    for name, rows in (("tuned on", side == 0), ("others", side > 0)):
        count = int((exchanged & rows).sum())
        first = listed[rows[listed]][:count]
        found[name] = {"exchanged": count, "of the first": int(exchanged[first].sum())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "data" / "minilm")
    parser.add_argument("--texts", type=Path, default=ROOT / "demo" / "data" / "reviews-4000.csv")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "tuned-audit.json")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, frozen = folder / "noisy.csv", folder / "frozen.h5"
        exchanged = exchange(options.texts, table)
        extract(table, frozen, model=options.model, keep=GROUP, tokens=1)
        for pooling, settings in SETTINGS.items():
            run, tuned = folder / pooling, folder / f"{pooling}.h5"
            finetune(frozen, run, train="last", pooling=pooling, group=GROUP, **settings)
            extract(table, tuned, model=run, keep=GROUP)
            with open_cache(frozen) as cache:
                side = run_sides(cache, run, None).codes
            for kind, path in (("frozen", frozen), ("tuned", tuned)):
                found[f"{pooling}, {kind}"] = judge(path, pooling, exchanged, side)
                print(pooling, kind, found[f"{pooling}, {kind}"], flush=True)
    document = {
        "machine": machine("torch"),
        "load": os.getloadavg(),
        "exchanged": int(exchanged.sum()),
        "audits": found,
    }
    options.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
