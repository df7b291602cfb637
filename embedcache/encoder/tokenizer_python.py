"""Tokenizers that transformers has in Python only, such as BERTweet's and MeCab's: the same tokens, but slow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.encoder.token_rows import TokenRows
from embedcache.encoder.tokenizer import Tokens
from embedcache.errors import EmbedcacheError


class PythonTokenizer:
    """The counterpart of ``TextTokenizer`` for a transformers tokenizer without a fast version.

    Attributes:
        special: the number of special tokens around a text.
        first: whether there is one before it.
        made_by: which code tokenizes, see ``TextTokenizer.made_by``.
    """

    made_by = "library: in Python, it has no fast version"

    def __init__(self, tokenizer: Any, max_length: int, lower_case: bool = False) -> None:
        self._tokenizer, self._max_length, self._lower_case = tokenizer, max_length, lower_case
        self.special: int = tokenizer.num_special_tokens_to_add()
        self.first: bool = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"][:1] == [1]

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text.

        Raises:
            EmbedcacheError: a text is not a valid string, or the tokenizer's own code fails.
        """
        whole = np.zeros(len(texts), np.int64)
        rows = []
        for i, text in enumerate(texts):
            row = self._encode(text)
            whole[i] = len(row)
            rows.append(row if len(row) <= self._max_length else self._encode(text, self._max_length))
        together, unknown = TokenRows.of(rows), self._tokenizer.unk_token_id
        return Tokens(
            together,
            whole > self._max_length,
            whole,
            np.zeros(len(texts), np.int64) if unknown is None else together.count(unknown),
        )

    def _encode(self, text: str, max_length: int | None = None) -> list[int]:
        """The ids of a text, truncated to ``max_length`` unless that is None."""
        try:
            found = self._tokenizer(
                text.lower() if self._lower_case else text,
                truncation=max_length is not None,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
        except Exception as error:  # a tokenizer's own code raises anything
            raise EmbedcacheError(f"a text cannot be tokenized ({error}): check that it is a valid string") from error
        ids: list[int] = found["input_ids"]
        return ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Always raises EmbedcacheError: a tokenizer in Python does not report where a text's tokens are."""
        raise EmbedcacheError("--chunk needs a tokenizer with a fast version (tokenizer.json), which this model lacks")
