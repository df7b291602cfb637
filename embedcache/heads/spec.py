"""One head's settings, and grids of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

from embedcache.errors import EmbedcacheError

# What a table of heads shows of their settings.
SHOWN = ("hidden", "lr", "dropout", "weight_decay", "seed")
SCHEDULES = ("constant", "linear", "cosine")
LARGEST = 1e36  # of a learning rate or weight decay: what float32 still holds after the bias correction


@dataclass(frozen=True)
class HeadSpec:
    """Linear(D, hidden) - ReLU - Dropout - Linear(hidden, C) - LogSoftmax, trained by AdamW.

    ``hidden=0`` is a linear probe, Linear(D, C) - LogSoftmax; it has no place for dropout, so its dropout becomes 0,
    and specs that differ in that alone are equal.
    ``lr``, ``weight_decay``, ``betas`` and ``eps`` mean what they mean to torch.optim.AdamW. ``seed`` (64 bits)
    decides the initial weights, the order of the rows and the dropout.

    ``label_smoothing`` [0, 1): as torch.nn.CrossEntropyLoss has it; for several labels a row, targets are pulled
    towards 1/2. ``class_weight`` of the training loss: None (the task's), "none", "balanced" (n / (C * count); for
    several labels a row, absent / present rows), or one weight per class. ``schedule`` of the learning rate:
    "constant", "linear" or "cosine" down to 0 after the last epoch, behind a linear warm-up over the first ``warmup``
    (share) of the steps, as transformers' get_linear_schedule_with_warmup and its like.
    Raises EmbedcacheError for a value out of range.
    """

    hidden: int = 512
    lr: float = 1e-3
    dropout: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    label_smoothing: float = 0.0
    class_weight: str | tuple[float, ...] | None = None
    schedule: str = "constant"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        put = object.__setattr__  # frozen: only here
        put(self, "hidden", whole_number("hidden", self.hidden, 0, 2**20))
        put(self, "seed", whole_number("seed", self.seed, 0, 2**64 - 1))
        put(self, "lr", _number("lr", self.lr, 0.0, LARGEST, open_low=True))
        dropout = _number("dropout", self.dropout, 0.0, 1.0)
        put(self, "dropout", dropout if self.hidden else 0.0)
        put(self, "weight_decay", _number("weight_decay", self.weight_decay, 0.0, LARGEST))
        put(self, "eps", _number("eps", self.eps, 1e-20, 1.0))
        if not isinstance(self.betas, Sequence) or len(self.betas) != 2:
            raise EmbedcacheError(f"betas must be two numbers, like (0.9, 0.999), not {self.betas!r}")
        put(self, "betas", tuple(_number("betas", beta, 0.0, 1.0) for beta in self.betas))
        put(self, "label_smoothing", _number("label_smoothing", self.label_smoothing, 0.0, 1.0))
        put(self, "warmup", _number("warmup", self.warmup, 0.0, 1.0))
        put(self, "class_weight", _class_weight(self.class_weight))
        if self.schedule not in SCHEDULES:
            raise EmbedcacheError(
                f"schedule must be {', '.join(SCHEDULES[:-1])} or {SCHEDULES[-1]}, not {self.schedule!r}"
            )

    @property
    def name(self) -> str:
        """Short and unique for the settings, fit for a file name: ``h512-lr0.001-do0.1-wd0.01-s0``."""
        parts = [f"h{self.hidden}", f"lr{self.lr:g}", f"do{self.dropout:g}", f"wd{self.weight_decay:g}"]
        if self.betas != HeadSpec.betas:
            parts.append(f"b{self.betas[0]:g}_{self.betas[1]:g}")
        if self.eps != HeadSpec.eps:
            parts.append(f"eps{self.eps:g}")
        if self.label_smoothing:
            parts.append(f"ls{self.label_smoothing:g}")
        if self.class_weight is not None:
            weight = self.class_weight
            parts.append(f"cw{weight if isinstance(weight, str) else '_'.join(f'{w:g}' for w in weight)}")
        if self.schedule != HeadSpec.schedule:
            parts.append(self.schedule)
        if self.warmup:
            parts.append(f"wu{self.warmup:g}")
        return "-".join([*parts, f"s{self.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types; ``HeadSpec.from_dict`` reads them back."""
        weight = self.class_weight
        lists = {"betas": list(self.betas), "class_weight": list(weight) if isinstance(weight, tuple) else weight}
        return {**asdict(self), **lists}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> HeadSpec:
        unknown = set(settings) - {field.name for field in fields(cls)}
        if unknown:
            raise EmbedcacheError(f"a head has no setting {', '.join(sorted(unknown))}")
        return cls(**{**settings, "betas": tuple(settings.get("betas", cls.betas))})


def head_grid(**settings: Any) -> list[HeadSpec]:
    """Every combination of the given values as a HeadSpec; the last named setting changes fastest.

    Each keyword is a setting of HeadSpec with one value or several: ``head_grid(lr=[1e-4, 1e-3], seed=range(4))``.
    Combinations that are the same head make one: repeated values, and linear probes that differ in dropout alone.
    Raises EmbedcacheError for an unknown setting, no values or a value out of range.
    """
    known = [field.name for field in fields(HeadSpec)]
    for name in settings:
        if name not in known:
            raise EmbedcacheError(f"a head has no setting {name!r}; it has {', '.join(known)}")
    axes = [_values(name, value) for name, value in settings.items()]
    specs = [HeadSpec(**dict(zip(settings, values, strict=True))) for values in itertools.product(*axes)]
    return list(dict.fromkeys(specs))


SEQUENCES = ("betas", "class_weight")  # settings of which one value may be several numbers


def _values(name: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    values = list(value)
    if name in SEQUENCES:
        if values and all(isinstance(v, Real) for v in values):
            return [tuple(values)]  # one pair of betas, one weight per class: not several values
        values = [tuple(v) if isinstance(v, Iterable) and not isinstance(v, str) else v for v in values]
    if not values:
        raise EmbedcacheError(f"{name} has no values: give at least one")
    return values


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int from low to high; NumPy's integers and floats like 2.0 will do."""
    try:
        number = int(value)
        whole = not isinstance(value, (str, bool)) and number == value
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise EmbedcacheError(f"{name} must be a whole number, not {value!r}")
    if not low <= number <= high:
        raise EmbedcacheError(f"{name} must be between {low} and {high}, not {value!r}")
    return number


def _class_weight(value: Any) -> str | tuple[float, ...] | None:
    if value is None or (isinstance(value, str) and value in ("none", "balanced")):
        return value
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise EmbedcacheError(f"class_weight must be none, balanced or one weight per class, not {value!r}")
    weights = tuple(_number("class_weight", weight, 0.0, LARGEST, open_low=True) for weight in value)
    if not weights:
        raise EmbedcacheError("class_weight has no weights: give one per class")
    return weights


def _number(name: str, value: Any, low: float, high: float, open_low: bool = False) -> float:
    """A finite float in [low, high), or in (low, high)."""
    try:
        if isinstance(value, (str, bool)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise EmbedcacheError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(number) or not low <= number < high or (open_low and number == low):
        what = f"above {low:g}" if open_low else f"at least {low:g}"
        limit = f" and below {high:g}" if high < math.inf else ""
        raise EmbedcacheError(f"{name} must be {what}{limit}, not {value!r}")
    return number
