"""How often does drift find a difference where there is none, and one where there is? docs/drift.md.

python -m benchmarks.prediction.drift CACHE --elsewhere A.h5,B.h5 --classes C.h5,D.h5 [--draws 200] [--json FILE]

"alike": rows of the cache are dealt to two halves at random, once a draw, and compared: an alarm is a mistake.
"elsewhere": 200 rows of another table beside as many of the cache. "shares": 1,000 rows of the cache with 10% to 90% of
its first class, beside others with its own shares: the estimated share of that class, and whether its 95% interval has
the true one. "classes": the same of tables with many classes, all of them judged: once without a shift, and once with a
random share of each class left out.
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


def many(x: np.ndarray, hashes: np.ndarray, labels: list[str], draws: int) -> list[dict[str, Any]]:
    """How far the estimated shares of all classes are from the true ones, beside the old ones; and their intervals."""
    known, results = np.array(labels), []
    names, code = np.unique(known, return_inverse=True)
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        old, rest = np.split(rng.permutation(len(x)), [2 * len(x) // 3])
        left = rest[rng.random(len(rest)) < rng.random(len(names))[code[rest]]]
        for shifted, new in ((False, rest), (True, left)):
            of = label_shift("label", x[old], known[old].tolist(), hashes[old], x[new], known[new].tolist())
            assert of is not None
            true = [one.new or 0.0 for one in of.classes]
            apart = zip(of.classes, true, strict=True)
            results.append(
                {
                    "shifted": shifted,
                    "rows": len(new),
                    "classes": len(true),
                    "stable": of.stable,
                    "estimate": sum(abs(one.estimate - share) for one, share in zip(of.classes, true, strict=True)) / 2,
                    "old": sum(abs(one.old - share) for one, share in zip(of.classes, true, strict=True)) / 2,
                    "inside": sum(one.interval[0] <= share <= one.interval[1] for one, share in apart),
                }
            )
    return results


def read(cache: Cache, label: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Vectors, hashes of the texts, and labels, of one of each text."""
    first = np.sort(np.unique(np.asarray(cache.hashes), axis=0, return_index=True)[1])
    codes, names = cache.labels(label)
    labels = [names[code] if code >= 0 else "" for code in codes.tolist()]
    x = np.asarray(cache.embeddings(cache.preferred(), -1)[:], np.float32)
    return x[first], np.asarray(cache.hashes)[first], [labels[i] for i in first]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label", default="label")
    parser.add_argument("--elsewhere", default="")
    parser.add_argument("--classes", default="")
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
        document["classes"] = {}
        for path in filter(None, arguments.classes.split(",")):
            with open_cache(path) as other:
                document["classes"][Path(path).stem] = many(*read(other, arguments.label), 10)
        print(json.dumps(document["classes"]), flush=True)
        document["alike"] = alike(x, hashes, arguments.rows, arguments.draws)
        print({name: value for name, value in document["alike"].items() if name != "aucs"})
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
