"""What is built once for several modules."""

from __future__ import annotations

import pytest

from embedcache.heads import engine_native
from tests.heads.cuda_emulation import COMPILER, build


def has_gpu() -> bool:
    try:
        return bool(engine_native.find("cuda"))
    except engine_native.NativeUnavailableError:
        return False


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> engine_native.NativeEngine:
    """The CUDA engine on the host."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return build(tmp_path_factory.mktemp("emulation"))


@pytest.fixture(scope="session", params=["host", "gpu"] if has_gpu() else ["host"])
def cuda(request: pytest.FixtureRequest) -> engine_native.NativeEngine:
    """The CUDA engine on the host, and where there is a GPU on that too."""
    return engine_native.find("cuda") if request.param == "gpu" else request.getfixturevalue("emulation")
