"""Texts to token ids, truncated to max_length as the model's own tokenizer does; of long texts only the start is read.

A start is enough where the tokens of a text up to a space are the first tokens of the whole text. That holds where each
word becomes tokens by itself: with BERT's splitting and WordPiece, and with GPT-2's splitting (RoBERTa's, too) and
byte-level BPE. Their normalizers do not look beyond a space, nor does the search for added tokens, unless an added
token contains a space. With any other tokenizer (SentencePiece's normalizer is a table of strings), and where
truncation keeps the end of a text, the whole text is read. It is also read where a start turns out to have no more than
max_length tokens, so nothing depends on a guess about the length of words.

``tokenizer_native`` makes the same tokens for the tokenizers that it understands. Hugging Face's ``tokenizers`` library
handles all other tokenizers, and the texts that the native one leaves to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from embedcache.encoder.token_rows import TokenRows
from embedcache.encoder.tokenizer_native import NativeTokenizer, native_tokenizer
from embedcache.errors import EmbedcacheError

TOKENIZE_ROWS = 512  # texts per call of the library: bounds the memory of its records
NATIVE_ROWS = 8192  # texts per call of the native tokenizer
WORTH_CHARACTERS = 20_000  # the library reads this much text in less time than the native tokenizer takes to build
CHARACTERS_PER_TOKEN = 8  # of the start to read; English has fewer than 5


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts.

    Attributes:
        rows: the ids of each text, special tokens included, at most max_length of them.
        truncated: bool [n], whether the text was longer.
        whole: int64 [n], the tokens of the whole text. Where only the start was read, it is estimated from the start by
            the number of characters.
        unknown: int64 [n], how many ids in ``rows`` are the tokenizer's "unknown" token.
        chunks: int64 [n + 1] where a text may have several rows: text i has the rows chunks[i] to chunks[i + 1].
    """

    rows: TokenRows
    truncated: np.ndarray
    whole: np.ndarray
    unknown: np.ndarray
    chunks: np.ndarray | None = None

    @property
    def ids(self) -> list[list[int]]:
        """The rows as lists."""
        return self.rows.lists()

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each text that are read, int64 [n]."""
        if self.chunks is None:
            return self.rows.lengths
        return np.diff(self.rows.offsets[self.chunks])

    @property
    def counts(self) -> np.ndarray:
        """``whole`` and ``unknown`` as a cache stores them: int32 [n, 2]."""
        return np.stack([self.whole, self.unknown], axis=1).astype(np.int32)


class TextTokenizer:
    """Tokenizes by a tokenizers.Tokenizer, or by the native code that makes the same tokens.

    The tokenizer's own truncation is switched off, so that its tokens show whether a text is too long.

    Attributes:
        first: whether it puts a token before the text.
    """

    def __init__(
        self, backend: Any, max_length: int, truncation_side: str = "right", unknown: int | None = None
    ) -> None:
        """``unknown``: the id of the token for what the vocabulary does not have; None where there is none."""
        self._max_length, self._backend, self._unknown = max_length, backend, unknown
        self._backend.no_truncation()
        self._backend.no_padding()
        special = self._backend.encode("a").special_tokens_mask
        self.first: bool = special[:1] == [1]
        self._prefix = special.index(0) if 0 in special else len(special)
        self._suffix = special[::-1].index(0) if 0 in special else 0
        self._left = truncation_side == "left"
        self._starts = not self._left and splits_at_spaces(self._backend)
        self._few, self._why = WORTH_CHARACTERS, ""

    @cached_property
    def _native(self) -> NativeTokenizer | None:
        try:
            return native_tokenizer(self._backend, self._max_length, self._left, self._prefix, self._suffix)
        except EmbedcacheError as error:
            self._why = str(error)
            return None

    @property
    def kind(self) -> str:
        """Which code tokenizes more than a few texts: "native" or "library"."""
        return "library" if self._native is None else "native"

    @property
    def made_by(self) -> str:
        """Which code has tokenized so far: "native", or "library: " and why, such as too few texts."""
        if self._few > 0:
            return "library: too few texts for the native one"
        return f"library: {self._why}" if self._native is None else "native"

    @property
    def special(self) -> int:
        """How many special tokens a text has around it."""
        return self._prefix + self._suffix

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of the whole text, special ones left out, begins and ends in it, in characters."""
        offsets: list[tuple[int, int]] = self._backend.encode(text, add_special_tokens=False).offsets
        return offsets

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text.

        Raises:
            EmbedcacheError: a text is not a valid string.
        """
        parts: list[TokenRows] = []
        read, whole = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(texts), NATIVE_ROWS):
            rows, lengths, estimated = self._tokenize(list(texts[start : start + NATIVE_ROWS]))
            parts.append(rows)
            read.append(lengths)
            whole.append(estimated)
        together = TokenRows.joined(parts)
        unknown = np.zeros(len(texts), np.int64) if self._unknown is None else together.count(self._unknown)
        return Tokens(together, np.concatenate(read) > self._max_length, np.concatenate(whole), unknown)

    def _tokenize(self, texts: list[str]) -> tuple[TokenRows, np.ndarray, np.ndarray]:
        """(rows, int64 [n] tokens in the part that was read, int64 [n] tokens in the whole text)."""
        if not self._starts or not all(isinstance(text, str) for text in texts):
            rows, lengths = self._encode(texts)
            return rows, lengths, lengths
        starts = [start_of(text, self._max_length * CHARACTERS_PER_TOKEN) for text in texts]
        rows, lengths = self._encode(
            [text if end is None else text[:end] for text, end in zip(texts, starts, strict=True)]
        )
        short = [i for i, end in enumerate(starts) if end is not None and lengths[i] <= self._max_length]
        if short:
            again, lengths[short] = self._encode([texts[i] for i in short])
            rows = rows.replaced(np.array(short), again)
            for i in short:
                starts[i] = None
        special, whole = self.special, lengths.copy()
        for i, end in enumerate(starts):
            if end is not None:
                whole[i] = special + round((int(lengths[i]) - special) * len(texts[i]) / end)
        return rows, lengths, whole

    def _encode(self, texts: list[str]) -> tuple[TokenRows, np.ndarray]:
        """(ids of each text, truncated to max_length; int64 [n], the number before truncation)."""
        if self._few > 0:
            self._few -= sum(len(text) for text in texts if isinstance(text, str))
        if self._few > 0 or self._native is None:
            return self._encode_with_library(texts)
        try:
            rows, lengths = self._native.encode(texts)
        except (UnicodeEncodeError, AttributeError, TypeError):  # not a valid string: the library's error explains it
            return self._encode_with_library(texts)
        left = np.flatnonzero(lengths < 0)
        if len(left):
            more, lengths[left] = self._encode_with_library([texts[i] for i in left])
            rows = rows.replaced(left, more)
        return rows, lengths

    def _encode_with_library(self, texts: list[str]) -> tuple[TokenRows, np.ndarray]:
        # _fast leaves out offsets into the text, which nothing here uses.
        encode_batch = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        ids: list[list[int]] = []
        try:
            for start in range(0, len(texts), TOKENIZE_ROWS):
                ids += [encoding.ids for encoding in encode_batch(texts[start : start + TOKENIZE_ROWS])]
        except Exception as error:  # the library has no exception type of its own
            raise EmbedcacheError(
                f"a text cannot be tokenized ({error}): check that it is a valid string and tokenizer.json is complete"
            ) from error
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return TokenRows.of([row if len(row) <= self._max_length else self._cut(row) for row in ids]), lengths

    def _cut(self, row: list[int]) -> list[int]:
        suffix = row[len(row) - self._suffix :]
        if self._left:
            body = row[self._prefix : len(row) - self._suffix]
            return row[: self._prefix] + body[-(self._max_length - self._prefix - self._suffix) :] + suffix
        return row[: self._max_length - self._suffix] + suffix


def splits_at_spaces(backend: Any) -> bool:
    """Whether the tokens of ``text[:start_of(text, n)]`` are the first tokens of ``text`` for every text and n."""
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
    """Where to cut a text of more than ``limit`` characters: before the last space up to there, or run of white space.

    None for a shorter text, and for one without such a space.
    """
    if len(text) <= limit:
        return None
    end = text.rfind(" ", 1, limit)
    while end > 0 and text[end - 1].isspace():
        end = text.rfind(" ", 1, end)
    return end if end > 0 else None
