"""The kinds of task: what y and a head's outputs are, and all that follows from it; and --task, which names them.

A kind is a word in files and options, and an object here: ``kind_of("regression").main`` is "r2". What is added to a
kind is added here, not asked for by its name elsewhere. How a head learns, its loss, is another matter: losses.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from embedcache.errors import EmbedcacheError


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
    main: ClassVar[str] = "accuracy"  # the score that people ask for first
    measured: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")  # have an interval; two models are compared by them
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")  # beside the loss, of every head's validation rows
    unfit: ClassVar[str]  # what is wrong with a row of y that cannot be learned

    def shape(self, outputs: int) -> tuple[int, ...]:
        """What of y's shape follows the rows."""
        return (outputs,)

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

    def start_bias(self, y: np.ndarray, weight: np.ndarray | None, outputs: int) -> np.ndarray:
        """float32 [C]: where the biases of a linear probe start (task.start_bias). weight: of the classes [C]."""
        return np.zeros(outputs, np.float32)


class Classification(Kind):
    """One class a row. y: int32 [n], classes from 0, -1 for none; the outputs are logits of a softmax."""

    name, code = "classification", 0
    output, outputs = "class", "classes"
    fewest = 2
    dtype = np.int32
    exclusive = True
    unfit = "class {y}, outside 0..{last}"

    def shape(self, outputs: int) -> tuple[int, ...]:
        return ()

    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return (y < 0) | (y >= outputs)

    def labelled(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(y >= 0)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs.argmax(axis=1))

    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        best = self.decide(outputs)
        return best if classes is None else np.asarray(classes)[best]

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        for start in range(0, len(outputs), 4096):  # the double sums of so many rows at a time
            part = outputs[start : start + 4096]
            part -= part.max(axis=1, keepdims=True)
            part -= np.log(np.exp(part, dtype=np.float64).sum(axis=1, keepdims=True))
        return outputs

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def balanced_weight(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """n / (C * count), as scikit-learn. A class without rows counts as with one."""
        counts = np.bincount(y, minlength=outputs)
        return (counts.sum() / (outputs * np.maximum(counts, 1))).astype(np.float32)

    def start_bias(self, y: np.ndarray, weight: np.ndarray | None, outputs: int) -> np.ndarray:
        """The logarithm of each class's share of the weight. A class without rows counts as half a row."""
        known = y[(y >= 0) & (y < outputs)]  # of others the library says where they are
        rows = _weight(weight, outputs) * np.maximum(np.bincount(known, minlength=outputs), 0.5)
        return np.log(rows / rows.sum()).astype(np.float32)


class Multilabel(Kind):
    """Any labels a row. y: float32 [n, C] of 0 and 1, -1 in a row without any; the outputs are logits of sigmoids."""

    name, code = "multilabel", 1
    output, outputs = "label", "labels"
    unfit = "a label that is neither 0 nor 1"

    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return np.asarray(~((y == 0) | (y == 1)).all(axis=1))

    def labelled(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(y[:, 0] >= 0)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs > 0)

    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        there = self.decide(outputs)
        if classes is None:
            return there.astype(np.int64)
        return [[label for label, is_ in zip(classes, row, strict=True) if is_] for row in there]

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0, -outputs, dtype=np.float64).astype(np.float32)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        from scipy.special import expit  # importing it takes a fifth of a second, which a cold prediction would feel

        return np.asarray(expit(outputs))

    def balanced_weight(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """Rows without the label over rows with it, as the documentation of torch.nn.BCEWithLogitsLoss suggests.

        A label that all rows or none have counts as if one were different.
        """
        present = np.maximum(y.sum(axis=0, dtype=np.float64), 1)
        return (np.maximum(len(y) - present, 1) / present).astype(np.float32)

    def start_bias(self, y: np.ndarray, weight: np.ndarray | None, outputs: int) -> np.ndarray:
        """The logit of each label's share of the weight. A label without rows counts as half a row."""
        there = np.clip(y.sum(axis=0, dtype=np.float64), 0.5, max(0.5, len(y) - 0.5))
        return np.log(_weight(weight, outputs) * there / np.maximum(len(y) - there, 0.5)).astype(np.float32)


class Regression(Kind):
    """Numbers. y: float32 [n, C], NaN for none; the outputs are the numbers."""

    name, code = "regression", 2
    output, outputs = "number", "values"
    has_classes = False
    main = "r2"
    measured = ("r2",)
    shown = ("r2",)
    unfit = "a target that is NaN or infinite"

    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return np.asarray(~np.isfinite(y).all(axis=1))

    def labelled(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isnan(y[:, 0]))

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


_KINDS: dict[str, Kind] = {kind.name: kind for kind in (Classification(), Multilabel(), Regression())}
KINDS = tuple(_KINDS)


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises EmbedcacheError for any other."""
    if name not in KINDS:
        raise EmbedcacheError(f"a task must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {name!r}")
    return _KINDS[name]


def _weight(weight: np.ndarray | None, outputs: int) -> np.ndarray:
    """float64 [C]; ones for none."""
    return np.ones(outputs) if weight is None else weight.astype(np.float64)


# ---- --task ----

WORDS = ("auto", *KINDS)
# One of "stars=regression,mood=classification"; a column's name may hold commas and equals signs.
NAMED = re.compile(rf"(?P<column>.+?)=(?P<word>{'|'.join(WORDS)})\s*(?:,\s*(?=\S)|$)", re.DOTALL)

Tasks = str | dict[str, str]


def read_tasks(task: Any) -> Tasks:
    """A word of WORDS, or column -> word, from that or from text like "stars=regression". Raises EmbedcacheError."""
    if isinstance(task, str) and task in WORDS:
        return task
    if isinstance(task, Mapping):
        for column, word in task.items():
            if not isinstance(column, str) or word not in WORDS:
                raise _unknown(f"{column}={word}")
        return dict(task) or "auto"
    if not isinstance(task, str):
        raise _unknown(repr(task))
    found: dict[str, str] = {}
    end = 0
    while end < len(task) or not found:
        one = NAMED.match(task, end)
        if one is None:
            raise _unknown(task)
        if one["column"] in found:
            raise EmbedcacheError(f"--task {task}: {one['column']!r} is named twice")
        found[one["column"]], end = one["word"], one.end()
    return found


def task_of(tasks: Tasks, column: str) -> str:
    """The word for one column: "auto" where others are named."""
    return tasks if isinstance(tasks, str) else tasks.get(column, "auto")


def spelled(tasks: Tasks) -> str:
    """As --task has it; read_tasks reads it back."""
    return tasks if isinstance(tasks, str) else ",".join(f"{column}={word}" for column, word in tasks.items())


def columns_of(tasks: Tasks, word: str) -> list[str]:
    """The columns that are named with this word."""
    return [] if isinstance(tasks, str) else [column for column, one in tasks.items() if one == word]


def _unknown(task: str) -> EmbedcacheError:
    words = f"{', '.join(WORDS[:-1])} or {WORDS[-1]}"
    return EmbedcacheError(f"--task {task}: use {words}, or COLUMN=KIND for a column by its name")
