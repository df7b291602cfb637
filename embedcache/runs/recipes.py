"""Settings that a person need not name: the default recipe, and the article's; docs/recipes.md gives the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec, whole_number
from embedcache.runs.sweep import Range, combinations, sweep_specs

# The settings of a head, slowest to change first.
SWEPT = (
    "hidden", "lr", "dropout", "weight_decay", "label_smoothing", "schedule", "warmup", "class_weight", "eps", "seed"
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Everything that a sweep needs. Tuples make the heads, every combination one; the rest hold for all.

    ``random``: how many combinations to draw, 0 for all; then a setting may also be a Range.
    """

    hidden: Sequence[int] | Range = (512,)
    lr: Sequence[float] | Range = (1e-4,)
    dropout: Sequence[float] | Range = (0.1,)
    weight_decay: Sequence[float] | Range = (0.01,)
    label_smoothing: Sequence[float] | Range = (0.0,)
    schedule: Sequence[str] = ("constant",)
    warmup: Sequence[float] | Range = (0.0,)
    class_weight: Sequence[str] = ("none",)
    eps: Sequence[float] = (1e-8,)
    seed: Sequence[int] = (0,)
    random: int = 0
    batch_size: int = 32
    epochs: int = 15
    standardize: bool = True
    val: float = 0.1
    test: float = 0.1

    def specs(self) -> list[HeadSpec]:
        """One HeadSpec for every combination, or for each that is drawn; the seed changes fastest.

        Combinations that are the same head are there once.
        """
        return sweep_specs({name: getattr(self, name) for name in SWEPT}, self.random)

    def combinations(self) -> int | None:
        """How many combinations there are, with those that are the same head; None where a range has no end of them."""
        return combinations({name: getattr(self, name) for name in SWEPT})

    def to_dict(self) -> dict[str, Any]:
        """JSON types; make_recipe takes them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Range) else _plain(value) for name, value in values.items()}


RECIPES = {
    "default": Recipe(),
    # AdamW as the old transformers class had it; 80/20, and the 20% choose the epoch: the article tests on no others.
    "article": Recipe(
        lr=(1e-5,), weight_decay=(0.0,), eps=(1e-6,), batch_size=32, epochs=5, standardize=False, val=0.2, test=0.0
    ),
}


def make_recipe(name: str, **settings: Any) -> Recipe:
    """The named recipe with the given settings in place of its own; None leaves the recipe's.

    A setting of heads may be one value, several, or a Range, also written "1e-5:1e-3". Raises EmbedcacheError for an
    unknown recipe or what is no range.
    """
    if name not in RECIPES:
        raise EmbedcacheError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    values = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    for key, value in settings.items():
        if value is not None:
            values[key] = _several(value) if key in SWEPT else value
    values["random"] = whole_number("random", values["random"], 0, 2**31 - 1)
    return Recipe(**values)


def _several(value: Any) -> tuple[Any, ...] | Range:
    if isinstance(value, Range):
        return value
    if isinstance(value, str):
        return Range.parse(value) if ":" in value else (value,)
    return tuple(value) if isinstance(value, Iterable) else (value,)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
