"""How many labels are wrong: `embedcache audit`'s estimate beside the truth and cleanlab's count, on real texts.

python -m benchmarks.audit.count [--data drugs,three,imbalanced,reviews,one-way,newsgroups] [--seeds 40,41,42]

A share of the labels is exchanged for another class, drawn evenly; these are the truth. Labels that were wrong before
are not in it, so the truth is a little too low: it is nothing where nothing was exchanged. Counted by:

- audit: estimate, interval, and how many errors it expects, and there are, among the first rows that it says to read;
- listed: rows for which another label is likelier (what audit called likely label errors before it had an estimate);
- cleanlab: find_label_issues, and the off-diagonal sum of estimate_joint, on the very same probabilities.

The sets: reviews, two classes that an encoder knows badly; newsgroups, twenty that it knows well; imbalanced, the
reviews at 10:1; three, 600 posts on three kinds of computers in 392, 154 and 54 rows; drugs, 600 drug reviews in
classes of unlike sizes, the smallest of which next to nothing tells; one-way, reviews of which only "fresh" ones become
"rotten". The model and its constants were chosen on seeds 10 to 14 and 20 to 24, that of the classes' shares also on
the drug reviews as they are.
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
from benchmarks.audit.precision import read_rows
from benchmarks.extraction.data import fetch
from benchmarks.machine import machine
from benchmarks.runs.small_data import draw
from embedcache.audit.job import AuditedRows, Opinions, find_nearest

SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)
THREE = {"comp.sys.ibm.pc.hardware": 392, "comp.os.ms-windows.misc": 154, "comp.sys.mac.hardware": 54}
ROWS = 4000
DRUGS = "n600-0"  # a draw of benchmarks/runs/small_data.py


def rows_of(data: str) -> list[tuple[str, str]]:
    """(text, label) of a data set, always the same ones."""
    if data == "drugs":
        drawn = draw("drugs")
        return [(drawn.rows.texts[i], drawn.rows.targets[i]) for i in drawn.draws[DRUGS].tolist()]
    source = "newsgroups" if data in ("newsgroups", "three") else "reviews"
    rows = [row for row in read_rows(source) if row[0].strip()]
    rows = [rows[i] for i in np.random.default_rng(7).permutation(len(rows))]
    wanted = {"imbalanced": {"fresh": 3000, "rotten": 300}, "three": THREE}.get(data)
    if wanted is None:
        return rows[:ROWS]
    return [row for label, n in wanted.items() for row in [one for one in rows if one[1] == label][:n]]


def exchanged(labels: np.ndarray, share: float, seed: int, only: str | None) -> np.ndarray:
    """The labels with that share of all rows exchanged; only: those of one class."""
    rng, classes, new = np.random.default_rng(seed), np.unique(labels), labels.copy()
    rows = np.flatnonzero(labels == only) if only else np.arange(len(labels))
    for row in rng.choice(rows, round(share * len(labels)), replace=False):
        new[row] = rng.choice(classes[classes != labels[row]])
    return new


def make_cache(data: str, seeds: list[int], caches: Path) -> Path:
    """One cache with a label column for every share and seed."""
    rows = rows_of(data)
    labels = np.array([label for _, label in rows], dtype=object)
    only = "fresh" if data == "one-way" else None
    columns = {"label": labels}
    for share in SHARES[1:]:
        columns |= {f"{share} {seed}": exchanged(labels, share, seed, only) for seed in seeds}
    table, cache = caches / f"errors-{data}.csv", caches / f"errors-{data}.h5"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *columns])
        writer.writerows(zip([text for text, _ in rows], *columns.values(), strict=True))
    ec.extract([table], cache, model=str(fetch.encoder()), labels=list(columns), pooling=["mean"], overwrite=True)
    return cache


def measure(path: Path, share: float, seed: int) -> dict[str, Any]:
    """Everything of one column."""
    name = f"{share} {seed}" if share else "label"
    with ec.open_cache(path) as cache:
        table = AuditedRows(cache, name, "mean", -1, None, 5, None)
        opinions = Opinions(table, find_nearest(table, 20, None), [0 if share else seed], None, engine="auto")
        judged, classes = opinions.judged, table.data.classes
        given = table.data.y[judged.rows]
        number = {one: code for code, one in enumerate(classes)}
        codes, names = cache.labels("label")
        wrong = np.array([number[one] for one in names])[codes][judged.rows] != given
        p = np.concatenate([opinions.mixture.proba(part)[0] for part in np.array_split(judged.rows, 50)])
        count, order = judged.count, judged.order
        by_class = [int(wrong[given == c].sum()) for c in range(len(classes))]
        intervals = [one.interval for one in count.per_class]
        inside = [low <= n <= high for (low, high), n in zip(intervals, by_class, strict=True)]
        return {
            "rows": len(given),
            "truth": int(wrong.sum()),
            "estimate": count.estimate,
            "interval": list(count.interval),
            "inside": bool(count.interval[0] <= wrong.sum() <= count.interval[1]),
            "classes_inside": float(np.mean(inside)),
            "expected": [count.expected_first, count.expected],
            "there": [int(wrong[order[: count.estimate]].sum()), int(wrong[order[: count.read]].sum())],
            "listed": int(judged.disagree.sum()),
            "smallest_class": _smallest(given, judged.disagree, count),
            "accuracy": float((p.argmax(1) == given).mean()),
            **_cleanlab(p, given),
        }


def _smallest(given: np.ndarray, disagree: np.ndarray, count: Any) -> dict[str, int]:
    """Of the class with the fewest rows: rows, rows listed, and the estimate."""
    c = int(np.bincount(given).argmin())
    listed = int(disagree[given == c].sum())
    return {"rows": int((given == c).sum()), "listed": listed, "estimate": count.per_class[c].estimate}


def _cleanlab(p: np.ndarray, y: np.ndarray) -> dict[str, int]:
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues

    joint = estimate_joint(y, p)
    return {
        "cleanlab": int(find_label_issues(y, p, n_jobs=1).sum()),
        "cleanlab_joint": round(float(joint.sum() - np.trace(joint)) * len(y)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="drugs,three,imbalanced,reviews,one-way,newsgroups")
    parser.add_argument("--seeds", default="40,41,42")
    parser.add_argument("--caches", type=Path, default=fetch.DATA.parent / "out", help="where the caches are kept")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    document: dict[str, Any] = {"machine": machine("numpy", "scikit-learn", "cleanlab"), "seeds": seeds, "counts": {}}
    arguments.caches.mkdir(parents=True, exist_ok=True)
    for data in arguments.data.split(","):
        cache = make_cache(data, seeds, arguments.caches)
        found = document["counts"][data] = {}
        for share in SHARES:
            runs = found[str(share)] = [measure(cache, share, seed) for seed in seeds]
            inside = np.mean([run["inside"] for run in runs])
            mean = {key: np.mean([run[key] for run in runs]) for key in ("truth", "estimate", "listed", "cleanlab")}
            said = ", ".join(f"{key} {value:.0f}" for key, value in mean.items())
            print(f"{data}, {share:.0%}: {said}; {inside:.0%} of the intervals hold it", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
