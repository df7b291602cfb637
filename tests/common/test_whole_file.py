"""Outputs: whole files, symlinks, pipes, devices, modes, two writers, and what kills leave."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from embedcache.common import whole_file as outputs
from embedcache.common.lock import BusyError
from embedcache.common.whole_file import check_output, open_output, whole_binary, whole_file
from embedcache.errors import EmbedcacheError


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write a file: Linux's without a name, and that of other systems."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return str(request.param)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_seen_before_it_is_whole(tmp_path: Path, way: str) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")
    with whole_file(path) as file:
        file.write("ä\r\nb")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_bytes() == "ä\r\nb".encode() and names(tmp_path) == ["out.csv"]


def test_nothing_is_left_of_a_failure(tmp_path: Path, way: str) -> None:
    path = tmp_path / "out.csv"
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write("x")
        _ = 1 / 0
    assert names(tmp_path) == []


def test_a_symlink_is_followed(tmp_path: Path, way: str) -> None:
    (tmp_path / "there").mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to("there/out.csv")
    (tmp_path / "there" / "out.csv").write_text("before")
    dangling.symlink_to("there/new.csv")
    for path in (link, dangling):
        with whole_file(path) as file:
            file.write("after")
        assert path.is_symlink() and path.read_text() == "after"
    assert names(tmp_path / "there") == ["new.csv", "out.csv"]
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(EmbedcacheError, match="cannot write"), whole_file(tmp_path / "a"):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask_or_the_file_that_is_replaced(tmp_path: Path, way: str, umask: int) -> None:
    new, old = tmp_path / "new.bin", tmp_path / "old.bin"
    old.touch()
    old.chmod(0o640)
    before = os.umask(umask)
    try:
        for path in (new, old):
            with whole_binary(path) as file:
                file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_fifo_is_written_through(tmp_path: Path) -> None:
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    with whole_file(fifo) as file:
        file.write("through")
    reader.join(10)
    assert read == ["through"] and fifo.is_fifo() and names(tmp_path) == ["fifo"]


def test_a_fifo_whose_reader_goes_is_an_error_with_a_word(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: fifo.open("rb").close())
    reader.start()
    with pytest.raises(EmbedcacheError, match="fifo: its reader closed it before the end"), whole_file(fifo) as file:
        reader.join(10)
        file.write("nobody reads this")
    assert fifo.is_fifo() and names(tmp_path) == ["fifo"]


def test_devices_stay_devices(tmp_path: Path) -> None:
    before = os.lstat("/dev/null")
    with whole_file("/dev/null") as file:
        file.write("x")
    assert os.lstat("/dev/null").st_rdev == before.st_rdev
    if Path("/dev/full").exists():
        with (
            pytest.raises(EmbedcacheError, match="cannot write /dev/full: No space left"),
            whole_file("/dev/full") as f,
        ):
            f.write("x")


WRITE = """
import sys
from embedcache.common.whole_file import whole_file
print("first", flush=True)
with whole_file(sys.argv[1]) as file:
    file.write("second\\n")
print("third")
"""


@pytest.mark.parametrize("place", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "LINK"])
@pytest.mark.parametrize("to", ["pipe", "file", "append"])
def test_standard_output_is_written_through(tmp_path: Path, place: str, to: str) -> None:
    """Where it is a file, too: what was there before in it stays, as for any program."""
    if place == "LINK":
        place = str(tmp_path / "link")
        Path(place).symlink_to("/dev/stdout")
    (tmp_path / "out").write_text("zeroth\n")
    command = [sys.executable, "-c", WRITE, place]
    if to == "pipe":
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        with (tmp_path / "out").open("a" if to == "append" else "w") as out:
            subprocess.run(command, stdout=out, check=True)
        said = (tmp_path / "out").read_text()
    assert said == ("zeroth\n" if to == "append" else "") + "first\nsecond\nthird\n"


def test_what_is_no_place_for_an_output(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "s", "is a socket"),
        (tmp_path / "none" / "out.csv", "there is no folder"),
        (tmp_path / ("x" * 250), "File ?name too long"),
    ):
        with pytest.raises(EmbedcacheError, match=words), open_output(path):
            pass
    server.close()
    (tmp_path / "in.csv").touch()
    (tmp_path / "link.csv").symlink_to("in.csv")
    with pytest.raises(EmbedcacheError, match="is the input"):
        check_output(tmp_path / "link.csv", tmp_path / "in.csv")


HOLD = """
import sys
from embedcache.common.whole_file import open_output
with open_output(sys.argv[1]) as output, output.text() as file:
    file.write("x" * 100_000)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_writers_and_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    (tmp_path / "link.csv").symlink_to("out.csv")
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        for name in ("out.csv", "link.csv"):
            with pytest.raises(BusyError, match=rf"is writing .*{name}; wait"), whole_file(tmp_path / name):
                pass
        with whole_file(tmp_path / "other.csv") as file:
            file.write("y")
        first.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [".out.csv.partial", "link.csv", "other.csv"]
    with whole_file(path) as file:
        file.write("z")
    assert names(tmp_path) == ["link.csv", "other.csv", "out.csv"] and path.read_text() == "z"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda handle, how: None)
    with whole_file(tmp_path / "out.csv") as one, whole_file(tmp_path / "out.csv") as two:
        one.write("one")
        two.write("two")
    assert names(tmp_path) == ["out.csv"] and (tmp_path / "out.csv").read_text() == "one", "the last to end"


def test_a_killed_writer_of_a_named_file_is_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".out.csv.new").write_text("half")
    with whole_file(tmp_path / "out.csv") as file:
        file.write("whole")
    assert names(tmp_path) == ["out.csv"]


def test_the_disk_has_it_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(outputs.os, "fsync", lambda handle: (done.append("sync"), sync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append("replace"), replace(old, new))[1])
    with whole_file(tmp_path / "out.csv") as file:
        file.write("x")
    assert done == ["sync", "replace", "sync"]
