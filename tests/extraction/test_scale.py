"""docs/scale.md shows what benchmarks/extraction/scale.py works out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_what_is_worked_out() -> None:
    command = [sys.executable, "-m", "benchmarks.extraction.scale", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "run benchmarks/extraction/scale.py"
