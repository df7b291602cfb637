"""Texts to token ids, cut to max_length as the model's own tokenizer cuts; of a long text only the start is read.

A start is enough where the tokens of a text up to a space are the first tokens of the whole text. So it is where words
become tokens each for itself: with BERT's splitting and WordPiece, and with GPT-2's splitting, which RoBERTa has, and
byte-level BPE. Their normalizers change characters without regard to what stands beyond a space, and so does the
search for added tokens, unless one of these holds a space. With any other tokenizer (SentencePiece's normalizer is a
table of strings), and where it is the end of a text that is kept, the whole text is read. If a start turns out to have
no more than max_length tokens, the whole text is read after all: no guess about the length of words is involved.

Where ``tokenizer_native`` understands a tokenizer it makes the tokens, the same ones; what it leaves, and every other
tokenizer, is Hugging Face's ``tokenizers`` library's work.
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

TOKENIZE_ROWS = 512  # texts tokenized at once: bounds the memory that the library's own records take
NATIVE_ROWS = 8192
WORTH_CHARACTERS = 20_000  # of texts so far; the native tokenizer takes longer to build than the library to read these
CHARACTERS_PER_TOKEN = 8  # of a start that is tried; English has less than 5


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, special tokens included, none longer than max_length; which rows were cut to fit.

    ``whole``: the tokens of each whole text, cut or not. Of a text of which only the start was read it is estimated
    from that start, by characters. ``unknown``: how many of ``rows`` are the tokenizer's "unknown" token.
    ``chunks``: where a text may have several rows, int64 [n + 1]: text i has rows chunks[i] to chunks[i + 1].
    """

    rows: TokenRows
    truncated: np.ndarray  # bool [n]
    whole: np.ndarray  # int64 [n]
    unknown: np.ndarray  # int64 [n]
    chunks: np.ndarray | None = None

    @property
    def ids(self) -> list[list[int]]:
        """The rows as lists."""
        return self.rows.lists()

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], tokens of each text that are read."""
        if self.chunks is None:
            return self.rows.lengths
        return np.diff(self.rows.offsets[self.chunks])

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
        """What makes the tokens of more than a few texts: "native" or "library"."""
        return "library" if self._native is None else "native"

    @property
    def made_by(self) -> str:
        """What has made the tokens so far, such as "native", or "library: too few texts for the native one"."""
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
            EmbedcacheError: one of them is not a valid string.
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
        """The rows of ``Tokens``; the tokens of what was read of each text; those of the whole text."""
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
        """Each text's ids, cut to max_length; int64 [n], how many there were before."""
        if self._few > 0:
            self._few -= sum(len(text) for text in texts if isinstance(text, str))
        if self._few > 0 or self._native is None:
            return self._encode_with_library(texts)
        try:
            rows, lengths = self._native.encode(texts)
        except (UnicodeEncodeError, AttributeError, TypeError):  # not a valid string: the library says so
            return self._encode_with_library(texts)
        left = np.flatnonzero(lengths < 0)
        if len(left):
            more, lengths[left] = self._encode_with_library([texts[i] for i in left])
            rows = rows.replaced(left, more)
        return rows, lengths

    def _encode_with_library(self, texts: list[str]) -> tuple[TokenRows, np.ndarray]:
        # _fast: without offsets into the text, which nothing here uses
        encode_batch = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        ids: list[list[int]] = []
        try:
            for start in range(0, len(texts), TOKENIZE_ROWS):
                ids += [encoding.ids for encoding in encode_batch(texts[start : start + TOKENIZE_ROWS])]
        except Exception as error:  # the library has no exception type of its own
            raise EmbedcacheError(
                f"a text cannot be tokenized ({error}): check that it is a valid string and tokenizer.json complete"
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
