"""Open files are read, written and locked alike where the system has the calls of POSIX and where it has not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedcache.common import open_files
from embedcache.common.open_files import lock_file, open_file, pread, pread_into, pwrite, rename, unlock_file

HOLDER = """
import sys, time
from pathlib import Path
from embedcache.common.open_files import *
import os
handle = open_file(Path(sys.argv[1]), os.O_RDWR)
lock_file(handle, wait=False)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["positioned", "one place"])
def handle(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "one place":  # as on Windows
        for name in ("pread", "preadv", "pwrite"):
            monkeypatch.delattr(os, name, raising=False)
    number = open_file(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def test_bytes_stay_as_they_are(handle: int) -> None:
    data = bytes(range(256)) + b"\r\n\x1a\n" * 9
    assert pwrite(handle, data, 0) == len(data) and pwrite(handle, memoryview(b"end"), 1000) == 3
    assert pread(handle, 5000, 0) == data.ljust(1000, b"\0") + b"end"
    assert pread(handle, 3, 254) == data[254:257] and pread(handle, 3, 5000) == b""
    buffer = bytearray(10)
    assert pread_into(handle, memoryview(buffer), 998) == 5 and buffer == b"\0\0end" + bytes(5)


def test_the_files_own_place_stays(handle: int) -> None:
    os.write(handle, b"0123456789")
    os.lseek(handle, 4, os.SEEK_SET)
    pread(handle, 3, 7)
    pwrite(handle, b"x", 9)
    assert os.read(handle, 10) == b"45678x"


def test_threads_share_a_handle(handle: int) -> None:
    def check(number: int) -> bool:
        data = bytes([number]) * 1000
        for turn in range(50):
            place = (turn * 20 + number) * 1000
            if pwrite(handle, data, place) != 1000 or pread(handle, 1000, place) != data:
                return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(check, range(20)))
    assert pread(handle, 1 << 20, 0) == b"".join(bytes([number]) * 1000 for number in range(20)) * 50


def test_a_lock_excludes_other_handles_of_the_same_process_too(handle: int, tmp_path: Path) -> None:
    pwrite(handle, b"read by anybody", 0)
    lock_file(handle, wait=False)
    other = open_file(tmp_path / "file", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        lock_file(other, wait=False)
    assert pread(other, 99, 0) == b"read by anybody"
    unlock_file(handle)
    lock_file(other, wait=False)
    with pytest.raises(BlockingIOError):
        lock_file(handle, wait=False)
    os.close(other)
    lock_file(handle, wait=False)


def test_a_lock_is_waited_for(handle: int, tmp_path: Path) -> None:
    lock_file(handle, wait=False)
    other = open_file(tmp_path / "file", os.O_RDWR)
    waiting = threading.Thread(target=lock_file, args=(other,), kwargs={"wait": True})
    waiting.start()
    time.sleep(0.1)
    assert waiting.is_alive()
    unlock_file(handle)
    waiting.join(30)
    assert not waiting.is_alive()
    os.close(other)


def test_a_killed_holder_blocks_nobody(handle: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "file")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            lock_file(handle, wait=False)
        holder.kill()
    lock_file(handle, wait=False)


def test_a_name_is_taken_from_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "target").write_text("old")
    rename(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new" and not (tmp_path / "new").exists()


class Windows:
    platform = "win32"


def test_on_windows_who_has_a_file_open_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, replace = [PermissionError(13, "Access is denied")] * 3, Path.replace

    def refusing(new: Path, target: Path) -> Path:
        if refused:
            raise refused.pop()
        return replace(new, target)

    monkeypatch.setattr(open_files, "sys", Windows)
    monkeypatch.setattr(Path, "replace", refusing)
    (tmp_path / "new").write_text("new")
    rename(tmp_path / "new", tmp_path / "target")
    assert not refused and (tmp_path / "target").read_text() == "new"

    refused += [PermissionError(13, "Access is denied")] * 100_000
    monkeypatch.setattr(open_files, "PATIENCE", 0.05)
    (tmp_path / "new").write_text("newer")
    with pytest.raises(PermissionError, match="another program has it open"):
        rename(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"


def test_elsewhere_what_is_refused_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("it waits there")

    def refuse(new: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(open_files, "PATIENCE", 600)
    with pytest.raises(PermissionError, match="Permission denied"):
        rename(tmp_path / "a", tmp_path / "b")
