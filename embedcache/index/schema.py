"""What the footer of an index may hold."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from embedcache.common.checked import Count, Number, Share
from embedcache.common.encoder_schema import Encoder

Rows = Annotated[int, Meta(ge=1, le=2**48)]
Parameter = Annotated[int, Meta(ge=0, le=2**31)] | Annotated[float, Meta(ge=0, le=2**31)] | str | bool | None


class Footer(msgspec.Struct):
    """file_format.About, and where each section lies: [start, bytes, digest]."""

    format_version: int
    kind: Annotated[str, Meta(min_length=1, max_length=100)]  # build.restored looks it up
    rows: Rows
    dim: Annotated[int, Meta(ge=1, le=2**24)]
    pooling: Annotated[str, Meta(min_length=1)]
    layer: Annotated[int, Meta(ge=-10_000, le=10_000)]
    center: bool
    encoder: Encoder | None
    cache: str | None
    fingerprint: str | None
    digest: str | None
    trained_rows: Count
    asked: Share
    measured: Share
    held_out: Count
    parameters: dict[str, Parameter]
    seconds: Number
    sections: dict[str, tuple[Count, Count, str]]
