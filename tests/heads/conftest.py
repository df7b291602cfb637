"""What is built once for several modules."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock

from embedcache.heads import engine_native
from tests.heads.cuda_emulation import COMPILER, GIVEN, build_library, open_library


def has_gpu() -> bool:
    try:
        return bool(engine_native.find("cuda"))
    except engine_native.NativeUnavailableError:
        return False


@pytest.fixture(scope="session")
def emulation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> engine_native.NativeEngine:
    """The CUDA engine on the host; the first of pytest-xdist's workers compiles it for all.

    A run that a worker starts is no worker itself, though it has its environment: it compiles its own.
    """
    if GIVEN in os.environ:
        return open_library(Path(os.environ[GIVEN]))
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if hasattr(request.config, "workerinput") else folder) / "emulation"
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)
        return open_library(next(folder.glob("*.so"), None) or build_library(folder))


@pytest.fixture(scope="session", params=["host", "gpu"] if has_gpu() else ["host"])
def cuda(request: pytest.FixtureRequest) -> engine_native.NativeEngine:
    """The CUDA engine on the host, and where there is a GPU on that too."""
    return engine_native.find("cuda") if request.param == "gpu" else request.getfixturevalue("emulation")


@pytest.fixture(scope="module")
def one_torch_thread():
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
