"""calibration_set.safetensors of a run: what its predictions are measured by later, without the cache.

The rows that chose the head, with what it said of them, and how far they lie from the training rows; and a sample of
the training rows' vectors, so that the same distance can be taken of any text. It is that of Sun et al.,
"Out-of-distribution detection with deep nearest neighbors" (2022): to the k-th nearest row, by the cosine.
benchmarks/prediction/reject.py shows what it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.int8_rows import Matrix
from embedcache.common.tensors import save_tensors
from embedcache.errors import EmbedcacheError
from embedcache.runs.mistakes import Judged
from embedcache.runs.split import Split

FILE = "calibration_set.safetensors"
SAMPLE = 4096  # training rows
NEIGHBOURS = 5  # the distance is that to the fifth
MOST_ROWS, MOST_VALUES = 20_000, 5_000_000  # validation rows, and their outputs
PART = 4096  # rows that are compared at a time


@dataclass(frozen=True)
class Familiar:
    """A sample of the rows that a head learned from. directions: float16 [n, D], their vectors at unit length."""

    directions: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Familiar:
        """Of vectors float [n, D]."""
        return cls(_directions(vectors).astype(np.float16))

    @cached_property
    def _wide(self) -> np.ndarray:
        return self.directions.astype(np.float32)

    def distances(self, vectors: np.ndarray, without: np.ndarray | None = None) -> np.ndarray:
        """float32 [m], from 0 to 2: one less the cosine with the fifth nearest row of the sample.

        Args:
            vectors: float [m, D].
            without: bool [n], rows of the sample that do not count.
        """
        sample = self._wide if without is None else self._wide[~without]
        place = max(0, len(sample) - NEIGHBOURS)
        found = np.ones(len(vectors), np.float32)  # a sample of nothing is as far as what is orthogonal
        for start in range(0, len(vectors) if len(sample) else 0, PART):
            part = _directions(vectors[start : start + PART]) @ sample.T
            found[start : start + PART] = 1 - np.partition(part, place, axis=1)[:, place]
        return found


def _directions(vectors: np.ndarray) -> np.ndarray:
    x = vectors.astype(np.float32)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class CalibrationSet:
    """Validation rows and what the head said of them.

    Attributes:
        y: as runs.data.Data has it, [m] or [m, C]. outputs: float32 [m, C], logits.
        groups: int64 [m], equal for rows of one group; None without --group.
        familiar: the sample of training rows; None of a tuned run, whose vectors no cache has.
        distances: float32 [m], of the validation rows to it. With folds, to the rows of the other folds.
    """

    y: np.ndarray
    outputs: np.ndarray
    groups: np.ndarray | None = None
    familiar: Familiar | None = None
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def save(self, path: Path) -> None:
        """Write the file. Raises OSError."""
        arrays = {"y": self.y, "outputs": self.outputs}
        if self.groups is not None:
            arrays["groups"] = self.groups
        if self.familiar is not None:
            arrays |= {"distances": self.distances, "directions": self.familiar.directions}
        save_tensors(path, {name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes, classes: int, dim: int) -> CalibrationSet:
        """What ``save`` wrote. Raises EmbedcacheError where the arrays do not fit each other or the run."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays: dict[str, np.ndarray] = load(data)
            y, outputs = arrays["y"], arrays["outputs"]
            m, familiar = len(outputs), None
            fits = outputs.shape == (m, classes) and y.shape in ((m,), (m, classes)) and np.isfinite(outputs).all()
            if "directions" in arrays:
                familiar = Familiar(arrays["directions"])
                fits &= familiar.directions.shape[1:] == (dim,) and bool(np.isfinite(familiar.directions).all())
                fits &= arrays["distances"].shape == (m,) and bool(np.isfinite(arrays["distances"]).all())
            groups = arrays.get("groups")
            if not fits or (y.ndim == 1 and m and not 0 <= y.min() <= y.max() < classes):
                raise ValueError("its arrays do not fit the run")
            if groups is not None and groups.shape != (m,):
                raise ValueError("its groups do not fit its rows")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise EmbedcacheError(f"{FILE} of the run is damaged ({error}): train it again") from None
        return cls(y, outputs, groups, familiar, arrays.get("distances", np.zeros(m, np.float32)))


def make_calibration_set(
    judged: Judged, x: Matrix | None, train: np.ndarray, sides: Sequence[Split], groups: np.ndarray | None
) -> CalibrationSet:
    """That of one column.

    Args:
        judged: Its validation rows.
        x: The vectors [N, D] that the head reads; None where no cache has them.
        train: int64, the rows that the head learned from.
        sides: The split, or its folds.
        groups: int64 [n] of ``judged.rows``, or None.
    """
    rng = np.random.default_rng(0)
    most = min(MOST_ROWS, MOST_VALUES // judged.outputs.shape[1] + 1)
    some = np.sort(rng.permutation(len(judged.rows))[:most])
    y, outputs = judged.y[some], judged.outputs[some].astype(np.float32)
    own = None if groups is None else groups[some].astype(np.int64)
    if x is None:
        return CalibrationSet(y, outputs, own)
    sample = np.sort(rng.permutation(train)[:SAMPLE])
    familiar = Familiar.of(x[sample])
    rows, distances = judged.rows[some], np.zeros(len(some), np.float32)
    for side in sides:  # a row is not measured by itself, nor by its group
        mine = np.isin(rows, side.val)
        distances[mine] = familiar.distances(x[rows[mine]], ~np.isin(sample, side.train))
    return CalibrationSet(y, outputs, own, familiar, distances)


def read_calibration_set(data: bytes, where: Path, info: dict[str, Any]) -> CalibrationSet:
    """That of one column's run.

    Args:
        data: The file's content; b"" where there is none.
        where: The run, for messages.
        info: Its run.json.

    Raises:
        EmbedcacheError: It has none, or a damaged one.
    """
    if data:
        return CalibrationSet.from_bytes(data, len(info["classes"]), int(info["dim"]))
    if not (info.get("split") or {}).get("val") and not (info.get("split") or {}).get("folds"):
        raise EmbedcacheError(
            f"{where} was trained without validation rows, so nothing is known of when to trust it: train it with "
            "--val or --folds"
        )
    raise EmbedcacheError(
        f"{where} was trained by an embedcache that kept no {FILE}: train it again (--resume keeps its heads)"
    )
