"""A frozen pretrained encoder: texts to tokens to vectors. Importing this costs neither torch nor transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedcache.encoder.folder import identify

if TYPE_CHECKING:
    from embedcache.encoder.encoder import Encoder, Tokens

__all__ = ["Encoder", "Tokens", "identify"]


def __getattr__(name: str) -> Any:
    if name not in ("Encoder", "Tokens"):
        raise AttributeError(f"module 'embedcache.encoder' has no attribute {name!r}")
    from embedcache.encoder import encoder

    return getattr(encoder, name)
