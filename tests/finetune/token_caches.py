"""Caches with token states, written from what transformers itself computes; and states that stand in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedcache.cache import open_cache
from embedcache.cache.state_files import StatesAbout
from embedcache.cache.state_writer import StateWriter, make_states, place_texts
from embedcache.encoder import Encoder
from tests.conftest import document, make_reviews, write_csv


class StatesInMemory:
    """As TokenStates, of any dtype."""

    def __init__(self, rows: list[np.ndarray], layers: int, layer: int) -> None:
        self.rows, self.layers, self.layer = rows, layers, layer
        self.lengths = np.array([len(row) for row in rows])

    def take(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        some = [self.rows[int(row)] for row in rows]
        return np.concatenate(some), np.cumsum([0, *map(len, some)])


@torch.no_grad()
def hidden_states(encoder: Encoder, texts: list[str], layer: int) -> list[np.ndarray]:
    """float32 [tokens, D] of each text, before the layer behind that one; alone, so without padding."""
    found = []
    for ids in encoder.tokenize(texts).rows:
        out = encoder.model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True)
        found.append(out.hidden_states[layer][0].numpy())
    return found


def write_states(cache: Path, model: Path, layers: int) -> None:
    """The states that the last layers read, beside a cache."""
    with open_cache(cache) as opened:
        length = opened.encoder["identity"]["max_length"]
        encoder = Encoder.load(model, dtype="float32", max_length=length, device="cpu")
        different = np.unique(opened.hashes, axis=0, return_index=True)[1]
        different.sort()
        texts = [opened.texts[int(row)] for row in different]
        rows = [row.astype(np.float16) for row in hidden_states(encoder, texts, encoder.layers - layers)]
        about = StatesAbout(opened.encoder, layers, encoder.layers - layers, encoder.dim)
        lengths = np.array([len(row) for row in rows])
        begins = place_texts(lengths, different, 0, about.token_bytes)
        make_states(cache, about, opened.hashes[different], np.stack([begins, lengths], axis=1))
    with StateWriter(cache) as writer:
        writer.commit(np.arange(len(rows)), [writer.put(i, row) for i, row in enumerate(rows)])


def make_token_cache(folder: Path, model: Path, layers: int = 2, n: int = 240, pooling: str = "cls,mean") -> Path:
    """reviews.h5 with these vectors, its states, and columns label, film, and as labels tags (lists) and score."""
    import json

    rows = []
    for i, (text, label) in enumerate(make_reviews(n)):
        tags = [tag for tag, there in (("good", label == "positive"), ("long", len(text) > 100)) if there]
        rows.append((text, label, f"film {i // 4}", json.dumps(tags), f"{len(text) / 10:.1f}"))
    write_csv(folder / "reviews.csv", rows, ("text", "label", "film", "tags", "score"))
    document(
        "extract", folder / "reviews.csv", "-o", folder / "reviews.h5", "--model", model, "--dtype", "float32",
        "--label", "label,tags", "--keep", "film,score", "--pooling", pooling, "--max-length", 64,
    )  # fmt: skip
    write_states(folder / "reviews.h5", model, layers)
    return folder / "reviews.h5"
