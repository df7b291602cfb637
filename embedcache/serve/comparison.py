"""The served runs on the same texts: those that are test rows in all of them, paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import Kind, kind_of
from embedcache.runs.folder import PREDICTIONS, Run
from embedcache.runs.intervals import score_difference, score_interval
from embedcache.runs.scores import measure_all
from embedcache.runs.sides import load_sides
from embedcache.runs.split import SIDES

TEST = SIDES.index("test")


@dataclass(frozen=True)
class Tested:
    """What a run's chosen head said of its test texts, by their hash in hex: (label, predicted), and group or None."""

    said: dict[str, tuple[Any, Any]]
    groups: dict[str, str | None] = field(default_factory=dict)


def compare_runs(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """Label column -> what serve.schema.ComparisonAnswer describes, for each column that several runs have.

    Read from the runs' predictions.parquet: labels are those that the runs were trained with, and a text whose label
    differs between them is left out.

    Raises:
        EmbedcacheError: such a file is damaged.
    """
    columns: dict[str, dict[str, Run]] = {}
    for name, run in runs.items():
        for column, one in run.columns.items():
            columns.setdefault(column, {})[name] = one
    return {column: _compare(members) for column, members in columns.items() if len(members) > 1}


def _compare(runs: dict[str, Run]) -> dict[str, Any]:
    kinds = [run.best.kind for run in runs.values()]
    kind = kind_of(kinds[0])
    empty = {"score": kind.main, "texts": 0, "changed": 0, "runs": [], "pairs": []}
    if len(set(kinds)) > 1:
        return {**empty, "problem": f"they are of different kinds: {', '.join(dict.fromkeys(kinds))}"}
    tested: dict[str, Tested] = {}
    for name, run in runs.items():
        one = _tested(run)
        if one is None:
            return {**empty, "problem": f"{name} keeps no predictions (an older embedcache made it): train it again"}
        tested[name] = one
    every = list(tested.values())
    shared = [key for key in every[0].said if all(key in one.said for one in every)]
    same = [key for key in shared if all(_same(one.said[key][0], every[0].said[key][0]) for one in every)]
    if not same:
        return {**empty, "problem": "no text is a test row in all of them: train with --same-split RUN"}
    labels = [every[0].said[key][0] for key in same]
    predicted = {name: [one.said[key][1] for key in same] for name, one in tested.items()}
    y, *guesses = _arrays(kind, [labels, *predicted.values()])
    groups = _units(every, same)
    arrays = dict(zip(predicted, guesses, strict=True))
    return {
        "score": kind.main,
        "texts": len(same),
        "changed": len(shared) - len(same),
        "runs": [
            {
                "run": name,
                "score": measure_all(kind.name, y, guess)[kind.main],
                "interval": score_interval(kind.main, y, guess, groups),
            }
            for name, guess in arrays.items()
        ],
        "pairs": [
            {"first": first, "second": second, **_difference(kind, y, arrays[first], arrays[second], groups)}
            for first, second in combinations(arrays, 2)
        ],
        "problem": "",
    }


def _difference(
    kind: Kind, y: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray | None
) -> dict[str, Any]:
    found = score_difference(kind.main, y, first, second, groups).to_dict()
    return {name: found[name] for name in ("difference", "interval", "p", "within_noise")}


def _tested(run: Run) -> Tested | None:
    """None of the first runs, which kept no predictions. Raises EmbedcacheError: the file is damaged."""
    stored = load_sides(run)  # checks the file's digest
    if stored is None:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.path / PREDICTIONS
    try:
        table = pq.read_table(path, columns=["label", "predicted"])
        labels, predicted = table["label"].to_pylist(), table["predicted"].to_pylist()
    except (pa.ArrowException, KeyError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise EmbedcacheError(f"{path} is damaged ({what}); train it again") from None
    rows = [row for row in np.flatnonzero(stored.side == TEST).tolist() if predicted[row] is not None]
    keys = {row: stored.hashes[row].tobytes().hex() for row in rows}
    groups = {} if stored.groups is None else {key: stored.groups[row] for row, key in keys.items()}
    return Tested({key: (labels[row], predicted[row]) for row, key in keys.items()}, groups)


def _same(first: Any, second: Any) -> bool:
    return bool(sorted(first) == sorted(second) if isinstance(first, list) else first == second)


def _arrays(kind: Kind, columns: Sequence[list[Any]]) -> list[np.ndarray]:
    """Labels and predictions in the form of y: class codes, 0/1 a label, or numbers [n, 1]."""
    if not kind.has_classes:
        return [np.array(one, np.float64)[:, None] for one in columns]
    if kind.exclusive:
        place = {name: i for i, name in enumerate(sorted({name for one in columns for name in one}))}
        return [np.array([place[name] for name in one]) for one in columns]
    place = {name: i for i, name in enumerate(sorted({name for one in columns for row in one for name in row}))}
    return [np.array([[name in row for name in place] for row in one], np.float32) for one in columns]


def _units(tested: Sequence[Tested], keys: Sequence[str]) -> np.ndarray | None:
    """The group of each text by the first run that was split by groups; a text without a group is its own."""
    for one in tested:
        if one.groups:
            return np.unique([one.groups.get(key) or key for key in keys], return_inverse=True)[1]
    return None
