"""One source of defaults: what the command, the heads' settings and the estimators have in common is the same."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

import embedcache as ec
from embedcache.runs.recipes import RECIPES

# (who, setting) -> why its default is another than the recipe's.
DIFFERENT = {
    ("HeadSpec", "lr"): "one rate for any X: a recipe knows that it standardizes, and how many epochs there will be",
    ("train_heads", "epochs"): "the contract has 5: without rows to validate on nothing would choose among more",
    ("train_heads", "standardize"): "the engine alone: it learns X as it is given",
    ("FusedHead", "lr"): "3e-4 suits a hundred rows and some thousands",
}


def defaults(function: Any) -> dict[str, Any]:
    return {name: one.default for name, one in inspect.signature(function).parameters.items()}


WHO = {
    "HeadSpec": {field.name: getattr(ec.HeadSpec(), field.name) for field in fields(ec.HeadSpec)},
    "train_heads": defaults(ec.train_heads),
    "FusedHead": defaults(ec.FusedHeadClassifier),
}
RECIPE = {field.name: getattr(RECIPES["default"], field.name) for field in fields(RECIPES["default"])}
SHARED = [(who, name) for who, settings in WHO.items() for name in settings if name in RECIPE]


def plain(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


@pytest.mark.parametrize(("who", "name"), SHARED)
def test_the_recipes_default(who: str, name: str) -> None:
    same = plain(RECIPE[name]) == plain(WHO[who][name]) or (WHO[who][name], plain(RECIPE[name])) == (None, "none")
    assert same != ((who, name) in DIFFERENT), f"{WHO[who][name]!r} and {RECIPE[name]!r}"


def test_what_is_shared() -> None:
    assert set(DIFFERENT) <= set(SHARED) and len(SHARED) >= 20


@pytest.mark.parametrize("other", [ec.FusedHeadRegressor, ec.train_heads])
def test_the_estimators_and_the_engine(other: Any) -> None:
    own, classifier = defaults(other), defaults(ec.FusedHeadClassifier)
    for name in set(own) & set(classifier) & {"engine", "device", "compute", "threads", "batch_size"}:
        assert own[name] == classifier[name]
    if other is ec.FusedHeadRegressor:
        assert {name: classifier[name] for name in own} == own
