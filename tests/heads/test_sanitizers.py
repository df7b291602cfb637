"""The C++ engine under the compiler's sanitizers: a race or a bad access ends the run with an error.

Slow (a build and a run for each): ``pytest -m slow tests/heads/test_sanitizers.py``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi", "-pthread"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
ISA = {"head_avx2": AVX2, "head_avx512": [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]}

RUN = """
import sys
from pathlib import Path
import numpy as np
from embedcache.heads import native
native._path = lambda kind: Path(sys.argv[1]) if kind == "cpu" else None
from engines import Engine, make_task
from embedcache.heads.spec import HeadSpec
shapes = [(100, 256, 128, 2, 32, 50), (130, 45, 37, 3, 7, 200), (70, 64, 0, 5, 16, 30), (100, 96, 96, 400, 32, 40)]
shapes += [(40, 768, 256, 2, 32, 0), (5, 3, 1, 2, 1, 1)]
for i, (n, dim, hidden, classes, batch, n_val) in enumerate(shapes):
    dtype = (np.float16, np.float32)[i % 2]
    task = make_task(n, dim, classes, n_val=n_val, dtype=dtype, standardize=True, weighted=True)
    for threads in (1, 2, 3, 5):
        for isa in ("avx512", "avx2", "plain"):
            heads = [(HeadSpec(hidden=hidden, seed=s), 0) for s in range(3)]
            Engine("native", "cpu", isa).train([task], heads, epochs=3, batch_size=batch, threads=threads, early_stop=1)
print("clean")
"""


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer, runtime", [("thread", "libtsan.so"), ("address,undefined", "libasan.so")])
def test_clean(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if platform.machine() != "x86_64" or compiler is None:
        pytest.skip("needs g++ on x86-64")
    library = subprocess.run([compiler, f"-print-file-name={runtime}"], capture_output=True, text=True).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip(f"{runtime} is not installed")
    objects = []
    for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
        objects.append(str(tmp_path / f"{source.stem}.o"))
        flags = [*FLAGS, *ISA.get(source.stem, []), "-DEC_X86", f"-fsanitize={sanitizer}"]
        subprocess.run([compiler, *flags, "-c", str(source), "-o", objects[-1]], check=True)
    built = str(tmp_path / "_heads_cpu.so")
    subprocess.run([compiler, "-shared", "-pthread", f"-fsanitize={sanitizer}", *objects, "-o", built], check=True)
    environment = {**os.environ, "LD_PRELOAD": library, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'heads'}"}
    environment |= {
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    done = subprocess.run([sys.executable, "-c", RUN, built], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "clean", done.stderr[-4000:]
