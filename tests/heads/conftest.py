"""What is built once for several modules."""

from __future__ import annotations

import os

import pytest
from filelock import FileLock

from embedcache.heads import engine_native
from tests.heads.cuda_emulation import COMPILER, build_library, open_library


def has_gpu() -> bool:
    try:
        return bool(engine_native.find("cuda"))
    except engine_native.NativeUnavailableError:
        return False


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> engine_native.NativeEngine:
    """The CUDA engine on the host; the first of pytest-xdist's workers compiles it for all."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "emulation"
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)
        return open_library(next(folder.glob("*.so"), None) or build_library(folder))


@pytest.fixture(scope="session", params=["host", "gpu"] if has_gpu() else ["host"])
def cuda(request: pytest.FixtureRequest) -> engine_native.NativeEngine:
    """The CUDA engine on the host, and where there is a GPU on that too."""
    return engine_native.find("cuda") if request.param == "gpu" else request.getfixturevalue("emulation")
