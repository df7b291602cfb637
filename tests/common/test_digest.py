"""One function hashes files, with the standard library's own where Python has it and in pieces where it has not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from embedcache.common.digest import file_sha256


@pytest.mark.parametrize("old_python", [False, True])
@pytest.mark.parametrize("size", [0, 5, 3_000_001])
def test_the_digest_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, old_python: bool) -> None:
    data = bytes(i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(data)
    if old_python:
        monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "none")
