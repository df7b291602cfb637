"""Pieces of the CUDA engine that no bank small enough for a test reaches (cuda_pieces.cpp, staging_pieces.cpp)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.heads.cuda_emulation import COMPILER


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_pieces(tmp_path: Path) -> None:
    source, program = Path(__file__).with_name("cuda_pieces.cpp"), tmp_path / "pieces"
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-DEC_HOST_EMULATION"]
    subprocess.run([*str(COMPILER).split(), *flags, str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    for how, why in {"wait": "nothing ends", "announce": "nothing ends", "arrive": "too many", "bytes": "more"}.items():
        done = subprocess.run([str(program), how], capture_output=True, text=True)
        assert done.returncode < 0 and why in done.stderr, how
    for how in ("fence", "touch", "change", "write"):
        done = subprocess.run([str(program), "products", how], capture_output=True, text=True)
        assert done.returncode < 0 and "emulated wgmma" in done.stderr, how
    assert subprocess.run([str(program), "products", "well"]).returncode == 0


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_large_copies(tmp_path: Path) -> None:
    """Through pinned slots by threads: all bytes arrive, and no slot is used again before its copy is done."""
    source, program = Path(__file__).with_name("staging_pieces.cpp"), tmp_path / "staging"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{source.with_name('fake_cuda')}"]
    subprocess.run([*str(COMPILER).split(), *flags, str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
