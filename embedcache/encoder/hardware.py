"""What there is to compute on: the device that a name stands for, and what this processor can do.

Nothing here imports torch unless a GPU is asked for, or may be there.
"""

from __future__ import annotations

import ctypes
import re
import sys
from functools import lru_cache
from pathlib import Path

from embedcache.common.devices import read_device
from embedcache.common.screen import plural
from embedcache.errors import EmbedcacheError


def resolve_device(device: str) -> str:
    """Resolve "auto" to "cuda" or "cpu". Raises EmbedcacheError for a missing device ("cpu" never imports torch)."""
    kind, number = read_device(device)
    if kind == "cpu" or (kind == "auto" and not _has_cuda_driver()):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if count else "cpu"
    if (number or 0) >= count:
        found = plural(count, "CUDA device") if count else "no CUDA device"
        raise EmbedcacheError(f"device '{device}': PyTorch finds {found}; use --device cpu or auto")
    return device


def _has_cuda_driver() -> bool:
    """Whether there may be a GPU, so that importing torch to look for it is worth the time."""
    if "torch" in sys.modules:
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """The features of this processor, from /proc/cpuinfo (ARM's have other names); empty where that file is missing."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", told, re.MULTILINE)
    return frozenset(flags[1].split() if flags else ())


def cpu_computes_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products."""
    return not cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))
