"""The native encoder under the compiler's sanitizers. Slow (a build and a run for each): ``make sanitize``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sanitizers import ROOT, SANITIZERS, run_clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("sanitizer, runtime", SANITIZERS)
def test_library(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    csrc = ROOT / "csrc"
    sources = [*sorted((csrc / "encoder").glob("*.cpp")), csrc / "simd" / "memory.cpp"]
    run_clean(sources, HERE / "sanitized_encoder.py", sanitizer, runtime, tmp_path)
