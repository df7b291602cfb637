"""Which test rows stay when labels are corrected or rows appended, and what dealing by hash costs: docs/splits.md.

python -m benchmarks.runs.splits CACHE [--label label] [--pooling mean] [--draws 20] [--json FILE]

"before" is the stratified split of scikit-learn that train-head had; "now" deals by the hash of the text. The last part
asks whether folds should be dealt by hash as well: of 300 rows with one class of a twentieth, C of a logistic
regression is chosen over 5 folds, stratified or by hash, and the choice scored on the other rows.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.runs.data import load_data
from embedcache.runs.split import Split, make_folds, make_split, places
from embedcache.runs.split_before import split_before

ROWS, CORRECTED, APPENDED = 600, 15, 20
PENALTIES = tuple(10 ** (i / 4) for i in range(-16, 3))


def stability(y: np.ndarray, hashes: np.ndarray, draws: int) -> dict[str, Any]:
    """Means over draws of 600 rows: test rows, those that stay, and the spread of sizes and of the positive share."""
    result: dict[str, Any] = {}
    for name, deal in (("before", split_before), ("now", make_split)):
        found: dict[str, list[float]] = {}
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            rows = rng.choice(len(y), ROWS + APPENDED, replace=False)
            labels, keys = y[rows], hashes[rows]
            corrected = labels[:ROWS].copy()
            wrong = rng.choice(ROWS, CORRECTED, replace=False)
            corrected[wrong] = 1 - corrected[wrong]
            first, second, third = (
                set(deal(some, keys[: len(some)], val=0.1, test=0.1).test.tolist())
                for some in (labels[:ROWS], corrected, labels)
            )
            for key, value in (
                ("test", len(first)),
                ("kept_when_corrected", len(first & second)),
                ("kept_when_appended", len(first & third)),
                ("positive_share", labels[sorted(first)].mean() - labels[:ROWS].mean()),
            ):
                found.setdefault(key, []).append(float(value))
        result[name] = {key: {"mean": float(np.mean(some)), "std": float(np.std(some))} for key, some in found.items()}
    return result


def folds_by_hash(codes: np.ndarray, hashes: np.ndarray, folds: int) -> list[Split]:
    fold = (places(hashes, 42) * folds).astype(int)
    return [Split(np.flatnonzero(fold != k), np.flatnonzero(fold == k), np.zeros(0, int)) for k in range(folds)]


def choices(x: np.ndarray, y: np.ndarray, hashes: np.ndarray, draws: int) -> dict[str, Any]:
    """Scores on the other rows of the C that 5 folds choose by the loss; means over draws and standard errors."""
    result: dict[str, dict[str, list[float]]] = {"stratified": {}, "hash": {}}
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        rows = np.concatenate([rng.choice(positive, 285, replace=False), rng.choice(negative, 15, replace=False)])
        others = np.setdiff1d(np.arange(len(y)), rows)
        others = np.concatenate([others[y[others] == 1], others[y[others] == 0][: int((y[others] == 1).sum() / 19)]])
        z = StandardScaler().fit(x[rows]).transform(x)
        end = [LogisticRegression(C=c, max_iter=500).fit(z[rows], y[rows]).predict_proba(z[others]) for c in PENALTIES]
        for name, parts in (
            ("stratified", make_folds(y[rows], hashes[rows], folds=5)),
            ("hash", folds_by_hash(y[rows], hashes[rows], 5)),
        ):
            losses = np.zeros(len(PENALTIES))
            for part in parts:
                train, val = rows[part.train], rows[part.val]
                for i, c in enumerate(PENALTIES):
                    proba = LogisticRegression(C=c, max_iter=500).fit(z[train], y[train]).predict_proba(z[val])
                    losses[i] += log_loss(y[val], proba, labels=[0, 1])
            proba = end[int(losses.argmin())]
            result[name].setdefault("log10_c", []).append(float(np.log10(PENALTIES[int(losses.argmin())])))
            result[name].setdefault("loss", []).append(log_loss(y[others], proba))
            result[name].setdefault("macro_f1", []).append(f1_score(y[others], proba.argmax(1), average="macro"))
    return {
        name: {key: {"mean": float(np.mean(v)), "error": float(np.std(v) / np.sqrt(len(v)))} for key, v in one.items()}
        for name, one in result.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with open_cache(arguments.cache) as cache:
        data = load_data(cache, arguments.label, arguments.pooling, -1, None)
        x, y, hashes = np.array(data.x, np.float32), np.array(data.y), np.array(cache.hashes)
    report = {
        "machine": machine(),
        "rows": ROWS,
        "corrected": CORRECTED,
        "appended": APPENDED,
        "draws": arguments.draws,
    }
    report |= {"stability": stability(y, hashes, arguments.draws), "folds": choices(x, y, hashes, arguments.draws)}
    print(json.dumps({key: report[key] for key in ("stability", "folds")}, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
