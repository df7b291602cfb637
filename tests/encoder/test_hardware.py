"""What there is to compute on, by name; test_folder.py has which dtype follows from it."""

from __future__ import annotations

import pytest

from embedcache.encoder.hardware import resolve_device
from embedcache.errors import EmbedcacheError


def test_devices() -> None:
    import torch

    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for bad in ("gpu", "cuda:x", "mps"):
        with pytest.raises(EmbedcacheError, match=f"unknown device '{bad}'"):
            resolve_device(bad)
    with pytest.raises(EmbedcacheError, match=r"device 'cuda:99': PyTorch finds"):
        resolve_device("cuda:99")
