"""What every engine is: one call that trains a bank. train.choose_engine takes one, engine_native or engine_torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Outcome, Task

COMPUTES = {  # what each engine trains in
    "native cpu": ("float32", "bfloat16"),
    "native cuda": ("float32", "bfloat16", "tf32"),
    "torch": ("float32", "bfloat16"),
}


class EngineWarning(UserWarning):
    """The native engine was not used, and why."""


class NativeUnavailableError(EmbedcacheError):
    """The native library is missing, is of another version or has no device to run on."""


def cannot_compute(engine: str, compute: str) -> str:
    """Why an engine of COMPUTES does not train in ``compute``; "" where it does."""
    known = " or ".join(COMPUTES[engine])
    return "" if compute in COMPUTES[engine] else f"the {engine} engine computes in {known}, not in {compute}"


class Engine(Protocol):
    """What engine_native.NativeEngine and engine_torch.TorchEngine have in common."""

    name: str

    def train(
        self,
        tasks: Sequence[Task],
        heads: Sequence[tuple[HeadSpec, int]],
        options: Options,
        progress: Progress | None,
    ) -> list[Outcome]: ...
