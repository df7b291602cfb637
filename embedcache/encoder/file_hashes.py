"""Digests of large files, each computed once as long as the file does not change."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from embedcache.common.digest import file_sha256


def weights_sha256(path: Path) -> str:
    """Hex digest of a file's content. Within one process a file is hashed once, until it changes."""
    stat = path.stat()
    return _file_sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: Path, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Cached by what shows a change to the file: a tool can set mtime back, but not ctime."""
    return file_sha256(path)
