"""Our own C libraries: where one lies, whether it loads, and whether it is of the version that its binding is for."""

from __future__ import annotations

import ctypes
from pathlib import Path


def find_library(module: str, name: str) -> Path | None:
    """The library of that name beside a module (its ``__file__``); None where it was not built."""
    places = (Path(module).with_name(name + suffix) for suffix in (".so", ".dylib", ".dll"))
    return next((path for path in places if path.exists()), None)


def open_library(path: Path | None, version_function: str, version: int) -> tuple[ctypes.CDLL | None, str]:
    """(the library, ""), or (None, why not): "is not built", "does not load" or "is of version ...".

    Args:
        path: see ``find_library``.
        version_function: its function without arguments that returns its version, an int.
        version: what that must be.
    """
    if path is None:
        return None, "is not built (reinstall with a compiler at hand)"
    try:
        library = ctypes.CDLL(str(path))
        found = getattr(library, version_function)()
    except (OSError, AttributeError) as error:
        return None, f"does not load ({error})"
    if found != version:
        return None, f"is of version {found}, not {version}: reinstall embedcache"
    return library, ""
