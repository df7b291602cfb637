from __future__ import annotations

import json

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec, head_grid


def test_grid_is_every_combination_last_setting_fastest() -> None:
    grid = head_grid(hidden=[0, 64], lr=[1e-4, 1e-3], seed=range(3))
    assert len(grid) == 12
    assert [spec.seed for spec in grid[:4]] == [0, 1, 2, 0]
    assert grid[0] == HeadSpec(hidden=0, lr=1e-4, seed=0)
    assert grid[-1] == HeadSpec(hidden=64, lr=1e-3, seed=2)


def test_grid_takes_single_values_and_drops_repeats() -> None:
    assert head_grid() == [HeadSpec()]
    assert head_grid(lr=1e-2, seed=np.arange(2)) == [HeadSpec(lr=1e-2), HeadSpec(lr=1e-2, seed=1)]
    assert len(head_grid(lr=[1e-3, 0.001, 1e-2])) == 2
    assert head_grid(betas=(0.8, 0.9)) == [HeadSpec(betas=(0.8, 0.9))]
    assert len(head_grid(betas=[(0.8, 0.9), (0.9, 0.99)])) == 2


def test_one_weight_per_class_is_one_value() -> None:
    for weights in ([1, 2], (1.0, 2.0), np.array([1, 2], np.float32)):
        assert head_grid(class_weight=weights) == [HeadSpec(class_weight=(1, 2))] == [HeadSpec(class_weight=weights)]
    grid = head_grid(class_weight=[None, "none", "balanced", [1, 2], np.array([1.0, 2.0])])
    assert [spec.class_weight for spec in grid] == [None, "none", "balanced", (1.0, 2.0)]
    assert [spec.class_weight for spec in head_grid(class_weight="balanced")] == ["balanced"]


def test_names_tell_specs_apart() -> None:
    grid = head_grid(
        hidden=[0, 8],
        lr=[1e-5, 1e-4],
        dropout=[0, 0.5],
        seed=[0, 1],
        eps=[1e-8, 1e-6],
        betas=[(0.9, 0.999), (0.8, 0.9)],
        label_smoothing=[0, 0.1],
        class_weight=[None, "none", "balanced", (1, 2), (2, 1)],
        schedule=["constant", "linear", "cosine"],
        warmup=[0, 0.1],
        loss=["nll", "focal"],
        focal_gamma=[0.5, 2, 5],
    )
    assert len({spec.name for spec in grid}) == len(grid)
    assert HeadSpec().name == "h512-lr0.001-do0.1-wd0.01-s0"
    assert HeadSpec(loss="focal", focal_gamma=3).name == "h512-lr0.001-do0.1-wd0.01-focal-g3-s0"


def test_a_head_without_the_focal_loss_has_no_gamma() -> None:
    assert HeadSpec(focal_gamma=5) == HeadSpec() and HeadSpec().focal_gamma == 2
    assert len(head_grid(loss=["nll", "focal"], focal_gamma=[0, 1, 2])) == 4


def test_specs_survive_json() -> None:
    spec = HeadSpec(hidden=7, betas=(0.5, 0.6), seed=2**64 - 1)
    weighted = HeadSpec(class_weight=(0.5, 2), label_smoothing=0.1, schedule="cosine", warmup=0.2)
    for made in (spec, weighted, HeadSpec(class_weight="balanced")):
        assert HeadSpec.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    old = {
        name: value
        for name, value in spec.to_dict().items()
        if name not in ("schedule", "warmup", "class_weight", "loss", "focal_gamma")
    }
    assert HeadSpec.from_dict(old) == spec  # files of version 0.1
    with pytest.raises(EmbedcacheError, match="unknown setting momentum; choose from hidden, lr"):
        HeadSpec.from_dict({**spec.to_dict(), "momentum": 1})


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"hidden": -3}, "hidden must be between 0"),
        ({"hidden": 2.5}, "hidden must be a whole number"),
        ({"hidden": "8"}, "hidden must be a whole number"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"lr": 1e300}, "lr must be above 0"),
        ({"lr": "abc"}, "lr must be a number"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"seed": -1}, "seed must be between 0"),
        ({"seed": 2**64}, "seed"),
        ({"seed": True}, "seed must be a whole number"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": 0}, "eps"),
        ({"label_smoothing": 1}, "label_smoothing must be at least 0 and below 1"),
        ({"loss": "hinge"}, "loss must be nll or focal, not 'hinge'"),
        ({"loss": "focal", "focal_gamma": -1}, "focal_gamma must be at least 0 and below 1000"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1"),
        ({"warmup": None}, "warmup must be a number"),
        ({"schedule": "step"}, "schedule must be constant, linear or cosine"),
        ({"schedule": ["linear"]}, "schedule must be"),
        ({"class_weight": "heavy"}, "class_weight must be none, balanced or one weight per class"),
        ({"class_weight": 3}, "class_weight must be none, balanced or one weight per class"),
        ({"class_weight": {1: 2.0, 2: 3.0}}, "class_weight must be none, balanced or one weight per class"),
        ({"class_weight": (1, 0)}, "class_weight must be above 0"),
        ({"class_weight": [1, "a"]}, "class_weight must be a number"),
        ({"class_weight": []}, "class_weight has no weights"),
    ],
)
def test_values_out_of_range(settings: dict, words: str) -> None:
    with pytest.raises(EmbedcacheError, match=words):
        HeadSpec(**settings)


def test_grid_errors() -> None:
    with pytest.raises(EmbedcacheError, match="unknown setting 'depth'; choose from hidden, lr"):
        head_grid(depth=[1])
    with pytest.raises(EmbedcacheError, match="lr has no values"):
        head_grid(lr=[])
    with pytest.raises(EmbedcacheError, match="betas must be two numbers"):
        head_grid(betas=[(0.9, 0.99), 3])
