"""The losses: what a head minimizes. The registry; csrc/heads/losses/losses.h has the same one, in the same order.

A loss is a function of one log-probability: that of a row's class, or of a label's being there or not.
Class weights, label smoothing and gradients follow from it. Which probabilities there are depends on the kind: kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes:
        help: what it is, for the help of ``--loss``.
        value: the loss of log-probabilities (any shape, dtype and device) with its setting. It is differentiable, and 0
            where the log-probability is 0. The torch engine computes it.
        setting: the field of HeadSpec that holds its setting; None: it has none.
    """

    help: str
    value: Callable[[Tensor, float], Tensor]
    setting: str | None = None


def _nll(log_p: Tensor, setting: float) -> Tensor:
    return -log_p


def _focal(log_p: Tensor, gamma: float) -> Tensor:
    from embedcache.ops import focal

    return focal(log_p, gamma)


# The negative log-likelihood of numbers is their squared error: that of a normal distribution, up to constants.
LOSSES = {
    "nll": Loss("the negative log-likelihood", _nll),
    "focal": Loss("the focal loss, in which rows that are already right count less", _focal, "focal_gamma"),
}
