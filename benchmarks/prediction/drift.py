"""How often does drift find a difference where there is none, and one where there is? docs/drift.md.

python -m benchmarks.prediction.drift CACHE --elsewhere A.h5,B.h5 [--draws 200] [--rows 1000] [--json FILE]

"alike": rows of the cache are dealt to two halves at random, once a draw, and compared: an alarm is a mistake.
"elsewhere": 200 rows of another table beside as many of the cache. "shares": 1,000 rows of the cache with 10% to 90% of
its first class, beside others with its own shares: the estimated share of that class, and whether its 95% interval has
the true one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from embedcache.cache import Cache, open_cache
from embedcache.drift.domain import compare_domains
from embedcache.drift.labels import label_shift

FEW, SHARED = 200, 1000
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def alike(x: np.ndarray, hashes: np.ndarray, rows: int, draws: int) -> dict[str, Any]:
    aucs, alarms = [], 0
    for draw in range(draws):
        some = np.random.default_rng(draw).permutation(len(x))[: 2 * rows]
        a, b = some[:rows], some[rows:]
        found = compare_domains(x[a], x[b], hashes[a], hashes[b])
        aucs.append(found.auc)
        alarms += found.differs
    return {"rows": rows, "draws": draws, "alarms": alarms, "aucs": aucs}


def elsewhere(x: np.ndarray, hashes: np.ndarray, other: Cache, output: tuple[str, int], draws: int) -> dict[str, Any]:
    aucs, found = [], 0
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        a, b = rng.permutation(len(x))[:FEW], rng.permutation(other.rows)[:FEW]
        b = np.sort(b)
        one = compare_domains(x[a], np.asarray(other.embeddings(*output)[b]), hashes[a], other.hashes[b])
        aucs.append(one.auc)
        found += one.differs
    return {"rows": FEW, "draws": draws, "found": found, "lowest_auc": min(aucs), "mean_auc": float(np.mean(aucs))}


def shares(x: np.ndarray, hashes: np.ndarray, labels: list[str], draws: int) -> list[dict[str, Any]]:
    known = np.array(labels)
    first = sorted(set(labels) - {""})[0]
    results = []
    for share in SHARES:
        for draw in range(draws):
            some = np.random.default_rng(draw).permutation(len(x))
            old, rest = some[:4000], some[4000:]
            count = round(SHARED * share)
            new = np.concatenate([rest[known[rest] == first][:count], rest[known[rest] != first][: SHARED - count]])
            of = label_shift("label", x[old], known[old].tolist(), hashes[old], x[new], [])
            assert of is not None
            one = next(one for one in of.classes if one.label == first)
            true = float((known[new] == first).mean())
            inside = one.interval[0] <= true <= one.interval[1]
            results.append({"true": true, "old": one.old, "estimate": one.estimate, "inside": inside})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label", default="label")
    parser.add_argument("--elsewhere", default="")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_cache(arguments.cache) as cache:
        output = cache.preferred(), -1
        x, hashes = np.asarray(cache.embeddings(*output)[:], np.float32), np.asarray(cache.hashes)
        codes, names = cache.labels(arguments.label)
        labels = [names[code] if code >= 0 else "" for code in codes.tolist()]
        document: dict[str, Any] = {"machine": machine("numpy", "scikit-learn", "scipy"), "elsewhere": {}}
        for path in filter(None, arguments.elsewhere.split(",")):
            with open_cache(path) as other:
                document["elsewhere"][Path(path).stem] = elsewhere(x, hashes, other, output, 20)
        print(json.dumps(document["elsewhere"]), flush=True)
        document["shares"] = shares(x, hashes, labels, 3)
        print(json.dumps(document["shares"]), flush=True)
        document["alike"] = alike(x, hashes, arguments.rows, arguments.draws)
        print({name: value for name, value in document["alike"].items() if name != "aucs"})
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
