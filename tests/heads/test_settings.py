"""The table of head settings is the only list of them: what is derived from it agrees with it, and knows a new line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedcache.cli import main
from embedcache.commands.types import SweepList
from embedcache.heads.schema import Spec
from embedcache.heads.spec import SETTINGS, SWEPT, HeadSpec, head_grid
from embedcache.runs.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {name: setting for name, setting in SWEPT.items() if setting.help}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_is_a_value(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.values.check(name, setting.default) == setting.default
    assert (setting.turn is None) == (name not in SWEPT) and setting.scale in ("", "log", "even")
    assert all(RECIPES[recipe].specs() for recipe in RECIPES)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_option(name: str) -> None:
    option = next(param for param in main.commands["train-head"].params if param.name == name)
    assert option.opts == [f"--{name.replace('_', '-')}"]
    assert isinstance(option.type, SweepList) == bool(OPTIONS[name].scale)


def test_the_page_of_recipes_lists_the_options() -> None:
    page = (
        (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").partition("\n## Sweeps\n")[2].partition("\n\n###")[0]
    )
    lines = dict(re.findall(r"^\| `--([a-z-]+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE))
    assert set(lines) == {name.replace("_", "-") for name in OPTIONS}
    for name, setting in OPTIONS.items():
        how = {"": "-", "log": "evenly by the", "even": "evenly"}[setting.scale]
        assert how in lines[name.replace("_", "-")], name
        assert (setting.scale == "log") == ("logarithm" in lines[name.replace("_", "-")]), name


def test_a_setting_that_means_nothing() -> None:
    assert HeadSpec(hidden=0, dropout=0.5).dropout == 0 and HeadSpec(hidden=1, dropout=0.5).dropout == 0.5
    assert not SETTINGS["dropout"].means({"hidden": 0}) and SETTINGS["dropout"].means({})
    assert SETTINGS["lr"].means({"hidden": 0})


def test_files_hold_every_setting() -> None:
    assert set(Spec.__struct_fields__) == set(HeadSpec().to_dict()) == set(SETTINGS)


NEW = """    focus: float = field(default=2.0, metadata=_known(
        SHARE_TO_9, "fo", "focus", turn=11, scale="even", help="How hard.", needs=("schedule", "cosine".__eq__),
        absent=0.0,
    ))  # fmt: skip

    def __post_init__"""
KNOWN = """
from click.testing import CliRunner
from embedcache.cli import main
from embedcache.heads.schema import Spec
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.report.names import in_words
from embedcache.runs.recipes import make_recipe
from embedcache.runs.sweep import Range

assert HeadSpec().focus == 0 and HeadSpec(schedule="cosine").focus == 2
assert len(head_grid(schedule=["cosine", "linear"], focus=[1, 2])) == 3
assert HeadSpec(schedule="cosine", focus=1).name == "h512-lr0.001-do0.1-wd0.01-cosine-fo1-s0"
recipe = make_recipe("default", focus="1:2", schedule="cosine", random=4)
assert len({spec.focus for spec in recipe.specs()}) == 4 and recipe.focus == Range(1, 2)
assert "focus" in Spec.__struct_fields__ and HeadSpec.from_dict(HeadSpec().to_dict()) == HeadSpec()
assert in_words({"focus": 1.0, "schedule": "cosine"}, ["focus"]) == "focus 1"
assert in_words({"focus": 1.0, "schedule": "linear"}, ["focus"]) == ""
help = CliRunner().invoke(main, ["train-head", "--help"]).output
assert "--focus LIST | LOW:HIGH" in help and "How hard." in help
"""


def test_a_new_line_of_the_table_is_known_everywhere(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "static", "__pycache__")
    shutil.copytree(ROOT / "embedcache", tmp_path / "embedcache", ignore=ignored)
    spec = tmp_path / "embedcache" / "heads" / "spec.py"
    text = spec.read_text(encoding="utf-8").replace("    def __post_init__", NEW).replace("SHARE_TO_9", "Number(0, 9)")
    spec.write_text(text, encoding="utf-8")
    environment: dict[str, Any] = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", KNOWN], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_number_of_different_heads() -> None:
    """Counted without making them: what a random draw compares its size with."""
    from embedcache.runs.sweep import _different

    lists = {"hidden": [0, 8, 16], "dropout": [0.0, 0.1, 0.2], "lr": [1e-3, 1e-2]}
    assert _different(lists) == len(head_grid(**lists)) == 14
    assert _different({**lists, "hidden": [8]}) == len(head_grid(**{**lists, "hidden": [8]})) == 6
