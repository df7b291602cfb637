"""Two hundred clients at once: nobody's request is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.serve.load import load
from tests.serve.serving import listening


@pytest.mark.parametrize("seconds", [2.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_no_request_is_lost(service: Any, seconds: float, open_service: Callable[..., Any]) -> None:
    with listening(service) as url:
        host, port = url.split("//")[1].rstrip("/").split(":")
        found = asyncio.run(load(host, int(port), 200, seconds, service.cache.rows, texts=True))
    assert found["lost"] == 0 and found["requests"] >= 200, found
