"""What the files of token states hold, for tests that compare them to the bit."""

from __future__ import annotations

from pathlib import Path

from embedcache.cache.state_files import StateFiles, values_path


def files_of(cache: Path) -> tuple[bytes, ...]:
    """All but when the index was made; every text's states are there and sound."""
    files = StateFiles(cache)
    assert files.sealed and files.sound().all()
    return *(array.tobytes() for array in (files.hashes, files.spans, files.checksums)), values_path(cache).read_bytes()
