"""Settings that a person need not name: the default recipe, and the article's; docs/recipes.md gives the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec, head_grid


@dataclass(frozen=True)
class Recipe:
    """Everything that a sweep needs. The first six make the heads, every combination one; the rest hold for all."""

    hidden: Sequence[int] = (512,)
    lr: Sequence[float] = (1e-4,)
    dropout: Sequence[float] = (0.1,)
    weight_decay: Sequence[float] = (0.01,)
    seed: Sequence[int] = (0,)
    eps: Sequence[float] = (1e-8,)
    batch_size: int = 32
    epochs: int = 15
    standardize: bool = True
    val: float = 0.1
    test: float = 0.1

    def specs(self) -> list[HeadSpec]:
        """One HeadSpec for every combination; the seed changes fastest."""
        names = ("hidden", "lr", "dropout", "weight_decay", "eps", "seed")
        return head_grid(**{name: getattr(self, name) for name in names})


RECIPES = {
    "default": Recipe(),
    # AdamW as the old transformers class had it; 80/20, and the 20% choose the epoch: the article tests on no others.
    "article": Recipe(
        lr=(1e-5,), weight_decay=(0.0,), eps=(1e-6,), batch_size=32, epochs=5, standardize=False, val=0.2, test=0.0
    ),
}


def make_recipe(name: str, **settings: Any) -> Recipe:
    """The named recipe with the given settings in place of its own; None leaves the recipe's.

    A setting of heads may be one value or several. Raises EmbedcacheError for an unknown recipe.
    """
    if name not in RECIPES:
        raise EmbedcacheError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    values = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    for key, value in settings.items():
        if value is None:
            continue
        listed = isinstance(values[key], tuple)
        values[key] = tuple(value) if listed and isinstance(value, Sequence) else (value,) if listed else value
    return Recipe(**values)
