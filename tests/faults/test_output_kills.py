"""Kills of predict and search --file: a short form of what `make test-faults` does at length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import document, make_reviews, write_csv


@pytest.fixture(scope="module")
def inputs(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, its cache, and tables of 1,500 and of 3,000 other texts."""
    folder = tmp_path_factory.mktemp("killed")
    table = write_csv(folder / "reviews.csv", make_reviews(200))
    extract = ["extract", table, "-o", folder / "c.h5", "--model", tiny_bert, "--pooling", "mean", "--device", "cpu"]
    document(*extract)
    document("train-head", folder / "c.h5", "-o", folder / "run", "--lr", "1e-2", "--epochs", "2")
    texts = [(f"{text} {i}", "x") for i, (text, _) in enumerate(make_reviews(3000))]
    few, many = write_csv(folder / "few.csv", texts[:1500]), write_csv(folder / "many.csv", texts)
    return [folder / "run", folder / "c.h5", few, many]


def kill(inputs: list[Path], folder: Path, *options: object) -> dict[str, dict[str, int]]:
    script = Path(__file__).with_name("kill_outputs.py")
    command = [sys.executable, str(script), *map(str, inputs), str(folder), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    counts: dict[str, dict[str, int]] = json.loads(done.stdout)
    assert all(one["left"] == 0 for one in counts.values())
    return counts


@pytest.mark.timeout(280)
def test_killed_at_random_moments(inputs: list[Path], tmp_path: Path) -> None:
    counts = kill(inputs[:3], tmp_path, "--kills", 2)
    assert all(one["kills"] >= 2 for one in counts.values())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_60_kills_each(inputs: list[Path], tmp_path: Path) -> None:
    counts = kill([*inputs[:2], inputs[3]], tmp_path, "--kills", 60, "--seed", 1)
    assert all(one["kills"] >= 60 and one["resumed"] > 5 for one in counts.values())
