"""Labels of a hierarchy: the path to each, and with --sure no deeper than a head is sure of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import Kind
from embedcache.runs.calibration import probabilities
from embedcache.runs.calibration_set import FILE, CalibrationSet, read_calibration_set
from embedcache.runs.folder import Run, read_file
from embedcache.runs.hierarchy import Hierarchy
from embedcache.runs.intervals import score_interval


@dataclass(frozen=True)
class SurePromise:
    """What the validation rows say of rows like them.

    Attributes:
        rows: of validation. groups: of which they are, None without --group.
        levels: level -> the share of rows whose answer is on it; the others have none.
        accuracy: the share of the answers that are right: a class or what stands above it; None where there is none.
        accuracy_interval: its 95% interval.
        accuracy_of_all: the share of rows whose class is right, if each is named.
    """

    rows: int
    groups: int | None
    levels: dict[str, float]
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    accuracy_of_all: float


@dataclass(frozen=True)
class ClassTree:
    """The hierarchy of a run's classes. sure: the least probability of an answer; None answers with a class."""

    hierarchy: Hierarchy
    sure: float | None = None
    promise: SurePromise | None = None

    def answers(self, p: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [n] the node that is the answer, -1 for none; float64 [n, nodes], probabilities).

        p: float64 [n, C], of the classes; decided: int [n], the class that each row has.
        """
        every = self.hierarchy.probabilities(p)
        if self.sure is None:
            return self.hierarchy.own[decided], every
        return self.hierarchy.deepest(every, self.sure), every

    def path(self, node: int, probabilities: np.ndarray) -> list[dict[str, Any]]:
        """Level, label and probability from the top to a node, -1 for none. probabilities: float64 [nodes]."""
        chain = self.hierarchy.chains[node].tolist() if node >= 0 else []
        return [
            {"level": level, "label": self.hierarchy.names[one], "probability": float(probabilities[one])}
            for level, one in zip(self.hierarchy.levels, chain, strict=False)
            if one >= 0
        ]

    def columns(self, name: str, nodes: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        """Arrow columns, two a level: the label there, null below the answer, and its probability."""
        import pyarrow as pa

        found: dict[str, Any] = {}
        chains = np.where(nodes[:, None] >= 0, self.hierarchy.chains[nodes], -1)
        for level, on in zip(self.hierarchy.levels, chains.T, strict=True):
            none = on < 0
            found[f"{name}_{level}"] = pa.array(self.hierarchy.names, pa.string()).take(pa.array(on, mask=none))
            chances = probabilities[np.arange(len(on)), on]
            found[f"{name}_{level}_probability"] = pa.array(chances, pa.float64(), mask=none)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What --json prints of it; {} where it changes no label."""
        if self.sure is None:
            return {}
        return {"sure": self.sure, "promise": self.promise and {**vars(self.promise)}}

    def notes(self) -> list[str]:
        """What to expect of the answers."""
        if self.sure is None:
            return []
        said = f"the deepest level with a calibrated probability of {self.sure:g} or more is answered"
        one = self.promise
        if one is None:
            return [f"{said}; the run has no validation rows, so nothing is calibrated and nothing known of how many"]
        among = f"the {one.rows:,} validation rows" + (f" ({one.groups:,} groups)" if one.groups else "")
        shares = ", ".join(f"{share:.1%} on {level}" for level, share in reversed(one.levels.items()))
        said += f"; of {among} {shares}, {max(0.0, 1 - sum(one.levels.values())):.1%} on none"
        if one.accuracy is not None:
            low, high = one.accuracy_interval or (one.accuracy, one.accuracy)
            said += f"; {one.accuracy:.1%} ({low:.1%} to {high:.1%}) of the answers are right"
        return [f"{said} ({one.accuracy_of_all:.1%} if every row gets its deepest)"]


def tree_of(run: Run, kind: Kind, sure: float | None, temperature: float) -> ClassTree | None:
    """That of one label column; None without a hierarchy. Raises EmbedcacheError where ``sure`` needs one."""
    hierarchy = Hierarchy.of(run.info)
    if hierarchy is None:
        if sure is not None:
            raise EmbedcacheError(
                f"--sure {sure:g}: {run.path} has no levels: train it with --hierarchy, or refuse labels with --reject"
            )
        return None
    if sure is None:
        return ClassTree(hierarchy)
    split = run.info.get("split") or {}
    if not split.get("val") and not split.get("folds"):
        return ClassTree(hierarchy, sure)
    known = read_calibration_set(read_file(run, FILE), run.path, run.info)
    return ClassTree(hierarchy, sure, _promise(ClassTree(hierarchy, sure), known, kind, temperature))


def _promise(tree: ClassTree, known: CalibrationSet, kind: Kind, temperature: float) -> SurePromise:
    hierarchy = tree.hierarchy
    p = probabilities(known.outputs.astype(np.float64), kind.name, temperature)
    decided = kind.decide_by_probability(p)
    nodes, _ = tree.answers(p, decided)
    said = nodes >= 0
    depths = hierarchy.depths[nodes[said]]
    right = (hierarchy.chains[hierarchy.own[known.y[said]], depths] == nodes[said]).astype(np.int64)
    groups = known.groups
    among = None if groups is None else groups[said]
    counts = np.bincount(depths, minlength=len(hierarchy.levels)) / len(p)
    return SurePromise(
        rows=len(p),
        groups=None if groups is None else len(np.unique(groups)),
        levels=dict(zip(hierarchy.levels, counts.tolist(), strict=True)),
        accuracy=float(right.mean()) if len(right) else None,
        accuracy_interval=score_interval("accuracy", np.ones_like(right), right, among) if len(right) else None,
        accuracy_of_all=float((decided == known.y).mean()),
    )
