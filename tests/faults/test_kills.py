"""Kills: a short form of what `make test-faults` does at length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def kill(model: Path, folder: Path, *options: object) -> dict[str, int]:
    script = Path(__file__).with_name("kill.py")
    command = [sys.executable, str(script), str(model), str(folder), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    return json.loads(done.stdout)


@pytest.mark.timeout(280)
def test_killed_at_random_moments(tiny_bert, tmp_path):
    counts = kill(tiny_bert, tmp_path, "--random", 8, "--power-cuts", 1, "--rows", 2200, "--tokens", 1)
    assert counts["random"] >= 8 and counts["power cuts"] == 1


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_200_kills_at_random_moments(tiny_bert, tmp_path):
    counts = kill(tiny_bert, tmp_path, "--random", 180, "--commands", 20, "--seed", 1)
    assert counts["random"] + counts["commands"] >= 200 and counts["incomplete"] > 20  # busy: 45


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_with_token_states(tiny_bert, tmp_path):
    options = ("--random", 60, "--commands", 8, "--every", 2, "--power-cuts", 25, "--rows", 2200, "--tokens", 1)
    counts = kill(tiny_bert, tmp_path, *options)
    assert counts["at a change"] > 100 and counts["power cuts"] == 25 and counts["states incomplete"] > 20


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_with_vectors_in_int8(tiny_bert, tmp_path):
    options = ("--random", 40, "--commands", 4, "--every", 3, "--power-cuts", 25, "--rows", 2200, "--store", "int8")
    counts = kill(tiny_bert, tmp_path, *options)
    assert counts["at a change"] > 50 and counts["power cuts"] == 25 and counts["incomplete"] > 10


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_every_change_to_the_disk(tiny_bert, tmp_path):
    counts = kill(tiny_bert, tmp_path, "--every", 2, "--power-cuts", 50, "--rows", 2200)
    assert counts["at a change"] > 100 and counts["power cuts"] == 50
