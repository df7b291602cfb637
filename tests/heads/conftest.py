"""What is built once for several modules."""

from __future__ import annotations

import pytest
from cuda_emulation import COMPILER, build

from embedcache.heads.native import NativeEngine


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> NativeEngine:
    """The CUDA engine on the host."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return build(tmp_path_factory.mktemp("emulation"))
