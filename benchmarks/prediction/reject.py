"""Does what predict --reject promises on validation rows hold on others, and what does it refuse? docs/predict.md.

python -m benchmarks.prediction.reject CACHE --group movie --elsewhere A.h5,B.h5 [--splits 100]
                                       [--json FILE] [--image FILE]

Each split deals whole groups anew, 80/10/10; the default recipe's heads are trained on one side, chosen and calibrated
on the second, which also makes the promise; the third is scored. "inside": the figure of the test rows lies in the
promise's 95% interval. Test rows are a sample as well, so an exact promise would lie there less often than 95%;
"agrees": the two differ by less than both samples explain, by the same intervals. Rows from elsewhere have no right
label: the fewer of them get one the better.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from embedcache.cache import Cache, open_cache
from embedcache.cache.strings import first_rows
from embedcache.heads.kinds import kind_of
from embedcache.heads.train import train_bank
from embedcache.prediction.rule import REASONS, Rule, refusing
from embedcache.runs.calibration import fit_temperature, probabilities
from embedcache.runs.calibration_set import make_calibration_set
from embedcache.runs.data import Data, load_data, make_task
from embedcache.runs.intervals import score_interval
from embedcache.runs.leaderboard import predict_rows
from embedcache.runs.mistakes import Judged
from embedcache.runs.recipes import make_recipe
from embedcache.runs.split import make_split

LIMITS = ("auto", 0.6, 0.7, 0.8, 0.9)
SHARES = np.linspace(0.05, 1, 20)  # of the rows that are kept, for the curves
KIND = "classification"


def half_widths(interval: tuple[float, float] | None) -> float:
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2


def measure(cache: Cache, data: Data, elsewhere: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """The promises and what became of them on one split."""
    split = make_split(data.y, cache.hashes, data.keys, seed=seed)
    settings = make_recipe("default", seed=seed)
    task = make_task(data, split, settings.standardize, "none")
    heads = train_bank([task], [(spec, 0) for spec in settings.specs()], epochs=20, early_stop=4).heads
    head = min(heads, key=lambda one: float(np.nanmin(one.history["val_loss"])))
    val, test = (predict_rows([head], data.x, rows)[0] for rows in (split.val, split.test))
    temperature = fit_temperature(data.y[split.val], val, KIND) or 1.0
    groups = {
        name: None if data.keys is None else first_rows(np.ascontiguousarray(data.keys[rows]))
        for name, rows in (("val", split.val), ("test", split.test))
    }
    judged = Judged(split.val, data.y[split.val], val)
    known = make_calibration_set(judged, data.x, split.train, [split], groups["val"])
    p, vectors = probabilities(test.astype(np.float64), KIND, temperature), data.x[split.test]
    right = p.argmax(axis=1) == data.y[split.test]
    found: dict[str, Any] = {"rows": len(right), "accuracy": float(right.mean()), "limits": {}}
    for limit in LIMITS:
        rule = refusing(Rule(kind_of(KIND)), known, limit, temperature)
        assert rule.promise is not None
        reasons = rule.reasons(p, vectors)
        assert reasons is not None
        kept, promise = reasons == 0, rule.promise
        one: dict[str, Any] = {
            "below": rule.least,
            "promised": vars(promise),
            "unfamiliar": float((reasons == 2).mean()),
        }
        every = np.ones(len(kept), np.int64)
        for name, said, interval, values, among in (
            ("kept", promise.kept, promise.kept_interval, kept, groups["test"]),
            ("accuracy", promise.accuracy, promise.accuracy_interval, right[kept], _of(groups["test"], kept)),
        ):
            if said is None or interval is None or not len(values):
                continue
            value = float(values.mean())
            own = score_interval("accuracy", every[: len(values)], values.astype(np.int64), among)
            wide = np.hypot(half_widths(interval), half_widths(own))
            one[name] = {
                "test": value,
                "inside": interval[0] <= value <= interval[1],
                "agrees": bool(abs(value - said) <= wide),
                "no_worse": bool(value - said >= -wide),
            }
        one["elsewhere"] = {}
        for name, x in elsewhere.items():
            others = probabilities(head.logits(x).astype(np.float64), KIND, temperature)
            why = rule.reasons(others, x)
            assert why is not None
            counted = np.bincount(why, minlength=len(REASONS)) / len(why)
            one["elsewhere"][name] = {"kept": counted[0], "unsure": counted[1], "unfamiliar": counted[2]}
        found["limits"][str(limit)] = one
    found["curve"] = _curve(p.max(axis=1), right)
    return found


def _of(groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if groups is None else groups[rows]


def _curve(sure: np.ndarray, right: np.ndarray) -> list[float]:
    """The accuracy of the surest rows, at each share of SHARES."""
    order = np.argsort(-sure, kind="stable")
    return [float(right[order[: max(1, round(share * len(order)))]].mean()) for share in SHARES]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the splits."""
    found: dict[str, Any] = {}
    for limit in map(str, LIMITS):
        some = [run["limits"][limit] for run in runs]
        about: dict[str, Any] = {"below": float(np.mean([one["below"] for one in some]))}
        for name in ("kept", "accuracy"):
            both = [(one["promised"][name], one[name]) for one in some if name in one]
            about[name] = {
                "promised": float(np.mean([said for said, _ in both])),
                "test": float(np.mean([one["test"] for _, one in both])),
                **{key: float(np.mean([one[key] for _, one in both])) for key in ("inside", "agrees", "no_worse")},
            }
        about["unfamiliar"] = float(np.mean([one["unfamiliar"] for one in some]))
        about["elsewhere"] = {
            name: {key: float(np.mean([one["elsewhere"][name][key] for one in some])) for key in first}
            for name, first in some[0]["elsewhere"].items()
        }
        found[limit] = about
    return found


def draw(document: dict[str, Any], path: Path) -> None:
    """Kept share against accuracy on test rows, with what each limit promised."""
    from matplotlib.figure import Figure

    curves = np.array([run["curve"] for run in document["runs"]])
    figure = Figure(figsize=(6.4, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    axes.fill_between(SHARES, low, high, alpha=0.2, linewidth=0, label="90% of the splits")
    axes.plot(SHARES, curves.mean(axis=0), label="accuracy of the test rows that are kept")
    for limit, one in document["summary"].items():
        axes.plot(one["kept"]["promised"], one["accuracy"]["promised"], "kx")
        axes.annotate(limit, (one["kept"]["promised"], one["accuracy"]["promised"]), (4, 4), textcoords="offset points")
    axes.plot([], [], "kx", label="promised on validation rows, by --reject")
    axes.set(xlabel="share of the rows that get a label", ylabel="accuracy", xlim=(0, 1.02))
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label")
    parser.add_argument("--group")
    parser.add_argument("--elsewhere", default="", help="caches of the same encoder, of other texts")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--image", type=Path)
    arguments = parser.parse_args()
    with open_cache(arguments.cache) as cache:
        data = load_data(cache, arguments.label, None, -1, arguments.group)
        elsewhere = {}
        for path in filter(None, arguments.elsewhere.split(",")):
            with open_cache(path) as other:
                elsewhere[Path(path).stem] = np.array(other.embeddings(data.pooling)[:], np.float32)
        runs: list[dict[str, Any]] = []
        for seed in range(arguments.splits):
            runs.append(measure(cache, data, elsewhere, seed))
            document = {
                "machine": machine("numpy", "scikit-learn"),
                "rows": cache.rows,
                "elsewhere": {name: len(x) for name, x in elsewhere.items()},
                "shares": SHARES.tolist(),
                "summary": summary(runs),
                "runs": runs,
            }
            if arguments.json:  # what a stopped measurement has by then
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")
            if arguments.image:
                draw(document, arguments.image)
    for limit, one in document["summary"].items():
        print(limit, json.dumps(one))


if __name__ == "__main__":
    main()
