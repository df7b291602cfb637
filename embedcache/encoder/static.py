"""Static models: a table of token vectors; a text's vector is their mean. No torch, no transformers.

These are sentence-transformers' StaticEmbedding, and model2vec, whose table may be smaller (a mapping lets several
tokens share a row) and weighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from embedcache.common.tensors import load_float32
from embedcache.encoder.at_once import cpu_threads
from embedcache.encoder.token_rows import TokenRows
from embedcache.encoder.tokenizer import TextTokenizer
from embedcache.errors import EmbedcacheError


class Static:
    """A static model and its tokenizer; the attributes are those of ``load_without_torch.Direct``."""

    def __init__(self, table: np.ndarray, backend: Any, max_length: int, left: bool) -> None:
        """``table``: float32 [V, D], a row per token. ``left``: whether a long text loses its start, not its end."""
        unknown = getattr(backend.model, "unk_token", None)
        number = backend.token_to_id(unknown) if isinstance(unknown, str) else None
        self.runner = StaticRunner(table)
        self.tokenize = TextTokenizer(backend, max_length, "left" if left else "right", number)
        self.dim, self.layers, self.widths = table.shape[1], 0, [table.shape[1]]
        self.first, self.uncounted, self.threads = False, None, cpu_threads()

    def certain(self, text: Any) -> bool:
        """Always: there is no other tokenizer to agree with."""
        return True


class StaticRunner:
    """The runner of static models (see ``runner``): a gather and a sum, row by row."""

    kernel = "static"
    invariant = True
    causal = False
    batch_tokens: int | None = 1 << 16  # large, because a token is little work

    def __init__(self, table: np.ndarray) -> None:
        self._table = table

    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """float32 [n, D] for each output; every output is the mean."""
        from scipy.sparse import csr_matrix

        rows = TokenRows.of(ids)
        # The product of a sparse matrix of ones with the table adds each row's vectors, one token after another.
        ones = np.ones(len(rows.flat), np.float32)
        counts = csr_matrix((ones, rows.flat, rows.offsets), shape=(len(rows), len(self._table)))
        vectors = counts @ self._table
        vectors /= np.maximum(rows.lengths, 1).astype(np.float32)[:, None]
        return [vectors for _ in outputs]


def load_static(folder: Path, name: str, max_length: int) -> Static:
    """Load the static model in a complete folder.

    Args:
        folder: with the model's files.
        name: of the model, for messages.
        max_length: the most tokens of a text.

    Raises:
        EmbedcacheError: it is damaged, or its tokenizer belongs to another model.
    """
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library has no exception type of its own
        raise EmbedcacheError(f"{name}: tokenizer.json cannot be read ({error}): copy the model again") from error
    truncation = backend.truncation or {}
    backend.post_processor = None  # static models do not use special tokens
    table = _table(folder / "model.safetensors", name)
    most = max(backend.get_vocab().values(), default=0)
    if most >= len(table):
        raise EmbedcacheError(
            f"{name}: the tokenizer has ids up to {most}, the weights only {len(table)} embeddings: they do not belong "
            "together; copy the model again"
        )
    return Static(table, backend, max_length, truncation.get("direction") == "left")


def _table(path: Path, name: str) -> np.ndarray:
    """The table of a weights file, float32 [V, D]."""
    weights = load_float32(path, name)
    table = weights.get("embedding.weight", weights.get("embeddings"))
    if table is None or table.ndim != 2:
        raise EmbedcacheError(f"{name}: {path.name} holds no table of vectors: copy the model again")
    try:
        if "mapping" in weights:
            table = table[weights["mapping"].astype(np.int64)]
        if "weights" in weights:
            table = table * weights["weights"][:, None]
    except (IndexError, ValueError) as error:
        raise EmbedcacheError(f"{name}: the parts of {path.name} do not fit together: copy the model again") from error
    return np.ascontiguousarray(table, np.float32)


def no_model(name: str) -> NoReturn:
    """In place of what transformers would load of a static model. Raises EmbedcacheError."""
    raise EmbedcacheError(f"{name} is a static model, a table of tokens' vectors, which transformers does not load")
