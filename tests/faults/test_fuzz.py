"""A few seconds of fuzz.py, and the faults that it has found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_short_run_finds_nothing(tmp_path):
    """The same cases every time; `make fuzz` runs others for a minute."""
    script = Path(__file__).with_name("fuzz.py")
    command = [
        sys.executable,
        str(script),
        "--cases",
        "30",
        "--seconds",
        "1000",
        "--keep",
        str(tmp_path),
        "--workers",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert json.loads(done.stdout)["cases"] == 30
