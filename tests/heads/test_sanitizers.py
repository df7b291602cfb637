"""The C++ engine under the compiler's sanitizers. Slow (a build and a run for each): ``make sanitize``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.heads.cuda_emulation import GIVEN, THREAD_FLAGS, build_library
from tests.sanitizers import ROOT, SANITIZERS, preloaded, run_clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("sanitizer, runtime", SANITIZERS)
def test_cpu_library(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    sources = [*sorted((ROOT / "csrc" / "heads" / "cpu").glob("*.cpp")), ROOT / "csrc" / "simd" / "memory.cpp"]
    run_clean(sources, HERE / "sanitized_run.py", sanitizer, runtime, tmp_path)


def test_cuda_source_on_the_host(tmp_path: Path) -> None:
    """All but a test of how long launches take."""
    environment = preloaded("libasan.so")
    environment[GIVEN] = str(build_library(tmp_path, ("-O1", "-fsanitize=address,undefined")))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-k", "not nvcc and not half_a_second"]
    command += [str(HERE / f"test_cuda_{what}.py") for what in ("host", "probes", "tf32", "split", "bf16")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]


def run_threaded(library: Path, cases: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "threaded_run.py"), str(library), cases]
    environment = environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("cases", "count"),
    [("^(cluster|held|wide)", 92), ("^(float|plain|probe|large|linear)", 154), ("^(stacked|split)", 62)],
)
def test_cuda_threads_do_not_race(tmp_path: Path, cases: str, count: int) -> None:
    """A host thread for each warp, or each thread, in a random order: no race, and the bits of the phases."""
    environment = preloaded("libtsan.so") | {"EC_EMULATION_THREADS": "warps", "EC_EMULATION_SEED": "5"}
    phases = run_threaded(build_library(tmp_path), cases, dict(os.environ))
    threads = run_threaded(build_library(tmp_path, THREAD_FLAGS), cases, environment)
    assert threads.returncode == 0, threads.stderr[:8000]
    assert phases.stdout.count("\n") == count and threads.stdout == phases.stdout
