"""Load the DLLs of the Windows wheel under Wine, and train a head with one.

    python release/windows.py dist/embedcache-*-win_amd64.whl

Needs Wine (Debian: wine, wine64) and the extra ``release``. It shows that the libraries are whole and compute; the
Python code around them is not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(wheel: str) -> int:
    """The status of the check."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".dll")])
        program = Path(folder, "check.exe")
        compiler = [sys.executable, "-m", "ziglang", "c++", "-target", "x86_64-windows-gnu", "-std=c++17", "-O1"]
        subprocess.run(
            [*compiler, str(HERE / "windows_check.cpp"), "-o", str(program)], check=True, stdin=subprocess.DEVNULL
        )
        env = os.environ | {"WINEPREFIX": str(Path(folder, "wine")), "WINEDEBUG": "-all"}
        command = ["wine", str(program), "Z:" + str(Path(folder, "embedcache")).replace("/", "\\")]
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} WHEEL")
    sys.exit(main(sys.argv[1]))
