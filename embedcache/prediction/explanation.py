"""Why a text got its label, as it is kept and shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class WordEffect:
    """A word, or several, from character ``start`` to ``end`` of the text, and what the label loses without it."""

    word: str
    start: int
    end: int
    effect: float


@dataclass(frozen=True)
class TrainingNeighbour:
    """A training row: its number in the run's cache, its cosine with the text, its text and label."""

    row: int
    similarity: float
    text: str
    label: str | list[str] | float


@dataclass(frozen=True)
class Explanation:
    """Why one text got its label.

    Attributes:
        label: what is explained: the predicted class, the likeliest of several labels; None for a value.
        words: those of the largest effects, the ones that carry the label first.
        agreeing: how many of the ``nearest`` training rows have the label. Of values, where no row has the same, 0.
        supporting, opposing: the nearest of those that have it, and of those that have not.
    """

    label: str | None
    words: list[WordEffect]
    nearest: int = 0
    agreeing: int = 0
    supporting: list[TrainingNeighbour] = field(default_factory=list)
    opposing: list[TrainingNeighbour] = field(default_factory=list)

    @property
    def carrying(self) -> list[WordEffect]:
        """The words without which the label is less probable."""
        return [one for one in self.words if one.effect > 0]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)
