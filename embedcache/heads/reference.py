"""The engine in plain torch. (Comes next.)"""

from __future__ import annotations

from typing import Any


class TorchEngine:
    name = "torch-cpu"
    device = "cpu"

    def __init__(self, device: str) -> None:
        self.device = device

    def train(self, *arguments: Any) -> Any:
        raise NotImplementedError
