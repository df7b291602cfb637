"""The engine of last layers under the compiler's sanitizers. Slow (a build and a run for each): ``make sanitize``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sanitizers import ROOT, SANITIZERS, run_clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("sanitizer, runtime", SANITIZERS)
def test_block_library(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    csrc = ROOT / "csrc"
    sources = [
        *sorted((csrc / "block").glob("*.cpp")),
        csrc / "heads" / "cpu" / "team.cpp",
        csrc / "simd" / "memory.cpp",
    ]
    run_clean(sources, Path(__file__).with_name("sanitized_blocks.py"), sanitizer, runtime, tmp_path)
