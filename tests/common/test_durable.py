"""What has a name is on the disk, and stands there whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from embedcache.common import durable
from embedcache.common.tensors import save_tensors
from embedcache.common.whole_folder import whole_folder


def test_a_file_is_whole_or_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_text("old")
    with pytest.raises(RuntimeError), durable.replacing(path) as new:
        new.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["a.bin"]
    with durable.replacing(path) as new:
        new.write_text("new")
    assert path.read_text() == "new" and [one.name for one in tmp_path.iterdir()] == ["a.bin"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save_tensors(tmp_path / "link", {"x": np.zeros(1)})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").is_file()


def test_tensors_keep_the_mode_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": np.zeros(1)})
    (tmp_path / "made").touch()
    assert path.stat().st_mode == (tmp_path / "made").stat().st_mode, "that which the umask gives"
    path.chmod(0o640)
    save_tensors(path, {"x": np.ones(1)})
    assert path.stat().st_mode & 0o777 == 0o640 and len(list(tmp_path.iterdir())) == 2


def test_every_file_of_a_folder_is_flushed_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    sync, target = os.fsync, tmp_path / "run"

    def see(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        flushed.append(name + " named" * target.exists())
        sync(handle)

    monkeypatch.setattr(os, "fsync", see)
    with whole_folder(target, lambda old, new: None) as part:
        (part / "column").mkdir()
        (part / "column" / "a").touch()
        (part / "b").touch()
        name = part.name
    assert flushed == ["a", "column", "b", name, f"{tmp_path.name} named"]


def test_macos_empties_the_disks_own_cache_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By F_FULLFSYNC, and by fsync where the file system does not know that."""
    import fcntl  # which Windows has not

    told: list[str] = []
    monkeypatch.setattr(durable.sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda handle, command: told.append(f"fcntl {command}"))
    monkeypatch.setattr(os, "fsync", lambda handle: told.append("fsync"))
    (tmp_path / "a").touch()
    durable.sync(tmp_path / "a")
    assert told == ["fcntl 51"]

    def refused(handle: int, command: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    durable.sync(tmp_path / "a")
    assert told == ["fcntl 51", "fsync"]
