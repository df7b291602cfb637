"""Classes in a tree: a path from the top to each of them, and what a head's probabilities say of every node.

A head learns the classes alone. A node is as probable as all classes at or below it together, so a parent is never less
probable than its child, and what is answered on one level never contradicts another: it is one path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

NodePath = tuple[str, ...]  # from the top


def path_of(name: str, separator: str) -> NodePath:
    """The nodes that a label such as "Books > Fiction" names, from the top, without spaces beside the separator."""
    return tuple(part.strip() for part in name.split(separator.strip()))


@dataclass(frozen=True)
class Hierarchy:
    """A tree of classes.

    Attributes:
        levels: the names of its levels, from the top.
        paths: of each class the names of the nodes from the top to it, one a level; a path may end above the last
            level, and may be the beginning of another.
        separator: between the names of a path where this is how labels are written, such as "Books>Fiction"; None where
            each level has a column, and a node is called by its own name.
    """

    levels: tuple[str, ...]
    paths: tuple[NodePath, ...]
    separator: str | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Hierarchy | None:
        """That of a run.json; None where it has none."""
        one = info.get("hierarchy")
        if one is None:
            return None
        return cls(tuple(one["levels"]), tuple(map(tuple, one["paths"])), one["separator"])

    def to_dict(self) -> dict[str, Any]:
        """What run.json has of it."""
        return {
            "levels": list(self.levels),
            "separator": self.separator,
            "paths": [list(path) for path in self.paths],
        }

    @cached_property
    def nodes(self) -> list[NodePath]:
        """The path of every node, those of one level together, from the top."""
        known = dict.fromkeys(path[: i + 1] for i in range(len(self.levels)) for path in self.paths if len(path) > i)
        return list(known)

    @cached_property
    def names(self) -> list[str]:
        """What each node is called."""
        return [path[-1] if self.separator is None else self.separator.join(path) for path in self.nodes]

    @cached_property
    def chains(self) -> np.ndarray:
        """int64 [nodes, levels]: of each node those from the top to it, -1 below it."""
        place = {path: i for i, path in enumerate(self.nodes)}
        chains = np.full((len(place), len(self.levels)), -1, np.int64)
        for path, i in place.items():
            chains[i, : len(path)] = [place[path[: end + 1]] for end in range(len(path))]
        return chains

    @cached_property
    def own(self) -> np.ndarray:
        """int64 [C]: the node of each class."""
        place = {path: i for i, path in enumerate(self.nodes)}
        return np.array([place[path] for path in self.paths], np.int64)

    @cached_property
    def depths(self) -> np.ndarray:
        """int64 [nodes]: the level of each node, from 0."""
        return np.asarray((self.chains >= 0).sum(axis=1) - 1)

    def probabilities(self, p: np.ndarray) -> np.ndarray:
        """float64 [n, nodes] of those of the classes, float64 [n, C]."""
        chains = self.chains[self.own]
        order = np.argsort(chains, axis=None, kind="stable")
        order = order[(chains < 0).sum() :]  # those below the end of a path come first
        starts = np.searchsorted(chains.ravel()[order], np.arange(len(self.nodes)))
        return np.minimum(np.add.reduceat(p[:, order // len(self.levels)], starts, axis=1), 1.0)

    def deepest(self, probabilities: np.ndarray, least: float) -> np.ndarray:
        """int64 [n]: the deepest node of at least this probability, of several the likeliest; -1 where none is.

        probabilities: float64 [n, nodes].
        """
        ranked = np.where(probabilities >= least, 2 * self.depths + probabilities, -1.0)
        best = ranked.argmax(axis=1)
        return np.where(ranked[np.arange(len(best)), best] >= 0, best, -1)

    def on_level(self, nodes: np.ndarray, level: int) -> np.ndarray:
        """int64 [n]: the ancestor of each node on a level, or the node itself where it stands above."""
        found = self.chains[nodes, level]
        return np.where(found >= 0, found, nodes)

    def extended(self, paths: Sequence[NodePath]) -> Hierarchy:
        """The same with more classes, which a run has not learned; a path may be longer than those known."""
        deepest = max(map(len, [self.levels, *paths]))
        levels = (*self.levels, *(f"level_{i + 1}" for i in range(len(self.levels), deepest)))
        return Hierarchy(levels, (*self.paths, *paths), self.separator)
