"""Files that are mapped while they change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import map_file


class Windows:
    platform = "win32"


def fail_with_a_map(path: Path) -> None:
    data = np.memmap(path, np.uint8, "r")
    raise ValueError(f"{data.size} bytes")


def fail_in_a_thread(path: Path) -> None:
    """What a thread's own function has, which is not in the error's traceback, is held by it all the same."""
    errors = []

    def attempt(size: int) -> None:
        try:
            raise ValueError(f"{size} bytes")
        except ValueError as error:
            errors.append(error)

    def work() -> None:
        data = np.memmap(path, np.uint8, "r")
        attempt(data.size)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise errors.pop()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="nothing tells what is mapped")
@pytest.mark.parametrize("fail", [fail_with_a_map, fail_in_a_thread])
def test_a_mapped_file_is_removed_once_the_failed_call_has_let_go(
    fail: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where no mapped file can be removed."""
    path, maps = tmp_path / "file", []
    path.write_bytes(b"12345")
    unlink = Path.unlink

    def refusing(self: Path, missing_ok: bool = False) -> None:
        maps.append(any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines()))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    for system in (map_file.sys, Windows):
        monkeypatch.setattr(map_file, "sys", system)
        path.write_bytes(b"12345")
        try:
            fail(path)
        except ValueError as error:
            map_file.remove_mapped(path, error)
        assert not path.exists()
    assert maps == [True, False]


def test_what_somebody_else_has_open_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "another program has it open")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError):
        map_file.remove_mapped(tmp_path / "file", ValueError())
    monkeypatch.setattr(map_file, "sys", Windows)
    map_file.remove_mapped(tmp_path / "file", ValueError())
