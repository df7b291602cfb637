"""What every kind of task is: what y and a head's outputs are, and all that follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from embedcache.errors import EmbedcacheError

LEAST = 1e-15  # probability, where a logarithm is taken
T = TypeVar("T")


class Kind(ABC):
    """What one kind of task is. Its arrays are those of task.View, of n rows and C outputs."""

    name: ClassVar[str]
    code: ClassVar[int]  # ec_task.kind of csrc/heads/heads.h
    output: ClassVar[str]  # what one output of a head is
    outputs: ClassVar[str]
    fewest: ClassVar[int] = 1  # outputs
    dtype: ClassVar[type] = np.float32  # of y
    has_classes: ClassVar[bool] = True  # else numbers: no probabilities, no class weights, no label smoothing
    exclusive: ClassVar[bool] = False  # one class a row: what a split keeps the shares of
    activation: ClassVar[str]  # what makes probabilities of logits, in an exported model's embedcache.json
    problem_type: ClassVar[str]  # transformers' name for such a model
    purpose: ClassVar[str]  # what a head is for, in its card; {n}: its outputs
    example: ClassVar[str]  # the last lines of that card's PyTorch code, which has texts, logits and about
    exported: ClassVar[str]  # what an exported model gives
    exported_row: ClassVar[str]  # Python: what is printed of one row of it, which has row and about
    mistakes: ClassVar[str] = "Most confident mistakes"  # their title wherever a head's worst rows are listed
    main: ClassVar[str] = "accuracy"  # the score that people ask for first
    measured: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")  # have an interval; two models are compared by them
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")  # beside the loss, of every head's validation rows
    unfit: ClassVar[str]  # what is wrong with a row of y that cannot be learned

    def shape(self, outputs: int) -> tuple[int, ...]:
        """What of y's shape follows the rows."""
        return (outputs,)

    @property
    def has_lists(self) -> bool:
        """Whether a row has any number of labels."""
        return self.has_classes and not self.exclusive

    def by_form(self, one_class: T, lists: T, numbers: T) -> T:
        """That of three things which suits what a row of y holds: one class, a list of labels, or numbers."""
        return (one_class if self.exclusive else lists) if self.has_classes else numbers

    @property
    def choices(self) -> tuple[str, ...]:
        """What may choose among heads."""
        return ("loss", *self.measured)

    @abstractmethod
    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """bool [n]: rows of y that cannot be learned."""

    @abstractmethod
    def labelled(self, y: np.ndarray) -> np.ndarray:
        """bool [n]: rows of a cache's y (runs.data.Data) that have a label or value."""

    @abstractmethod
    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """What a head's outputs [n, C] (logits) say, in the form of y: int [n], bool [n, C], or the values."""

    def decide_by_probability(self, p: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        """The same of probabilities [n, C], or of values.

        Args:
            p: Probabilities, or values.
            cuts: float [C], from which probability on each label is there; of two classes they add up to 1. None is
                one half.
        """
        return self.decide(p)

    def confidence(self, p: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """float64 [n]: how probable it is that what was decided by probabilities [n, C] is right, all of a row."""
        raise EmbedcacheError(f"a {self.name} has no probabilities")

    @abstractmethod
    def log_likelihood(
        self, y: np.ndarray, p: np.ndarray, weight: np.ndarray, sample: np.ndarray | None = None
    ) -> float:
        """The mean over n > 0 rows, of probabilities [n, C] with class weights [C]; more is better.

        Of values it is minus their mean squared error, without class weights. sample: weights of the rows [n].
        """

    @abstractmethod
    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        """The same with the names of ``classes``, where there are any."""

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Of logits float32 [n, C], whose place they may take. Raises EmbedcacheError where there are none."""
        raise EmbedcacheError(f"a {self.name} has no probabilities: predict(X) gives the values")

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Of logits [n, C], in their dtype. Raises EmbedcacheError where there are none."""
        raise EmbedcacheError(f"a {self.name} has no probabilities: predict(X) gives the values")

    def balanced_weight(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """float32 [C], by which every class weighs the same. Raises EmbedcacheError where there are no classes."""
        raise EmbedcacheError(f"{self.name} has no classes: leave out class_weight")

    def start_bias(
        self, y: np.ndarray, weight: np.ndarray | None, outputs: int, sample: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 [C]: where the biases of a linear probe start (task.start_bias).

        weight: of the classes [C]; sample: of the rows [n], whose mean is 1.
        """
        return np.zeros(outputs, np.float32)


def filled_weight(weight: np.ndarray | None, outputs: int) -> np.ndarray:
    """float64 [C]; ones for none."""
    return np.ones(outputs) if weight is None else weight.astype(np.float64)
