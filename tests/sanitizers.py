"""Native libraries under the compiler's sanitizers: a race or a bad access ends the run with an error."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = [("thread", "libtsan.so"), ("address,undefined", "libasan.so")]  # and their runtimes
COMPILER = shutil.which("g++")
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi", "-pthread"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISA = {
    "avx2": AVX2,
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512bf16"],
    "avx512bf16vnni": [*AVX512, "-mavx512bf16", "-mavx512vnni"],
}


def preloaded(runtime: str) -> dict[str, str]:
    """The environment in which a script runs with a sanitizer's runtime; skips where there is none."""
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
        "PYTHONPATH": str(ROOT),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "UBSAN_OPTIONS": "halt_on_error=1",
        "TSAN_OPTIONS": f"halt_on_error=1:suppressions={ROOT / 'tests' / 'tsan.supp'}",
    }


def run_clean(sources: Sequence[Path], script: Path, sanitizer: str, runtime: str, folder: Path) -> None:
    """Build a library of ``sources`` in ``folder`` with a sanitizer; ``script LIBRARY`` must end well and say clean."""
    environment, objects = preloaded(runtime), []
    for source in sources:
        objects.append(str(folder / f"{source.stem}.o"))
        flags = [*FLAGS, *ISA.get(source.stem.rpartition("_")[2], []), "-DEC_X86", "-DEC_AVX512BF16", "-DEC_AVXVNNI"]
        command = [COMPILER, *flags, f"-fsanitize={sanitizer}", "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    built = str(folder / "_sanitized.so")
    subprocess.run([COMPILER, "-shared", "-pthread", f"-fsanitize={sanitizer}", *objects, "-o", built], check=True)
    command = [sys.executable, str(script), built]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "clean", done.stderr[-4000:]
