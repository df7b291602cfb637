"""Packages that an installation may do without, and the extra of embedcache that brings each.

``pip install embedcache`` alone predicts texts with a run and reads caches. ``cpu`` (or ``gpu``) is everything else.
"""

from __future__ import annotations

EXTRAS = {
    "pyarrow": "tables",
    "matplotlib": "heads",
    "scipy": "heads",
    "sklearn": "heads",
    "threadpoolctl": "heads",
    "torch": "torch",
    "transformers": "torch",
    "accelerate": "train",
    "peft": "peft",
    "openTSNE": "serve",
    "prometheus_client": "serve",
}


def missing(error: BaseException) -> tuple[str, str] | None:
    """(the package, what to do), where an import failed for want of one of these packages; else None."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module not in EXTRAS:
        return None
    return module, f"pip install 'embedcache[{EXTRAS[module]}]', or 'embedcache[cpu]' for all commands"
