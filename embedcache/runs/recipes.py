"""Settings that a person need not name: the default recipe, and the article's; docs/recipes.md gives the reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.settings import whole_number
from embedcache.heads.spec import SWEPT, HeadSpec
from embedcache.runs.sweep import Range, combinations, sweep_specs

# The settings of a head that a recipe has, each a tuple of values or a Range.
_Heads: Any = make_dataclass(
    "_Heads", [(name, Any, field(default=(setting.off,))) for name, setting in SWEPT.items()], frozen=True
)


@dataclass(frozen=True)
class Recipe(_Heads):
    """Everything that a sweep needs. The settings of heads make them, every combination one; the rest hold for all.

    ``random``: how many combinations to draw, 0 for all; then a setting may also be a Range.
    """

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
        return sweep_specs(self._swept(), self.random)

    def combinations(self) -> int | None:
        """How many combinations there are, with those that are the same head; None where a range has no end of them."""
        return combinations(self._swept())

    def _swept(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SWEPT}

    def to_dict(self) -> dict[str, Any]:
        """JSON types; make_recipe takes them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Range) else _plain(value) for name, value in values.items()}


RECIPES = {
    "default": Recipe(lr=(1e-4,)),
    # AdamW as the old transformers class had it; 80/20, and the 20% choose the epoch: the article tests on no others.
    "article": Recipe(
        lr=(1e-5,), weight_decay=(0.0,), eps=(1e-6,), batch_size=32, epochs=5, standardize=False, val=0.2, test=0.0
    ),
}


def make_recipe(name: str, **settings: Any) -> Recipe:
    """The named recipe with the given settings in place of its own; None leaves the recipe's.

    A setting of heads may be one value, several, or a Range, also written "1e-5:1e-3". Raises EmbedcacheError for an
    unknown recipe or what is not a range.
    """
    if name not in RECIPES:
        raise EmbedcacheError(f"unknown recipe {name!r}; choose from {', '.join(RECIPES)}")
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
