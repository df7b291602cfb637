"""What the encoder read of the texts, as facts of the data section."""

from __future__ import annotations

from typing import Any

from embedcache.common.reading import percent
from embedcache.report.blocks import count


def read_facts(reading: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the encoder read of the texts; runs of older versions do not say."""
    if not reading:
        return []
    in_chunks = reading.get("in_chunks", 0)  # else cut
    longer = f"{count(in_chunks or reading['truncated'])} of {count(reading['texts'])}"
    said = f"{longer} longer than {reading['max_length']:,} tokens"
    if in_chunks:
        said += ", read in chunks of that length; their vectors are the means of the chunks'"
    elif reading["counted"]:
        said += f"; {percent(reading['lost_share'])} of all tokens not read"
    pairs = [("Texts", said)]
    if reading["unknown"]:
        pairs.append(("Tokens unknown to the encoder", percent(reading["unknown_share"])))
    return pairs
