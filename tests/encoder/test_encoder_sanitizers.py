"""The native encoder and tokenizer under the compiler's sanitizers. Slow (builds): ``make sanitize``."""

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


@pytest.mark.parametrize("sanitizer, runtime", SANITIZERS)
def test_tokenizer(sanitizer: str, runtime: str, tmp_path: Path) -> None:
    sources = sorted((ROOT / "csrc" / "tokenizer").glob("*.cpp"))
    run_clean(sources, HERE / "sanitized_tokenizer.py", sanitizer, runtime, tmp_path)
