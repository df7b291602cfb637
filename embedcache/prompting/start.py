"""What the names of classes alone say of a cache's rows: where labelling begins from nothing."""

from __future__ import annotations

import numpy as np

from embedcache.cache import Cache
from embedcache.encoder import Encoder
from embedcache.prompting.labels import NamedLabels, read_labels
from embedcache.prompting.method import AskedPrompt, softmax
from embedcache.prompting.methods.similarity import Similarity

PART = 8192  # rows at a time


def start_probabilities(
    cache: Cache,
    labels: NamedLabels,
    pooling: str | None = None,
    device: str = "auto",
    encoder: Encoder | None = None,
) -> tuple[list[str], np.ndarray]:
    """The names of the classes, and the probabilities float32 [N, C] of every row by zero-shot similarity.

    Args:
        cache: The cache, whose encoder reads the names; no text is encoded.
        labels: As zero_shot's.
        pooling: Which vectors; None is as the cache prefers.
        device: Where the encoder computes.
        encoder: That of the cache, where it is loaded already.

    Raises:
        EmbedcacheError: The labels do not suit, or the encoder cannot be loaded.
    """
    asked = AskedPrompt(
        str(cache.encoder["source"]), read_labels(labels), pooling=pooling, device=device, cache=cache, encoder=encoder
    )
    method = Similarity(asked)
    found = np.empty((cache.rows, len(method.labels)), np.float32)
    for start in range(0, cache.rows, PART):
        rows = np.arange(start, min(start + PART, cache.rows))
        found[rows] = softmax(method.scores_of(cache, rows))
    return [one.name for one in method.labels], found
