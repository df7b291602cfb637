"""The chosen head beside each baseline, paired over the very same rows or groups; wording.py has the words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedcache.heads.kinds import kind_of
from embedcache.runs.baselines import Fitted
from embedcache.runs.intervals import score_difference


def compared_by(kind: str, choose: str, balanced: bool) -> str:
    """The metric in which a head must beat a baseline: the one that chooses.

    Where the loss chooses, that is the score nearest to it: macro F1 if the loss weighs the classes, else accuracy.
    """
    about = kind_of(kind)
    if not about.has_classes:
        return about.main
    return "macro_f1" if choose == "macro_f1" or (choose == "loss" and balanced) else "accuracy"


def compare(
    side: str,
    y: np.ndarray,
    predicted: np.ndarray,
    baselines: Mapping[str, Fitted],
    kind: str,
    groups: np.ndarray | None,
) -> list[dict[str, Any]]:
    """A head less each baseline that predicted this side, in every metric that has an interval; JSON types.

    y, predicted: of the side's rows, in the form of Data.y; groups: int [n] or None.
    """
    return [
        {"with": name, "side": side, **score_difference(metric, y, predicted, one.predicted[side], groups).to_dict()}
        for name, one in baselines.items()
        if side in one.predicted
        for metric in kind_of(kind).measured
    ]
