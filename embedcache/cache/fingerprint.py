"""What makes two vectors of the same text comparable: a readable identity, its digest, and words for a difference.

The identity comes from the encoder and names content only (hashes of the weight and tokenizer files, max_length,
compute dtype), never a model's name. The store dtype and the format version are added here; pooling and layer for one
dataset; and for the vectors called ``model`` what makes them of the tokens' vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from embedcache.cache.layout import DIGEST_BYTES, FORMAT_VERSION, Output, canonical_json, version_of
from embedcache.common.outputs import poolings_in
from embedcache.encoder.poolings import MODEL


def fingerprint(encoder: Mapping[str, Any]) -> str:
    """Digest of an encoder description ``{"identity": {...}, "store": "float16", ...}``, 32 hex digits."""
    return _digest(_identity(encoder))


def output_fingerprint(encoder: Mapping[str, Any], output: Output) -> bytes:
    """The 16 bytes that stand for one dataset: what its vectors are made with, the pooling and the layer."""
    made = _identity(for_pooling(encoder, output[0]))
    return bytes.fromhex(_digest({**made, "pooling": output[0], "layer": output[1]}))


def states_fingerprint(encoder: Mapping[str, Any], layer: int) -> bytes:
    """The 16 bytes that stand for token states: what they are made with, and the layer, counted from the embeddings."""
    made = {**encoder["identity"], "store": "float16", "format_version": FORMAT_VERSION}
    return bytes.fromhex(_digest({**made, "tokens": layer}))


def for_pooling(encoder: Mapping[str, Any], *poolings: str) -> Mapping[str, Any]:
    """The parts of an encoder description that concern these poolings: ``model`` alone is made by its last part."""
    return encoder if MODEL in poolings_in(poolings) else {key: value for key, value in encoder.items() if key != MODEL}


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether vectors of two encoder descriptions can stand in one cache: in all that both say they agree."""
    both = [MODEL] if MODEL in one and MODEL in other else []
    return fingerprint(for_pooling(one, *both)) == fingerprint(for_pooling(other, *both))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two encoder descriptions, in words; empty when nothing does."""
    return "; ".join(_compare(_settings(old), _settings(new)))


def states_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two encoder descriptions as far as token states are concerned; empty when nothing does."""
    return "; ".join(_compare(old["identity"], new["identity"]))


def _identity(encoder: Mapping[str, Any]) -> dict[str, Any]:
    return {**_settings(encoder), "format_version": version_of(encoder["store"])}


def _settings(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen; the format's version follows from it."""
    model = {MODEL: encoder[MODEL]} if MODEL in encoder else {}
    return {**encoder["identity"], **model, "store": encoder["store"]}


def _digest(value: Any) -> str:
    return blake2b(canonical_json(value).encode(), digest_size=DIGEST_BYTES).hexdigest()


def _compare(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if old == new:
        return
    if {type(old), type(new)} <= {dict, type(None)}:  # the code of a model, which is there or not trusted now
        old, new = old or {}, new or {}
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _compare(old.get(key), new.get(key), f"{name} {key}".strip())
    elif _is_digest(old) or _is_digest(new):
        missing = " (not there now)" if new is None else " (not there before)" if old is None else ""
        yield f"{name} differs{missing}"
    else:
        yield f"{name} {_value(old)} in the cache, {_value(new)} asked"


def _is_digest(value: Any) -> bool:
    """Nobody compares hex digests by eye."""
    return isinstance(value, str) and len(value) >= 32 and all(c in "0123456789abcdef" for c in value)


def _value(value: Any) -> str:
    return "absent" if value is None else canonical_json(value) if isinstance(value, (list, dict)) else str(value)
