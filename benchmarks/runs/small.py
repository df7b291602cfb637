"""The default of train-head on 60 to 10,000 rows of real texts, beside scikit-learn: the table in docs/recipes.md.

python -m benchmarks.runs.small --json benchmarks/results/small-minilm.json [--who default] [--sets ...] [--sizes ...]

Ten targets (small_data.py): classes, several labels a row, numbers. For every size five draws of training rows; the
test set (up to 2,000 rows) is in no draw, and nothing is chosen on it. All of a draw is given to everyone: ``default``
is train-head with --test 0 and nothing else named, ``vectors`` scikit-learn's logistic regression (numbers: ridge) on
the same vectors, ``tfidf`` the same on TF-IDF, both with C by five-fold cross-validation, ``majority`` the commonest
class (no label, the mean). ``before`` is the default of another version: the script again with
PYTHONSAFEPATH=1 PYTHONPATH=OTHER:$PWD, --who default --as before and the same FILE. Score: accuracy, macro F1 of
several labels, R2 of numbers. A difference is of pairs: the same draw, the same test rows; its interval Student's over
the five draws.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.metrics import f1_score
from sklearn.model_selection import KFold, StratifiedKFold

from benchmarks.extraction.data import fetch
from benchmarks.machine import machine
from benchmarks.runs import small_data
from embedcache.cache import Cache, open_cache
from embedcache.runs.data import load_data
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head

CS = np.logspace(-3, 4, 8)
ALPHAS = np.logspace(-4, 4, 17)


class Problem:
    """One draw: train and test rows, vectors and targets."""

    def __init__(self, cache: Cache, column: str, test: np.ndarray, pooling: str) -> None:
        task = "auto" if "target" in cache.label_names else "regression"
        all_of_it = load_data(cache, "target", pooling, -1, None, task)
        self.cache, self.column, self.pooling, self.task = cache, column, pooling, task
        self.kind, self.y, self.test, self.classes = all_of_it.kind, all_of_it.y, test, all_of_it.classes
        self.train = np.flatnonzero(load_data(cache, column, pooling, -1, None, task).labelled)
        self.x = np.asarray(all_of_it.x, np.float32)
        assert not np.intersect1d(self.train, test).size

    def score(self, outputs: np.ndarray) -> float:
        """Of logits or values [n, outputs] for the test rows."""
        y = self.y[self.test]
        if self.kind == "classification":
            return float((outputs.argmax(axis=1) == y).mean())
        if self.kind == "multilabel":
            return float(f1_score(y > 0, outputs > 0, average="macro", zero_division=0))
        return float(1.0 - ((outputs - y) ** 2).mean() / ((y - y.mean()) ** 2).mean())


def default(problem: Problem, options: dict[str, Any]) -> float:
    """The command as it comes. Classes that no row of the draw has keep an output that never wins."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {"label": problem.column, "pooling": problem.pooling, "task": problem.task, "test": 0.0, **options}
        train_head(problem.cache.path, Path(folder, "run"), **asked)
        run = load_run(Path(folder, "run"))
        column = next(iter(run.columns.values()))
        said = column.best.logits(problem.x[problem.test])
        names = column.info["classes"]
    if problem.kind == "regression":
        return problem.score(said)
    outputs = np.full((len(said), len(problem.classes)), -np.inf, np.float32)
    outputs[:, [problem.classes.index(name) for name in names]] = said
    return problem.score(outputs)


def majority(problem: Problem, options: dict[str, Any]) -> float:
    y = problem.y[problem.train]
    if problem.kind == "classification":
        share: np.ndarray = np.bincount(y, minlength=len(problem.classes)).astype(float)
    else:
        share = y.mean(axis=0) - (0.5 if problem.kind == "multilabel" else 0.0)
    return problem.score(np.tile(share, (len(problem.test), 1)))


def vectors(problem: Problem, options: dict[str, Any]) -> float:
    return problem.score(_linear(problem, problem.x[problem.train], problem.x[problem.test]))


def tfidf(problem: Problem, options: dict[str, Any]) -> float:
    texts = problem.cache.texts
    make = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1)
    train = make.fit_transform([texts[i] for i in problem.train])
    return problem.score(_linear(problem, train, make.transform([texts[i] for i in problem.test])))


def _linear(problem: Problem, train: Any, test: Any) -> np.ndarray:
    """Outputs of scikit-learn's linear model, its penalty by cross-validation."""
    y = problem.y[problem.train]
    if problem.kind == "regression":
        return RidgeCV(ALPHAS).fit(train, y[:, 0]).predict(test)[:, None]
    if problem.kind == "multilabel":
        return _labels(train, y > 0, test)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegressionCV(Cs=CS, cv=folds, max_iter=1000).fit(train, y)
    outputs = np.full((test.shape[0], len(problem.classes)), -np.inf)
    outputs[np.arange(test.shape[0]), model.predict(test)] = 0.0
    return outputs


def _labels(train: Any, y: np.ndarray, test: Any) -> np.ndarray:
    """A logistic regression for each label; one C for all, by the loss of the rows that were left out."""

    def fit(c: float, rows: np.ndarray, x: Any) -> np.ndarray:
        """Log-odds; of a label that all rows or none have, its share's."""
        share = (y[rows].mean(axis=0) * len(rows) + 0.5) / (len(rows) + 1.0)
        z = np.tile(np.log(share / (1.0 - share)), (x.shape[0], 1))
        for label in np.flatnonzero(y[rows].any(axis=0) & ~y[rows].all(axis=0)):
            model = LogisticRegression(C=c, max_iter=1000).fit(train[rows], y[rows, label])
            z[:, label] = model.decision_function(x)
        return z

    def loss(c: float) -> float:
        sides = KFold(5, shuffle=True, random_state=0).split(y)
        return sum(float(np.logaddexp(0, np.where(y[b], -1, 1) * fit(c, a, train[b])).sum()) for a, b in sides)

    return fit(min(CS[2:].tolist(), key=loss), np.arange(len(y)), test)


WHO: dict[str, Callable[[Problem, dict[str, Any]], float]] = {
    one.__name__: one for one in (default, vectors, tfidf, majority)
}

TEXTS_ALONE = {"tfidf", "majority"}  # whatever the vectors are


def summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A line a data set, pooling and size: mean scores, and what the default is better by, with an interval."""
    lines = []
    for key, scores in results.items():
        line: dict[str, Any] = {"case": key, **{who: float(np.mean(values)) for who, values in scores.items()}}
        for other in ("vectors", "before"):
            if "default" in scores and len(scores.get(other, [])) == len(scores["default"]):
                off = np.array(scores["default"]) - np.array(scores[other])
                half = (
                    stats.t.ppf(0.975, len(off) - 1) * off.std(ddof=1) / np.sqrt(len(off)) if len(off) > 1 else np.nan
                )
                line[f"over {other}"] = [float(off.mean()), float(off.mean() - half), float(off.mean() + half)]
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="what it holds already is kept")
    parser.add_argument("--who", default=",".join(WHO))
    parser.add_argument("--as", dest="name", help="under this name")
    parser.add_argument("--sets", default=",".join(small_data.SETS))
    parser.add_argument("--sizes", default=",".join(map(str, small_data.SIZES)))
    parser.add_argument("--draws", type=int, default=small_data.DRAWS)
    parser.add_argument("--pooling", default="mean,cls")
    parser.add_argument("--hidden", type=int, help="of the default")
    parser.add_argument("--caches", type=Path, default=fetch.DATA.parent / "out")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    results, seconds = known.get("scores", {}), known.get("seconds", {})
    options = {} if arguments.hidden is None else {"hidden": arguments.hidden}
    arguments.caches.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets.split(","):
        path = small_data.make_cache(name, arguments.caches)
        test = small_data.draw(name).test
        with open_cache(path) as cache:
            for pooling in arguments.pooling.split(","):
                for size in map(int, arguments.sizes.split(",")):
                    columns = [f"n{size}-{draw}" for draw in range(arguments.draws)]
                    there = set(cache.label_names) | set(cache.column_names)
                    if not there.issuperset(columns):
                        continue
                    problems = [Problem(cache, column, test, pooling) for column in columns]
                    case = f"{name}, {pooling}, {size}"
                    for who in arguments.who.split(","):
                        called = arguments.name or who
                        if who in TEXTS_ALONE:  # another pooling may have it
                            same = [results.get(f"{name}, {one}, {size}", {}).get(called) for one in ("mean", "cls")]
                            for one in filter(None, same):
                                results.setdefault(case, {})[called] = one
                        if len(results.get(case, {}).get(called, [])) >= len(problems):
                            continue
                        start = time.perf_counter()
                        found = [WHO[who](problem, options) for problem in problems]
                        results.setdefault(case, {})[called] = found
                        seconds.setdefault(case, {})[called] = (time.perf_counter() - start) / len(problems)
                        print(f"{case:28} {called:10} {np.mean(found):.3f}  {seconds[case][called]:.1f} s", flush=True)
                        document = {
                            "machine": machine("numpy", "scikit-learn"),
                            "scores": results,
                            "seconds": seconds,
                            "summary": summary(results),
                        }
                        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
