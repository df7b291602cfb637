"""The cache file: vectors, texts, labels in one HDF5 file that no crash can spoil. Never imports torch.

Read with ``open_cache``, check with ``verify``; only extract.py creates and fills files (create.py). The format and
its reasons are in docs/cache-file.md.
"""

from __future__ import annotations

from embedcache.cache.checksums import VerifyReport, verify
from embedcache.cache.file import Cache, open_cache

__all__ = ["Cache", "VerifyReport", "open_cache", "verify"]
