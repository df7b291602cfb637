"""The tests of all engines with the emulation in the GPU's place. Slow: minutes on the host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.heads.cuda_emulation import COMPILER

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    ("file", "only", "least"), [("test_engine.py", "cuda and not two_hundred", 40), ("test_property.py", "", 3)]
)
def test_engines_tests_on_the_emulated_gpu(file: str, only: str, least: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.heads.emulated_gpu", "-p", "no:cacheprovider"]
    command += ["-m", "slow or not slow", "-k", only, str(HERE / file)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed and int(passed[1]) >= least, done.stdout[-4000:] + done.stderr[-2000:]
