"""One grammar of devices, whoever reads it."""

from __future__ import annotations

from typing import Any

import pytest

from embedcache.common.devices import read_device
from embedcache.encoder.hardware import resolve_device
from embedcache.errors import EmbedcacheError
from embedcache.heads.engine_native import find
from embedcache.heads.engine_torch import TorchEngine
from embedcache.index.build import gpu_of


@pytest.mark.parametrize(
    ("device", "found"),
    [("auto", ("auto", None)), ("cpu", ("cpu", None)), ("cuda", ("cuda", None)), ("cuda:12", ("cuda", 12))],
)
def test_what_is_written(device: str, found: tuple[str, int | None]) -> None:
    assert read_device(device) == found


@pytest.mark.parametrize(
    "device", ["", "tpu", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cuda:0 ", 0, None]
)
@pytest.mark.parametrize("read", [read_device, resolve_device, find, TorchEngine, gpu_of])
def test_what_is_not_a_device(read: Any, device: Any) -> None:
    with pytest.raises(EmbedcacheError, match=f"unknown device {device!r}: use auto, cpu, cuda or cuda:N"):
        read(device)


@pytest.mark.parametrize("device", ["cuda:all", "cuda:0,cuda:1", "cuda,cuda:1"])
@pytest.mark.parametrize("read", [read_device, resolve_device, find, TorchEngine, gpu_of])
def test_several_devices_where_one_is_meant(read: Any, device: str) -> None:
    with pytest.raises(EmbedcacheError, match="several GPUs are for extract; name one here, as cuda:N"):
        read(device)
