"""What this machine has for embedcache, and whether it works.

Files, in the order in which to read them:

    checks     What is installed and what the hardware is
    selftest   The whole job on a made-up encoder in a temporary folder, each step compared with a few lines of NumPy
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from embedcache.doctor.checks import FAILED, Check, machine_checks
from embedcache.doctor.selftest import self_test

__all__ = ["Check", "Diagnosis", "diagnose"]


@dataclass
class Diagnosis:
    """All checks in the order in which they are read; ``healthy``: none failed."""

    checks: list[Check]
    seconds: float

    @property
    def healthy(self) -> bool:
        return all(check.status != FAILED for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"healthy": self.healthy, "seconds": self.seconds, "checks": [asdict(one) for one in self.checks]}


def diagnose() -> Diagnosis:
    """Look at the machine, then run the whole pipeline on a made-up encoder, in seconds. Raises nothing."""
    start = time.perf_counter()
    checks = [*machine_checks(), *self_test()]
    return Diagnosis(checks, time.perf_counter() - start)
