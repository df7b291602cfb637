"""One line in place of silence where a file is cut short while it is mapped (csrc/guard/guard.cpp)."""

from __future__ import annotations

import ctypes
from pathlib import Path


def install() -> bool:
    """Handle SIGBUS in this process from now on. False where the library is not built (Windows, no compiler)."""
    path = Path(__file__).with_name("_guard_cpu.so")
    try:
        return bool(ctypes.CDLL(str(path)).ec_guard_install() == 0)
    except (OSError, AttributeError):
        return False
