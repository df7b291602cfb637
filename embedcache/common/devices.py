"""How a device is written, wherever one may be named: auto, cpu, cuda or cuda:N."""

from __future__ import annotations

import re
from typing import Any

from embedcache.errors import EmbedcacheError

DEVICE = re.compile(r"(auto|cpu|cuda)(?:(?<=cuda):(\d{1,4}))?")

SEVERAL = re.compile(r"cuda:all|cuda(:\d{1,4})?(,cuda(:\d{1,4})?)+")


def read_device(device: Any) -> tuple[str, int | None]:
    """The kind, "auto", "cpu" or "cuda", and the number of the GPU; None where none is written.

    Whether there is such a device is for each engine to find out.

    Raises:
        EmbedcacheError: it is written otherwise.
    """
    found = DEVICE.fullmatch(device) if isinstance(device, str) else None
    if isinstance(device, str) and SEVERAL.fullmatch(device):
        raise EmbedcacheError(f"device {device!r}: several GPUs are for extract; name one here, as cuda:N")
    if found is None:
        raise EmbedcacheError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    return found[1], None if found[2] is None else int(found[2])
