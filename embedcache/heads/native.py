"""ctypes binding of the native engine, csrc/heads.h. (The engine itself comes next.)"""

from __future__ import annotations

from typing import Any

from embedcache.errors import EmbedcacheError


class NativeUnavailable(EmbedcacheError):
    """The native library is missing, does not fit or has no device to run on."""


def find(device: str) -> Any:
    raise NativeUnavailable("the native engine is not built")
