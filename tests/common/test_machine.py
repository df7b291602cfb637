"""Cores and memory: limits of control groups of both versions, thread counts that ask for too much."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedcache.common import machine
from embedcache.errors import EmbedcacheError

GB = 10**9


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n", encoding="utf-8")


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """A /proc whose machine has 8 GB available."""
    write(tmp_path / "proc", meminfo=f"MemTotal: 1 kB\nMemAvailable: {8 * GB // 1024} kB")
    return tmp_path / "proc"


def groups(monkeypatch: pytest.MonkeyPatch, **paths: str) -> None:
    monkeypatch.setattr(machine, "_own_groups", lambda: {"" if k == "v2" else k: v for k, v in paths.items()})


def test_without_limits_the_machine_counts(tmp_path: Path, process: Path) -> None:
    assert machine.memory_free(tmp_path / "none", process) == pytest.approx(8 * GB, rel=1e-6)
    assert machine.memory_free(tmp_path / "none", tmp_path / "nothing") == float("inf")


def test_version_2_counts_every_group_above(tmp_path: Path, process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(monkeypatch, v2="/outer/own")
    root = tmp_path / "cgroup"
    stat = "anon 5\ninactive_file 100\nactive_file 200"
    write(root / "outer", memory__max=2 * GB, memory__current=GB, memory__stat=stat)
    write(root / "outer" / "own", memory__max="max", memory__current=5, memory__stat=stat)
    assert machine.memory_free(root, process) == GB + 300  # pages of files can go
    assert machine.memory_limit(root) == 2 * GB
    write(root / "outer" / "own", memory__max=1000, memory__current=999)
    assert machine.memory_free(root, process) == 301


def test_version_1(tmp_path: Path, process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(monkeypatch, memory="/job")
    root, stat = tmp_path / "cgroup", "inactive_file 1\ntotal_inactive_file 10\ntotal_active_file 20"
    names = {"memory__limit_in_bytes": 2**63 - 4096, "memory__usage_in_bytes": 7, "memory__stat": stat}
    write(root / "memory", **names)
    assert machine.memory_free(root, process) == pytest.approx(8 * GB, rel=1e-6)
    write(root / "memory" / "job", **{**names, "memory__limit_in_bytes": GB, "memory__usage_in_bytes": GB // 2})
    assert machine.memory_free(root, process) == GB - GB // 2 + 30


def test_more_in_use_than_allowed_is_nothing_free(
    tmp_path: Path, process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(monkeypatch, v2="/")
    write(tmp_path / "cgroup", memory__max=10, memory__current=20, memory__stat="inactive_file 0")
    assert machine.memory_free(tmp_path / "cgroup", process) == 0


def test_needing_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_free", lambda: 0.9 * GB)
    machine.check_memory(0.8 * GB, "two heads", "train fewer")
    with pytest.raises(EmbedcacheError) as error:
        machine.check_memory(12.4 * GB, "2,000 heads", "train fewer")
    assert str(error.value) == "2,000 heads need about 12.4 GB of memory, 900 MB are free: train fewer"


def test_threads_beyond_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    for name in machine.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert machine.cap_threads() == []
    monkeypatch.setenv("OMP_NUM_THREADS", "5000,2")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.setenv("RAYON_NUM_THREADS", "many")
    notes = machine.cap_threads()
    assert notes == ["OMP_NUM_THREADS=5000 is lowered to 4: this process may use no more cores"]
    assert os.environ["OMP_NUM_THREADS"] == "4,2" and os.environ["MKL_NUM_THREADS"] == "3"


def test_a_quota_of_processor_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.5)
    assert machine.usable_cores() == 3
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.1)
    assert machine.usable_cores() == 1
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert machine.usable_cores() == 64
