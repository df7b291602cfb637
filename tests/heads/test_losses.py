"""The two registries of losses, and what a loss promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from embedcache.heads.head import TrainedHead
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import SETTINGS, HeadSpec
from embedcache.heads.train import train_heads
from tests.heads.engines import make_task

HEADERS = Path(__file__).resolve().parents[2] / "csrc" / "heads" / "losses"


def test_both_registries_have_the_same_losses_in_the_same_order() -> None:
    """The number of a loss is its place."""
    lines = re.findall(r"X\(EC_LOSS_(\w+),\s*ec_(\w+)\)", (HEADERS / "losses.h").read_text(encoding="utf-8"))
    assert [name.lower() for name, _ in lines] == [function for _, function in lines] == list(LOSSES)
    for name in LOSSES:
        header = (HEADERS / f"{name}.h").read_text(encoding="utf-8")
        assert f"double ec_{name}_value(double" in header and f"double ec_{name}_slope(double" in header


def test_settings_of_losses_are_settings_of_heads() -> None:
    assert SETTINGS["loss"].values.choices == tuple(LOSSES)
    for name, loss in LOSSES.items():
        assert f"{name}, {loss.help}" in SETTINGS["loss"].help
        if loss.setting:
            assert SETTINGS[loss.setting].means({"loss": name}) and not SETTINGS[loss.setting].means({"loss": "nll"})


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_to_nothing_where_the_probability_rises_to_one(name: str) -> None:
    setting = LOSSES[name].setting
    log_p = torch.linspace(-20, 0, 201, dtype=torch.float64)
    loss = LOSSES[name].value(log_p, SETTINGS[setting].default if setting else 0.0)
    assert loss[-1] == 0 and (loss.diff() <= 0).all() and (loss <= -log_p).all()


def test_a_head_keeps_its_loss_and_one_without_has_the_likelihood(tmp_path: Path) -> None:
    task = make_task(60, 8, 3)
    x, y = task.train.x[task.train.rows], task.train.y[task.train.rows]
    head = train_heads(x, y, HeadSpec(hidden=4, loss="focal", focal_gamma=3), epochs=1).best
    head.save(tmp_path / "head.safetensors")
    assert TrainedHead.load(tmp_path / "head.safetensors").spec == head.spec
    metadata = head.metadata()
    del metadata["spec"]["loss"], metadata["spec"]["focal_gamma"]  # files of before
    assert TrainedHead.from_metadata(metadata, head.weights).spec == HeadSpec(hidden=4)
