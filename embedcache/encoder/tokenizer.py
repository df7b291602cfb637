"""Texts to token ids, cut to max_length as the model's own tokenizer cuts; of a long text only the start is read.

A start is enough where the tokens of a text up to a space are the first tokens of the whole text. So it is where words
become tokens each for itself: with BERT's splitting and WordPiece, and with GPT-2's splitting, which RoBERTa has, and
byte-level BPE. Their normalizers change characters without regard to what stands beyond a space, and so does the
search for added tokens, unless one of these holds a space. With any other tokenizer (SentencePiece's normalizer is a
table of strings), and where it is the end of a text that is kept, the whole text is read. If a start turns out to have
no more than max_length tokens, the whole text is read after all: no guess about the length of words is involved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError

TOKENIZE_ROWS = 512  # texts tokenized at once: bounds the memory that the tokenizer's own records take
CHARACTERS_PER_TOKEN = 8  # of a start that is tried; English has less than 5


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, special tokens included, none longer than max_length; which rows were cut to fit.

    ``whole``: the tokens of each whole text, cut or not. Of a text of which only the start was read it is estimated
    from that start, by characters. ``unknown``: how many of ``ids`` are the tokenizer's "unknown" token.
    """

    ids: list[list[int]]
    truncated: np.ndarray  # bool [n]
    whole: np.ndarray  # int64 [n]
    unknown: np.ndarray  # int64 [n]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], tokens of each row after truncation."""
        return np.fromiter(map(len, self.ids), dtype=np.int64, count=len(self.ids))

    @property
    def counts(self) -> np.ndarray:
        """int32 [n, 2]: ``whole`` and ``unknown``, as a cache keeps them."""
        return np.stack([self.whole, self.unknown], axis=1).astype(np.int32)


class TextTokenizer:
    """A tokenizers.Tokenizer, without its own truncation, so that it shows whether a text is too long.

    ``unknown``: the id of the token that stands for what the vocabulary does not have; None where there is none.
    """

    def __init__(
        self, backend: Any, max_length: int, truncation_side: str = "right", unknown: int | None = None
    ) -> None:
        self._max_length, self._backend, self._unknown = max_length, backend, unknown
        self._backend.no_truncation()
        self._backend.no_padding()
        special = self._backend.encode("a").special_tokens_mask
        self._prefix = special.index(0) if 0 in special else len(special)
        self._suffix = special[::-1].index(0) if 0 in special else 0
        self._left = truncation_side == "left"
        self._starts = not self._left and splits_at_spaces(self._backend)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text.

        Raises:
            EmbedcacheError: one of them is not a valid string.
        """
        ids: list[list[int]] = []
        whole: list[int] = []
        for start in range(0, len(texts), TOKENIZE_ROWS):
            some, lengths = self._tokenize(list(texts[start : start + TOKENIZE_ROWS]))
            ids += some
            whole += lengths
        truncated = np.fromiter((len(row) > self._max_length for row in ids), dtype=np.bool_, count=len(ids))
        for i in np.flatnonzero(truncated):
            ids[i] = self._cut(ids[i])
        unknown = np.zeros(len(ids), np.int64)
        if self._unknown is not None:
            unknown[:] = [row.count(self._unknown) for row in ids]
        return Tokens(ids, truncated, np.array(whole, np.int64), unknown)

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], list[int]]:
        """All tokens of each text, or more than max_length of the first ones; and how many it has in all."""
        if not self._starts or not all(isinstance(text, str) for text in texts):
            ids = self._encode(texts)
            return ids, list(map(len, ids))
        starts = [start_of(text, self._max_length * CHARACTERS_PER_TOKEN) for text in texts]
        ids = self._encode([text if end is None else text[:end] for text, end in zip(texts, starts, strict=True)])
        short = [i for i, end in enumerate(starts) if end is not None and len(ids[i]) <= self._max_length]
        for i, row in zip(short, self._encode([texts[i] for i in short]), strict=True):
            ids[i], starts[i] = row, None
        special = self._prefix + self._suffix
        return ids, [
            len(row) if end is None else special + round((len(row) - special) * len(text) / end)
            for text, row, end in zip(texts, ids, starts, strict=True)
        ]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # _fast: without offsets into the text, which nothing here uses
        encode_batch = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        try:
            return [encoding.ids for encoding in encode_batch(texts)]
        except Exception as error:  # the library has no exception type of its own
            raise EmbedcacheError(
                f"a text cannot be tokenized ({error}): check that it is a valid string and tokenizer.json complete"
            ) from error

    def _cut(self, row: list[int]) -> list[int]:
        suffix = row[len(row) - self._suffix :]
        if self._left:
            body = row[self._prefix : len(row) - self._suffix]
            return row[: self._prefix] + body[-(self._max_length - self._prefix - self._suffix) :] + suffix
        return row[: self._max_length - self._suffix] + suffix


def splits_at_spaces(backend: Any) -> bool:
    """Whether the tokens of ``text[:start_of(text, n)]`` are the first tokens of ``text``, for any text and n."""
    normalizer, splitter, model = backend.normalizer, backend.pre_tokenizer, backend.model
    kinds = tuple(type(part).__name__ for part in (normalizer, splitter, model))
    known = kinds == ("BertNormalizer", "BertPreTokenizer", "WordPiece") or (
        kinds == ("NoneType", "ByteLevel", "BPE") and splitter.use_regex and not model.dropout
    )
    # BERT's normalizer puts spaces around Chinese characters, in added tokens too.
    return known and all(
        not any(map(str.isspace, token.content)) and (token.content.isascii() or not token.normalized)
        for token in backend.get_added_tokens_decoder().values()
    )


def start_of(text: str, limit: int) -> int | None:
    """Where to cut a text of over ``limit`` characters: before the last space up to there that follows no other.

    None for a shorter text, and one without such a space.
    """
    if len(text) <= limit:
        return None
    end = text.rfind(" ", 1, limit)
    while end > 0 and text[end - 1].isspace():
        end = text.rfind(" ", 1, end)
    return end if end > 0 else None
