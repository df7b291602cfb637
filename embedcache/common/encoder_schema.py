"""What the JSON on an encoder may hold: in a cache's attributes, a run, an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from embedcache.common.checked import SchemaError, conform, parse_json


class Identity(msgspec.Struct):
    """All that changes a vector; what is not named here is only compared."""

    max_length: Annotated[int, Meta(ge=1, le=2**31)] | UnsetType = UNSET
    compute_dtype: Literal["float32", "bfloat16", "float16", "int8"] | UnsetType = UNSET
    kept: list[Annotated[str, Meta(pattern=r"^\d{1,4} (qkv|output|up|down)$")]] | UnsetType = UNSET
    architecture: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    lower_case: bool | UnsetType = UNSET
    chunk: bool | UnsetType = UNSET
    task: str | UnsetType = UNSET
    imported: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET


class PrescribedFields(msgspec.Struct):
    """How the vectors called ``model`` are made of the tokens' ones; what is not named here is only compared."""

    pooling: Annotated[list[str], Meta(min_length=1)]
    steps: list[dict[str, Any]]
    dims: Annotated[int, Meta(ge=1, le=2**31)] | UnsetType = UNSET


class Encoder(msgspec.Struct):
    """Where the encoder was, what it was, and as what its vectors are stored."""

    source: str
    identity: Identity
    store: Literal["float16", "float32", "int8"]
    model: PrescribedFields | UnsetType = UNSET


def imported_name(encoder: Mapping[str, Any]) -> str | None:
    """What vectors that were imported are known by, of an encoder description; None: an encoder made them here."""
    if encoder["identity"].get("imported") is None:
        return None
    return str(encoder["source"])


def parse_encoder(text: str) -> dict[str, Any] | None:
    """The encoder description, if that is what the text holds."""
    try:
        encoder: dict[str, Any] = parse_json(text)
        conform(encoder, Encoder)
    except SchemaError:
        return None
    return encoder
