"""Sweeps: every combination, or a draw that is without repetition, inside its ranges, and always the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.runs.recipes import make_recipe
from embedcache.runs.sweep import Range


def specs(random: int | None = None, **settings: Any) -> list[HeadSpec]:
    return make_recipe("default", random=random, **settings).specs()


def test_every_combination_with_the_seed_changing_fastest() -> None:
    found = specs(lr=[1e-3, 1e-2], schedule=["linear", "cosine"], class_weight=["none", "balanced"], seed=[0, 1])
    assert len(set(found)) == 16
    assert [spec.seed for spec in found[:4]] == [0, 1, 0, 1]
    assert {(spec.schedule, spec.class_weight) for spec in found} == {
        (schedule, weight) for schedule in ("linear", "cosine") for weight in ("none", "balanced")
    }


def test_a_draw_is_without_repetition_and_each_comes_with_every_seed() -> None:
    lists = {"lr": [1e-4, 1e-3, 1e-2], "hidden": [0, 8, 16], "schedule": ["linear", "cosine"]}
    found = specs(10, **lists, seed=[3, 5])
    assert len(found) == len(set(found)) == 20
    assert [spec.seed for spec in found] == [3, 5] * 10
    assert set(found) < set(specs(**lists, seed=[3, 5]))
    assert found == specs(10, **lists, seed=[3, 5]), "always the same draw"
    assert found[:8] == specs(4, **lists, seed=[3, 5]), "a larger draw begins with the smaller one"


@pytest.mark.parametrize("wanted", [18, 19, 1000])
def test_where_more_are_asked_than_there_are_all_come(wanted: int) -> None:
    lists = {"lr": [1e-4, 1e-3, 1e-2], "hidden": [0, 8, 16], "schedule": ["linear", "cosine"]}
    assert set(specs(wanted, **lists)) == set(specs(**lists))
    assert {spec.hidden for spec in specs(wanted, hidden=Range(4, 6))} == {4, 5, 6}


def test_nearly_all_of_a_list() -> None:
    assert len(set(specs(399, lr=[i / 1000 for i in range(1, 21)], hidden=range(20)))) == 399
    assert len(specs(1, lr=[1e-3, 1e-3])) == 1


PROBES = {"hidden": [0, 8], "dropout": [0.0, 0.1, 0.3], "lr": [1e-3, 1e-2], "seed": [0, 1]}


class TestCombinationsThatAreTheSameHead:
    """A linear probe has no dropout."""

    def test_are_there_once(self) -> None:
        found = specs(**PROBES)
        assert len(found) == len(set(found)) == 2 * 2 * (1 + 3)
        assert make_recipe("default", **PROBES).combinations() == 24
        assert [spec.dropout for spec in found if not spec.hidden] == [0.0] * 4
        assert len(head_grid(**PROBES)) == 16
        assert len(head_grid(hidden=0, dropout=[0.1, 0.3])) == 1

    def test_and_are_drawn_once(self) -> None:
        for n in range(1, 9):
            found = specs(n, **PROBES)
            assert len(found) == len(set(found)) == 2 * n
            assert found == specs(n, **PROBES) and set(found) <= set(specs(**PROBES))
        assert set(specs(9, **PROBES)) == set(specs(**PROBES)), "eight there are"
        assert len(specs(5, hidden=0, dropout="0:0.5", lr=[1e-3, 1e-2])) == 2
        assert len(specs(3, hidden=[0], dropout=[0.1, 0.2], lr="1e-4:1e-2")) == 3

    def test_a_probe_in_a_file_may_say_what_dropout_it_likes(self) -> None:
        old = HeadSpec.from_dict({**HeadSpec(hidden=0).to_dict(), "dropout": 0.3})
        assert old == HeadSpec(hidden=0) and old.name == HeadSpec(hidden=0, dropout=0.9).name
        assert HeadSpec(hidden=1, dropout=0.3) != HeadSpec(hidden=1)
        with pytest.raises(EmbedcacheError, match="dropout must be at least 0 and below 1"):
            HeadSpec(hidden=0, dropout=1.0)


def test_ranges_are_drawn_by_their_scale() -> None:
    found = specs(400, lr="1e-5:1e-1", weight_decay="1e-4:1", hidden="2:2000", dropout="0:0.5", warmup="0.1:0.3")
    assert len(set(found)) == 400
    for name, low, high in (("lr", 1e-5, 1e-1), ("weight_decay", 1e-4, 1.0), ("hidden", 2, 2000)):
        values = np.array([getattr(spec, name) for spec in found])
        assert low <= values.min() and values.max() <= high
        middle = math.sqrt(low * high)  # by the logarithm: one half on either side of it
        assert 0.4 < (values < middle).mean() < 0.6
    for name, low, high in (("dropout", 0.0, 0.5), ("warmup", 0.1, 0.3)):
        values = np.array([getattr(spec, name) for spec in found])
        assert low <= values.min() and values.max() <= high
        assert 0.4 < (values < (low + high) / 2).mean() < 0.6
    assert all(float(f"{spec.lr:.3g}") == spec.lr for spec in found), "as a person would type it"
    assert all(isinstance(spec.hidden, int) for spec in found)
    assert found[:50] == specs(50, lr="1e-5:1e-1", weight_decay="1e-4:1", hidden="2:2000", dropout="0:0.5",
                               warmup="0.1:0.3")  # fmt: skip


def test_a_recipe_with_ranges_survives_json() -> None:
    recipe = make_recipe("default", lr=Range(1e-5, 1e-2), hidden=[0, 8], random=7)
    assert make_recipe("default", **recipe.to_dict()) == recipe
    assert recipe.to_dict()["lr"] == "1e-05:0.01" and recipe.to_dict()["hidden"] == [0, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": "1e-5:1e-2"}, "a range: draw from it with --random N"),
        ({"random": 5, "lr": "1e-2:1e-5"}, "from a lower to a higher"),
        ({"random": 5, "lr": "1e-5:1e-5"}, "from a lower to a higher"),
        ({"random": 5, "lr": "1e-5:nan"}, "from a lower to a higher"),
        ({"random": 5, "lr": "1e-5:x"}, "is not a range"),
        ({"random": 5, "lr": "1:2:3"}, "is not a range"),
        ({"random": 5, "weight_decay": "0:0.1"}, "weight_decay 0.0:0.1.*must be above 0"),
        ({"random": 5, "hidden": "0:64"}, "hidden.*linear probe"),
        ({"random": 5, "hidden": "1.5:64"}, "whole number"),
        ({"random": 5, "dropout": "0:1"}, "dropout"),
        ({"random": 5, "seed": "0:9"}, "seed cannot be a range; only hidden, lr, dropout"),
        ({"random": 5, "schedule": "up:down"}, "is not a range"),
        ({"random": 1, "lr": [1e-3, -1.0]}, "lr must be above 0"),
        ({"class_weight": "some"}, "class_weight"),
        ({"schedule": "up"}, "schedule"),
        ({"random": -1}, "random"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        specs(**settings)
