"""Files that another program cuts short while they are mapped: one line that names the file, exit 1."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.common import guard
from embedcache.errors import EmbedcacheError
from tests.conftest import make_cache, make_reviews
from tests.faults.conftest import Command

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not Path(guard.__file__).with_name("_guard_cpu.so").exists(),
    reason="the library is not built here",
)
WAIT = """
import sys, threading
from embedcache.common import guard
from embedcache.cache import open_cache
import numpy as np
guard.install()
x = open_cache(sys.argv[1]).embeddings() if sys.argv[1].endswith(".h5") else np.memmap(sys.argv[1], np.uint8, "r")
print("ready", flush=True)
sys.stdin.readline()
worker = threading.Thread(target=lambda: print(x[len(x) // 2 :].astype(np.float64).sum()))
worker.start()
worker.join()
"""

MANY = """
import ctypes, os, sys, threading
path, library = sys.argv[1:]
assert ctypes.CDLL(library).ec_guard_install() == 0
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size, file = os.path.getsize(path), os.open(path, os.O_RDONLY)
begin = libc.mmap(None, size, 1, 1, file, 0)
for _ in range(5000):  # a long table of what is mapped, so that the handler takes its time
    libc.mmap(None, 4096, 1, 1, file, 0)
os.truncate(path, 0)
barrier = threading.Barrier(8)
def read(i):
    barrier.wait()
    libc.memchr(begin + i * (size // 8), 1, size // 8)
for i in range(8):
    threading.Thread(target=read, args=(i,)).start()
"""


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def one_line(path: Path, code: int, stdout: str, stderr: str) -> None:
    assert (code, stdout) == (1, ""), (code, stderr)
    assert (
        stderr.startswith("Error: ") and str(path) in stderr and stderr.count("\n") == stderr.count("Error: ") == 1
    ), stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 rows x 64, no encoder."""
    folder = tmp_path_factory.mktemp("large")
    rows = make_reviews(20_000)
    x = np.random.default_rng(0).standard_normal((len(rows), 64), dtype=np.float32).astype(np.float16)
    texts, labels = zip(*rows, strict=True)
    return Path(make_cache(folder / "large.h5", texts, x, {"label": list(labels)}))


@pytest.mark.parametrize("name", ["cut.h5", "a file of another kind.bin"])
def test_the_file_is_named(tmp_path: Path, large: Path, name: str) -> None:
    """Whatever it is, whichever thread reads it."""
    path, script = Path(shutil.copy(large, tmp_path / name)), tmp_path / "wait.py"
    script.write_text(WAIT, encoding="utf-8")
    with Command(path, script=script, stdin=-1) as command:
        assert command.stdout is not None and command.stdout.readline() == "ready\n"
        cut(path, 0.2)
        stdout, stderr = command.communicate("\n", timeout=60)
    one_line(path, command.returncode, stdout, stderr)
    assert "was cut short by another program while it was read" in stderr


def test_threads_that_read_it_together_report_it_once(tmp_path: Path) -> None:
    library = Path(guard.__file__).with_name("_guard_cpu.so")
    for i in range(4):
        (path := tmp_path / f"{i}.bin").write_bytes(bytes(1 << 20))
        done = subprocess.run([sys.executable, "-c", MANY, path, library], capture_output=True, text=True, check=False)
        one_line(path, done.returncode, done.stdout, done.stderr)


def test_a_program_keeps_its_own_handler() -> None:
    code = (
        "import faulthandler, signal, sys; import embedcache as ec; ec.open_cache, ec.train_heads; "
        "from embedcache.cli import main; main(['--help'], standalone_mode=False); "
        "import ctypes; libc = ctypes.CDLL(None); "
        "sys.exit(0 if ctypes.c_void_p(libc.signal(7, 0)).value in (None, 0) else 3)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_train_head(tmp_path: Path, large: Path) -> None:
    path = Path(shutil.copy(large, tmp_path / "cut.h5"))
    arguments = ["train-head", path, "-o", tmp_path / "run", "--hidden", "64", "--epochs", "100000", "--device", "cpu"]
    command = Command(*arguments)
    time.sleep(4)
    cut(path, 0.3)
    one_line(path, *command.finish(60))
    assert not (tmp_path / "run").exists()


def test_less_than_a_page_is_missed_by_nobody(tmp_path: Path, large: Path) -> None:
    path = Path(shutil.copy(large, tmp_path / "cut.h5"))
    with open_cache(path) as cache:
        cache.check_whole()
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(EmbedcacheError, match="cut short while it was read"):
            cache.check_whole()
        shutil.copy(large, tmp_path / "new.h5")
        (tmp_path / "new.h5").replace(path)  # as a writer does; what is mapped stays whole
        cache.check_whole()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_at_any_moment(made: Path, tmp_path: Path, large: Path, seed: int) -> None:
    """Also before the file is mapped, and when all is done."""
    rng = random.Random(seed)
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"great film {i}\n" for i in range(3000)), encoding="utf-8")
    commands: list[list[Any]] = [
        ["train-head", "cut.h5", "-o", "run", "--hidden", "64", "--epochs", "40"],
        ["audit", "cut.h5"],
        ["search", "cut.h5", "--row", "3"],
        ["index", "cut.h5", "--kind", "ivfpq"],
        ["search", "real.h5", "--file", questions, "-o", "out.csv"],
    ]
    for arguments in commands:
        cache = tmp_path / str(arguments[1])
        shutil.copy(made / "reviews.h5" if cache.name == "real.h5" else large, cache)
        command = Command(*arguments, cwd=tmp_path)
        time.sleep(rng.uniform(0.1, 5))
        cut(cache, rng.uniform(0, 0.9))
        code, stdout, stderr = command.finish(300)
        if code:
            one_line(Path(cache.name), code, stdout, stderr.splitlines(keepends=True)[-1])
        else:
            assert "Traceback" not in stderr
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.parametrize("moment", [0.8, *(pytest.param(at, marks=pytest.mark.slow) for at in (0.0, 0.4, 1.6))])
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_search_file_ends_whatever_becomes_of_its_cache(made: Path, tmp_path: Path, how: str, moment: float) -> None:
    """Before it is opened, it is missing or no cache; once it is open, its map holds it."""
    cache, questions = Path(shutil.copy(made / "reviews.h5", tmp_path / "real.h5")), tmp_path / "questions.txt"
    questions.write_text("".join(f"great film {i}\n" for i in range(3000)), encoding="utf-8")
    command = Command("search", "real.h5", "--file", questions, "-o", "out.csv", cwd=tmp_path)
    time.sleep(moment)
    if how == "removed":
        cache.unlink()
    else:
        (tmp_path / "other").write_bytes(b"not a cache")
        (tmp_path / "other").replace(cache)
    code, stdout, stderr = command.finish(90)
    assert "Traceback" not in stderr and "unexpected" not in stderr
    if code:
        one_line(Path(cache.name), code, stdout, stderr.splitlines(keepends=True)[-1])
        assert not (tmp_path / "out.csv").exists()
    else:
        assert len((tmp_path / "out.csv").read_text("utf-8").splitlines()) > 3000
