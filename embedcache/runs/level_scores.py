"""How a head does on each level of a hierarchy, and hierarchical F1, with 95% intervals.

Hierarchical F1 (Kiritchenko, Matwin, Nock and Famili, "Learning and evaluation in the presence of class hierarchies",
2006): of each row the node and all its ancestors count as labels, T of the true one and P of the predicted one. With
sums over all rows, precision is |P and T| / |P|, recall |P and T| / |T|, and F1 = 2 |P and T| / (|P| + |T|).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.runs.hierarchy import Hierarchy
from embedcache.runs.intervals import score_interval

HIERARCHICAL_F1 = "hierarchical F1"
Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class LevelScore:
    """The share of rows that are right down to one level. nodes: how many there are on it.

    A path that ends above the level is right there where it is right as a whole.
    """

    level: str
    nodes: int
    accuracy: float
    accuracy_interval: Bounds = None


@dataclass(frozen=True)
class LevelScores:
    """Those of every level, from the top, and of all together; intervals where they were asked for."""

    levels: list[LevelScore]
    hierarchical_f1: float
    hierarchical_f1_interval: Bounds = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types: what an evaluation has of it."""
        levels = [{**vars(one), "accuracy_interval": _listed(one.accuracy_interval)} for one in self.levels]
        f1 = {"hierarchical_f1": self.hierarchical_f1}
        return {"levels": levels, **f1, "hierarchical_f1_interval": _listed(self.hierarchical_f1_interval)}


def score_levels(
    hierarchy: Hierarchy,
    y: np.ndarray,
    predicted: np.ndarray,
    *,
    interval: bool = False,
    groups: np.ndarray | None = None,
) -> LevelScores:
    """Those of n > 0 rows.

    Args:
        hierarchy: Of the classes.
        y: int [n], class codes.
        predicted: int [n], class codes.
        interval: Whether to work out the intervals.
        groups: int [n], of rows that belong together, for the intervals; None where rows stand for themselves.
    """
    true, said = hierarchy.own[y], hierarchy.own[predicted]
    nodes = np.bincount(hierarchy.depths, minlength=len(hierarchy.levels)).tolist()
    levels = []
    for i, (name, count) in enumerate(zip(hierarchy.levels, nodes, strict=True)):
        on = hierarchy.on_level(true, i), hierarchy.on_level(said, i)
        bounds = score_interval("accuracy", *on, groups) if interval else None
        levels.append(LevelScore(name, count, float((on[0] == on[1]).mean()), bounds))
    chains = hierarchy.chains[true], hierarchy.chains[said]
    bounds = score_interval("hierarchical_f1", *chains, groups) if interval else None
    return LevelScores(levels, hierarchical_f1(*chains), bounds)


def hierarchical_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """Of nodes int [n, levels], each with its ancestors, -1 below it: ``Hierarchy.chains``."""
    both = (true >= 0).sum() + (predicted >= 0).sum()
    return float(2 * ((true == predicted) & (true >= 0)).sum() / both)


def _listed(bounds: Bounds) -> list[float] | None:
    return None if bounds is None else list(bounds)
