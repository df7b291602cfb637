"""embedcache doctor: what it says of a machine that is well, and of what is missing or broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.doctor import checks, selftest
from embedcache.doctor.checks import cpu_quota, hub_folder, machine_checks, memory_limit
from embedcache.errors import EmbedcacheError
from embedcache.heads import engine_native
from tests.conftest import document, invoke

STEPS = [f"self-test: {step}" for step in ("extract", "verify", "train", "predict", "search")]


def by_name() -> dict[str, checks.Check]:
    return {check.name: check for check in machine_checks()}


def test_all_is_well() -> None:
    found = document("doctor")
    status = {check["name"]: check["status"] for check in found["checks"]}
    assert found["healthy"] and "failed" not in status.values()
    assert [name for name in status if name.startswith("self-test")] == STEPS
    assert {status[step] for step in STEPS} == {"ok"}
    assert status.keys() >= {"python", "embedcache", "HDF5", "FAISS", "head engine", "processor", "threads", "disk"}
    assert all(check["advice"] for check in found["checks"] if check["status"] == "missing")


def test_every_check_is_one_line() -> None:
    result = invoke("doctor")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and lines[-1].startswith("Everything needed works")
    assert all(line.split()[0] in ("ok", "missing") for line in lines[:-1])


def test_the_self_test_loads_no_torch_where_the_native_encoder_works() -> None:
    from embedcache.encoder.runner_native import backend

    if not backend("float32"):
        pytest.skip("this processor has no native encoder")
    code = "import sys\nfrom embedcache.doctor.selftest import self_test\nchecks = self_test()\n"
    code += "sys.exit(1 if 'torch' in sys.modules or any(c.status != 'ok' for c in checks) else 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_vectors_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_bert", lambda w, ids: np.zeros((len(ids), 32)))
    fails_at("extract")


def test_a_broken_engine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_native.NativeEngine, "train", _nothing)
    fails_at("train")


def fails_at(step: str) -> None:
    result = invoke("doctor")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert f"failed  self-test: {step}" in result.stdout and "Failed: 1" in result.stdout


def _nothing(*arguments: object) -> object:
    raise EmbedcacheError("the engine is broken")


def test_without_faiss_it_is_missing_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    result = invoke("doctor")
    assert result.exit_code == 0, result.stdout
    assert "missing FAISS" in result.stdout and "ok      self-test: search" in result.stdout
    assert "pip install 'embedcache[cpu]'" in result.stdout


@pytest.mark.filterwarnings("ignore:the native cpu engine is not built")
def test_without_the_native_engine_torch_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_native, "_libraries", {})
    monkeypatch.setattr(engine_native, "_path", lambda kind: None)
    found = document("doctor")
    about = {check["name"]: check for check in found["checks"]}
    assert about["head engine"]["status"] == "missing" and "reinstall" in about["head engine"]["advice"]
    assert "torch-cpu" in about["self-test: train"]["found"]


def test_ctrl_c_while_heads_are_trained_is_no_fault_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_native, "_libraries", {})
    monkeypatch.setattr(engine_native, "_path", lambda kind: None)
    monkeypatch.setattr("embedcache.heads.engine_torch._Run.train", interrupted)
    assert invoke("doctor").exit_code == 130


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = checks._version
    monkeypatch.setattr(
        checks, "_version", lambda name: None if name in ("pyarrow", "h5py", "uvicorn") else plain(name)
    )
    found = by_name()
    assert (found["h5py"].status, found["h5py"].advice) == ("failed", "pip install h5py")
    assert (found["tables"].status, found["tables"].advice) == ("missing", "pip install 'embedcache[tables]'")
    assert (found["serve"].status, found["serve"].found) == ("missing", "without uvicorn")


def test_a_look_that_breaks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "cpu_flags", lambda: 1 / 0)
    found = by_name()
    assert found["processor"].status == "failed" and "ZeroDivisionError" in found["processor"].found


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    fake_nvidia_smi(tmp_path, "echo 'NVIDIA H100, 570.1, 81559 MiB'", monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = by_name()
    assert found["GPU"].found == "NVIDIA H100, 81559 MiB, driver 570.1"
    assert found["torch on GPU"].status == "missing" and "CUDA build" in found["torch on GPU"].advice


def test_a_driver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo Failed to initialize NVML >&2; exit 9", monkeypatch)
    found = by_name()
    assert found["GPU"].status == "missing" and "Failed to initialize NVML" in found["GPU"].found


def test_limits_of_a_cgroup(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None and memory_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (1.5, 1 << 30)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cpu_quota(tmp_path) is None and memory_limit(tmp_path) is None
    old = tmp_path / "old"
    (old / "cpu").mkdir(parents=True)
    (old / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(old) is None
    (old / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    assert cpu_quota(old) == 2.0


def test_where_encoders_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_folder() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hub_folder() == tmp_path / "hub"
    (tmp_path / "hub" / "models--org--name").mkdir(parents=True)
    assert "org/name" in by_name()["encoders"].found


def test_wrong_usage() -> None:
    assert invoke("doctor", "now").exit_code == 2
