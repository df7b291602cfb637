"""Split a text of more tokens than the encoder reads into chunks. Each is encoded as a text; the result is their mean.

A chunk is a piece of the text itself, so it has the tokens, special tokens and prompt that a text of these words has.
All chunks of a text have about the same length. The text is cut after a sentence where one ends in the second half of a
chunk, else between words, else between tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embedcache.encoder.token_rows import row_offsets, scattered
from embedcache.encoder.tokenizer import Tokens

Offsets = Sequence[tuple[int, int]]  # where each token of a text begins and ends, in characters

SENTENCE_ENDS = frozenset(".!?\u3002\uff01\uff1f\u0964\u06d4")  # Latin, Chinese and Japanese, Hindi, Urdu


def in_chunks(
    texts: Sequence[str],
    tokens: Tokens,
    max_length: int,
    tokenize: Callable[[list[str]], Tokens],
    offsets_in: Callable[[str], Offsets],
) -> Tokens:
    """Give each truncated text a row for each of its chunks, so that no text is truncated any more.

    Args:
        texts: n of them.
        tokens: their tokens, as ``tokenize`` returns them.
        max_length: the most tokens of a row, special tokens and prompt included.
        tokenize: texts to tokens, with the prompt before each.
        offsets_in: the token offsets in a text.
    """
    # 1. Cut every long text into pieces. At its ends a piece may have more tokens than the whole text has there, so
    #    pieces that are too long are cut again.
    around = int(tokenize([""]).whole[0])
    room, long = max(1, max_length - around), np.flatnonzero(tokens.truncated)
    pieces = [(i, piece) for i in long.tolist() for piece in split_text(texts[i], offsets_in(texts[i]), room)]
    found = tokenize([piece for _, piece in pieces])
    while found.truncated.any() and room > 1:
        room = max(1, 3 * room // 4)
        pieces = [
            (i, part)
            for (i, piece), cut in zip(pieces, found.truncated, strict=True)
            for part in (split_text(piece, offsets_in(piece), room) if cut else [piece])
        ]
        found = tokenize([piece for _, piece in pieces])
    # 2. Put all rows into the order of their texts.
    owners = np.fromiter((i for i, _ in pieces), np.int64, len(pieces))
    short = np.flatnonzero(~tokens.truncated)
    order = np.argsort(np.concatenate([short, owners]), kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    parts = [(places[: len(short)], tokens.rows.take(short)), (places[len(short) :], found.rows)]
    chunks = row_offsets(np.bincount(np.concatenate([short, owners]), minlength=len(texts)))
    # 3. Count the tokens of each text. Special tokens and prompt, which every chunk has, count once.
    whole, unknown = tokens.whole.copy(), tokens.unknown.copy()
    whole[long], unknown[long] = around, 0
    np.add.at(whole, owners, found.whole - around)
    np.add.at(unknown, owners, found.unknown)
    return Tokens(scattered(len(order), parts), np.zeros(len(texts), np.bool_), whole, unknown, chunks)


def split_text(text: str, offsets: Offsets, room: int) -> list[str]:
    """Split a text into as few pieces of up to ``room`` tokens as possible, without white space around them.

    Args:
        text: the text.
        offsets: where each of its tokens begins and ends, in characters.
        room: the most tokens of a piece, 1 or more.

    Returns:
        The pieces, at least one.
    """
    pieces, first, begun = [], 0, 0
    while len(offsets) - first > room:
        left = len(offsets) - first
        next_ = _cut(text, offsets, first, first + -(-left // -(-left // room)), first + room)
        end = offsets[next_][0]
        pieces.append(text[begun:end].strip())
        first, begun = next_, end
    pieces.append(text[begun:].strip())
    return [piece for piece in pieces if piece] or [""]


def _cut(text: str, offsets: Offsets, first: int, ideal: int, last: int) -> int:
    """The token before which to cut: near ``ideal``, not in the first half of the chunk, and not after ``last``."""
    between_words = None
    for token in sorted(range(first + (ideal - first) // 2 + 1, last + 1), key=lambda token: abs(token - ideal)):
        begin = end = offsets[token][0]
        while end and text[end - 1].isspace():
            end -= 1
        if end == begin and not text[begin : begin + 1].isspace():
            continue  # within a word, or before its punctuation
        if text[end - 1 : end] in SENTENCE_ENDS:
            return token
        between_words = between_words or token
    if between_words:
        return between_words
    while ideal > first + 1 and offsets[ideal][0] < offsets[ideal - 1][1]:
        ideal -= 1  # two tokens of one character stay together
    return ideal


def mean_of_chunks(vectors: np.ndarray, chunks: np.ndarray, tokens: np.ndarray, unit_length: bool) -> np.ndarray:
    """The vector of each text: the mean of its chunks' vectors, weighted by their number of tokens.

    A text of one chunk keeps its vector to the bit.

    Args:
        vectors: float32 [m, D], of all chunks.
        chunks: int64 [n + 1], where each text's chunks begin, and m.
        tokens: int64 [m], the number in each chunk.
        unit_length: whether the vectors have unit length, so that the means must have it, too.

    Returns:
        float32 [n, D].
    """
    found = vectors[chunks[:-1]]
    for text in np.flatnonzero(np.diff(chunks) > 1):
        some = slice(chunks[text], chunks[text + 1])
        weights = tokens[some] / tokens[some].sum()
        mean = (weights[:, None] * vectors[some]).sum(axis=0)  # float64, in this order
        found[text] = mean / max(float(np.linalg.norm(mean)), 1e-12) if unit_length else mean
    return found


def whole_texts(chunks: np.ndarray, tell: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
    """Turn ``tell``, which takes texts, into a function of rows: it tells of a text once all its chunks are done."""
    owners, left = np.repeat(np.arange(len(chunks) - 1), np.diff(chunks)), np.diff(chunks)

    def told(rows: np.ndarray) -> None:
        np.subtract.at(left, owners[rows], 1)
        texts = np.unique(owners[rows])
        tell(texts[left[texts] == 0])

    return told
