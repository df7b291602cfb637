"""The C++ engine under the compiler's sanitizers: a race or a bad access ends the run with an error.

Slow (a build and a run for each): ``make sanitize``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMPILER = shutil.which("g++")
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi", "-pthread"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISA = {"head_avx2": AVX2, "head_avx512": AVX512, "head_avx512bf16": [*AVX512, "-mavx512bf16"]}


def preloaded(runtime: str) -> dict[str, str]:
    """The environment in which a process runs with a sanitizer's runtime; skips the test where there is none."""
    if platform.machine() != "x86_64" or COMPILER is None:
        pytest.skip("needs g++ on x86-64")
    libraries = []
    for name in (runtime, "libstdc++.so"):  # the second, or the runtime finds no exceptions to intercept
        command = [COMPILER, f"-print-file-name={name}"]
        libraries.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
        if not Path(libraries[-1]).is_absolute():
            pytest.skip(f"{name} is not installed")
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": f"{ROOT}:{HERE}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "UBSAN_OPTIONS": "halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=1",
    }


@pytest.mark.parametrize("sanitizer, runtime", [("thread", "libtsan.so"), ("address,undefined", "libasan.so")])
def test_cpu_library(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    environment, objects = preloaded(runtime), []
    for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
        objects.append(str(tmp_path / f"{source.stem}.o"))
        flags = [*FLAGS, *ISA.get(source.stem, []), "-DEC_X86", "-DEC_AVX512BF16", f"-fsanitize={sanitizer}"]
        subprocess.run([COMPILER, *flags, "-c", str(source), "-o", objects[-1]], check=True)
    built = str(tmp_path / "_heads_cpu.so")
    subprocess.run([COMPILER, "-shared", "-pthread", f"-fsanitize={sanitizer}", *objects, "-o", built], check=True)
    command = [sys.executable, str(HERE / "sanitized_run.py"), built]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "clean", done.stderr[-4000:]


def test_cuda_source_on_the_host() -> None:
    environment = preloaded("libasan.so") | {"EMBEDCACHE_CXXFLAGS": "-fsanitize=address,undefined"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-k", "not nvcc"]
    command += [str(HERE / "test_cuda_host.py"), str(HERE / "test_cuda_tf32.py")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
