"""The heads of a sweep: every combination of the settings, or a random draw of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.settings import Whole
from embedcache.heads.spec import SWEPT, HeadSpec, head_grid

SEED = 42  # of the draw, whatever the heads' seeds
DIGITS = 3  # of a drawn value: as many as a person would type
FRUITLESS = 1000  # draws in a row without anything new, after which nothing new is expected


@dataclass(frozen=True)
class Range:
    """Any value from low to high, to be drawn from. Raises EmbedcacheError unless low < high, both finite."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise EmbedcacheError(f"the range {self} must go from a lower to a higher number, like 1e-5:1e-3")

    def __str__(self) -> str:
        return f"{self.low!r}:{self.high!r}"

    @classmethod
    def parse(cls, text: str) -> Range:
        """The inverse of str(). Raises EmbedcacheError."""
        try:
            low, high = (float(end) for end in text.split(":"))
        except ValueError:
            raise EmbedcacheError(f"{text!r} is not a range: write two numbers, like 1e-5:1e-3") from None
        return cls(low, high)


def check_range(name: str, values: Range) -> None:
    """Raises EmbedcacheError unless the setting of that name can be drawn from the range."""
    if not SWEPT[name].scale:
        ranges = ", ".join(name for name, setting in SWEPT.items() if setting.scale)
        raise EmbedcacheError(f"{name} cannot be a range; only {ranges} can")
    if SWEPT[name].scale == "log" and values.low <= 0:
        also = " (0, a linear probe, can only be in a list)" if name == "hidden" else ""
        raise EmbedcacheError(f"{name} {values}: it is drawn by its logarithm, so the low end must be above 0{also}")
    for end in (values.low, values.high):
        head_grid(**{name: end})


def sweep_specs(settings: Mapping[str, Sequence[Any] | Range], random: int = 0) -> list[HeadSpec]:
    """Every combination of the settings as a HeadSpec, the last setting changing fastest; or ``random`` of them.

    A random draw is of every setting but the seed; each combination that is drawn comes with every seed. It is without
    repetition and always the same, and a larger draw begins with the smaller one. Where fewer combinations exist, all
    of them come. Combinations that are the same head are one (see HeadSpec). Raises EmbedcacheError for a value out of
    range, or a range without a draw.
    """
    for name, values in settings.items():
        if isinstance(values, Range):
            check_range(name, values)
            if not random:
                raise EmbedcacheError(f"{name} {values} is a range: draw from it with --random N")
        else:
            head_grid(**{name: values})  # an unusable value is refused even where it is not drawn
    if not random:
        return head_grid(**settings)
    space = {name: _unique(values) for name, values in settings.items() if name != "seed"}
    seeds = head_grid(seed=settings["seed"])
    return [HeadSpec(**drawn, seed=one.seed) for drawn in _draw(space, random) for one in seeds]


def combinations(settings: Mapping[str, Sequence[Any] | Range]) -> int | None:
    """How many combinations there are, with those that are the same head; None where a range has no end of them."""
    lists = [set(values) for values in settings.values() if not isinstance(values, Range)]
    return math.prod(map(len, lists)) if len(lists) == len(settings) else None


def why_fewer(settings: Mapping[str, Sequence[Any]]) -> str:
    """Why some combinations of these settings are the same head, in words."""
    said = [
        setting.without
        for name, setting in SWEPT.items()
        if setting.needs and len(set(settings[name])) > 1
        if not all(setting.means({setting.needs[0]: value}) for value in settings[setting.needs[0]])
    ]
    return f"{' and '.join(said)}, so those that differ in {'it' if len(said) == 1 else 'these'} alone are one"


def _unique(values: Sequence[Any] | Range) -> Sequence[Any] | Range:
    return values if isinstance(values, Range) else tuple(dict.fromkeys(values))


def _draw(space: Mapping[str, Sequence[Any] | Range], n: int) -> list[dict[str, Any]]:
    """n different settings by scikit-learn's ParameterSampler, or all that there are."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    lists = {name: values for name, values in space.items() if not isinstance(values, Range)}
    endless = len(lists) < len(space)
    if not endless and n >= _different(lists):
        return list({HeadSpec(**settings): settings for settings in ParameterGrid(lists)}.values())
    found: dict[HeadSpec, dict[str, Any]] = {}
    fruitless = 0
    distributions = {name: _distribution(name, values) for name, values in space.items()}
    for drawn in ParameterSampler(distributions, 1 << 62, random_state=SEED):  # one by one, as long as it is wanted
        settings = {name: _tidy(name, value, space[name]) for name, value in drawn.items()}
        key = HeadSpec(**settings)
        fruitless = fruitless + 1 if key in found else 0
        found.setdefault(key, settings)
        if len(found) == n or (endless and fruitless == FRUITLESS):
            break
    return list(found.values())


def _different(lists: Mapping[str, Sequence[Any]]) -> int:
    """The number of different heads of a grid, without making them all."""
    deciding = {setting.needs[0] for name, setting in SWEPT.items() if setting.needs and name in lists}
    some = {name: values for name, values in lists.items() if name in deciding}
    found = 0
    for values in itertools.product(*some.values()):  # each leaves some of the other settings without a meaning
        given = dict(zip(some, values, strict=True))
        others = (name for name in lists if name not in given and SWEPT[name].means(given))
        found += math.prod(len(lists[name]) for name in others)
    return found


class _Choice:
    """One of some values. As a distribution, because ParameterSampler draws these independently, one by one."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def rvs(self, random_state: Any) -> Any:
        return self._values[random_state.randint(len(self._values))]


def _distribution(name: str, values: Sequence[Any] | Range) -> Any:
    from scipy.stats import loguniform, uniform

    if not isinstance(values, Range):
        return _Choice(values)
    low, high = values.low, values.high
    if isinstance(SWEPT[name].values, Whole):  # every whole number gets its share, the ends too
        low, high = low - 0.5, high + 0.5
    return loguniform(low, high) if SWEPT[name].scale == "log" else uniform(low, high - low)


def _tidy(name: str, value: Any, drawn_from: Sequence[Any] | Range) -> Any:
    """A drawn number with few digits, inside its range still; hidden units are whole."""
    if not isinstance(drawn_from, Range):
        return value
    short = round(value) if isinstance(SWEPT[name].values, Whole) else float(f"{value:.{DIGITS}g}")
    return min(max(short, drawn_from.low), drawn_from.high)
