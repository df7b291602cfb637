"""docs/scale.md shows what benchmarks/scale.py works out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_what_is_worked_out() -> None:
    script = ROOT / "benchmarks" / "scale.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "run benchmarks/scale.py"
