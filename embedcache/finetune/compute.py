"""In what the layers' products are computed."""

from __future__ import annotations

from embedcache.encoder.hardware import cpu_computes_bfloat16
from embedcache.errors import EmbedcacheError

COMPUTES = ("auto", "float32", "bfloat16")
FASTER = (
    "layers are computed in float32; this processor multiplies bfloat16 numbers faster: --compute bfloat16 trained "
    "lora, adapter and full 1.5 to 1.8 times as fast (docs/finetuning.md)"
)


def check_compute(compute: str) -> None:
    """Raises EmbedcacheError."""
    if compute not in COMPUTES:
        raise EmbedcacheError(f"--compute {compute}: layers are tuned in float32 or bfloat16")


def takes_bfloat16(compute: str, device: str) -> bool:
    """What torch multiplies in; weights, gradients and moments stay in float32."""
    return compute == "bfloat16" or (compute == "auto" and device.startswith("cuda"))


def faster_compute(compute: str, device: str) -> str | None:
    """What to say to one who tunes with torch on this CPU and did not choose; None where there is nothing to gain."""
    return FASTER if compute == "auto" and device == "cpu" and cpu_computes_bfloat16() else None
