"""What a benchmark's numbers were measured on, for its JSON; and where the JSON goes."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


def slug(name: str) -> str:
    """For the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def machine(*packages: str) -> dict[str, Any]:
    """Name of the processor, cores that this process may use, system, Python and the versions of the packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: metadata.version(name) for name in packages}
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }
