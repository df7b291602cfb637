"""A pytest plugin: the emulation library stands where the CUDA library would, so tests of all engines see a GPU.

python -m pytest -p tests.heads.emulated_gpu -m "slow or not slow" tests/heads/test_engine.py -k cuda
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from embedcache.heads import engine_native
from tests.heads.cuda_emulation import build_library

# At once: the tests' conftest.py already asks whether there is a GPU.
FOLDER = tempfile.TemporaryDirectory()
LIBRARY, PATH = build_library(Path(FOLDER.name)), engine_native._path
engine_native._path = lambda kind: LIBRARY if kind == "cuda" else PATH(kind)


def pytest_unconfigure(config: pytest.Config) -> None:
    FOLDER.cleanup()
