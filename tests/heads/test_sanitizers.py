"""The C++ engine under the compiler's sanitizers. Slow (a build and a run for each): ``make sanitize``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sanitizers import ROOT, SANITIZERS, preloaded, run_clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("sanitizer, runtime", SANITIZERS)
def test_cpu_library(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    sources = [*sorted((ROOT / "csrc" / "heads" / "cpu").glob("*.cpp")), ROOT / "csrc" / "simd" / "memory.cpp"]
    run_clean(sources, HERE / "sanitized_run.py", sanitizer, runtime, tmp_path)


def test_cuda_source_on_the_host() -> None:
    environment = preloaded("libasan.so") | {"EMBEDCACHE_CXXFLAGS": "-fsanitize=address,undefined"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-k", "not nvcc"]
    command += [str(HERE / "test_cuda_host.py"), str(HERE / "test_cuda_tf32.py")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
