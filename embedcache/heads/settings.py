"""What a setting of a head may be, and what else is known of it; the table of the settings is spec.HeadSpec."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from embedcache.errors import EmbedcacheError

LARGEST = 1e36  # of a learning rate or weight decay: what float32 still holds after the bias correction


@dataclass(frozen=True)
class Whole:
    """Whole numbers from low to high."""

    low: int
    high: int
    several = text = False

    def check(self, name: str, value: Any) -> int:
        """The value as an int. Raises EmbedcacheError."""
        return whole_number(name, value, self.low, self.high)


@dataclass(frozen=True)
class Number:
    """Finite numbers in [low, high), or in (low, high) where the bound itself makes no sense."""

    low: float
    high: float
    above: bool = False
    several = text = False

    def check(self, name: str, value: Any) -> float:
        """The value as a float. Raises EmbedcacheError."""
        try:
            if isinstance(value, (str, bool)):
                raise TypeError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise EmbedcacheError(f"{name} must be a number, not {value!r}") from None
        if not math.isfinite(number) or not self.low <= number < self.high or (self.above and number == self.low):
            what = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
            raise EmbedcacheError(f"{name} must be {what} and below {self.high:g}, not {value!r}")
        return number


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    choices: tuple[str, ...]
    several = False
    text = True

    def check(self, name: str, value: Any) -> str:
        """The word. Raises EmbedcacheError."""
        if not isinstance(value, str) or value not in self.choices:
            words = f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
            raise EmbedcacheError(f"{name} must be {words}, not {value!r}")
        return value


@dataclass(frozen=True)
class Pair:
    """Two numbers."""

    item: Number
    several = True
    text = False

    def check(self, name: str, value: Any) -> tuple[float, ...]:
        """Both as floats. Raises EmbedcacheError."""
        if not isinstance(value, Sequence) or len(value) != 2:
            raise EmbedcacheError(f"{name} must be two numbers, like (0.9, 0.999), not {value!r}")
        return tuple(self.item.check(name, one) for one in value)


@dataclass(frozen=True)
class ClassWeights:
    """None, one of some words, or one weight per class."""

    choices: tuple[str, ...]
    item: Number
    several = text = True

    def check(self, name: str, value: Any) -> str | tuple[float, ...] | None:
        """The weights as floats; a word or None as it is. Raises EmbedcacheError."""
        if value is None or (isinstance(value, str) and value in self.choices):
            return value
        if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            words = ", ".join(self.choices)
            raise EmbedcacheError(f"{name} must be {words} or one weight per class, not {value!r}")
        weights = tuple(self.item.check(name, weight) for weight in value)
        if not weights:
            raise EmbedcacheError(f"{name} has no weights: give one per class")
        return weights


Values = Whole | Number | Choice | Pair | ClassWeights


@dataclass(frozen=True)
class Setting:
    """Everything that is known of one setting, wherever it is checked, given, drawn, written or shown.

    Attributes:
        values: What it may be. ``several`` there: one value may be several numbers; ``text``: it may be a word.
        short: Before its value in the name of a head, like "h" in h512.
        label: In tables of the report and of the screen.
        turn: Its place in a sweep: the first changes slowest. None: a sweep has no such setting.
        help: Of its option of train-head, which has its name. "": there is none.
        option: What the option takes, where that is less than ``values``.
        scale: How it is drawn from a range: "log", evenly by its logarithm, or "even". "": it is not.
        off: The value that a recipe has, and that tables leave out. None: the default.
        always: Whether names and tables have it at its default, too.
        column: Whether the leaderboard has it as a column.
        brief: Whether a notebook shows it.
        needs: The setting without which it means nothing, and the test of that one's value.
        absent: The value of a head for which it means nothing. None: the default.
        without: Which heads those are, in words.
        classes: Whether it means nothing where numbers are learned.
    """

    values: Values
    short: str
    label: str = ""
    turn: int | None = None
    help: str = ""
    option: Values | None = None
    scale: str = ""
    off: Any = None
    always: bool = False
    column: bool = True
    brief: bool = False
    needs: tuple[str, Callable[[Any], bool]] | None = None
    absent: Any = None
    without: str = ""
    classes: bool = False
    name: str = ""
    default: Any = None

    def means(self, settings: Mapping[str, Any]) -> bool:
        """Whether it makes a difference beside these settings (a row of the leaderboard, or a part of a spec)."""
        if self.needs is None or self.needs[0] not in settings:
            return True
        name, test = self.needs
        return test(settings[name])

    @property
    def silent(self) -> tuple[Any, ...]:
        """Values that go without saying."""
        return () if self.always else (None, self.default, self.off)


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int from low to high; NumPy's integers and floats like 2.0 will do. Raises EmbedcacheError."""
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


def list_values(setting: Setting, value: Any) -> list[Any]:
    """The values of a setting that was given one or several. Raises EmbedcacheError for none."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    values = list(value)
    if setting.values.several:
        if values and all(isinstance(v, Real) for v in values):
            return [tuple(values)]  # one pair of betas, one weight per class: not several values
        values = [tuple(v) if isinstance(v, Iterable) and not isinstance(v, str) else v for v in values]
    if not values:
        raise EmbedcacheError(f"{setting.name} has no values: give at least one")
    return values
