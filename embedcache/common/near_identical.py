"""Texts that differ in next to nothing: case, punctuation, blanks, a word in a long one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

SHINGLE = 5  # characters
RESEMBLANCE = 0.8


class NearIdentical:
    """Finds the texts that resemble none before them.

    Two are near-identical where they are the same but for case, punctuation and blanks, or where the sets of their
    runs of 5 characters have a Jaccard similarity of 0.8 (the resemblance of Broder, "On the resemblance and
    containment of documents", 1997).
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._kept: list[tuple[str, frozenset[str]]] = []
        for text in texts:
            self.is_new(text)

    def is_new(self, text: str) -> bool:
        """Whether it is like none that was new before; then it is remembered."""
        plain = normalised(text)
        pieces = shingles(plain)
        if any(plain == other or resemble(pieces, others, RESEMBLANCE) for other, others in self._kept):
            return False
        self._kept.append((plain, pieces))
        return True


def normalised(text: str) -> str:
    """Letters and digits of any script in lower case, single blanks between; a text without any stays as it is."""
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text.strip()


def shingles(text: str) -> frozenset[str]:
    """Its runs of 5 characters; of a shorter text the whole."""
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def resemble(one: frozenset[str], other: frozenset[str], least: float) -> bool:
    """Whether the Jaccard similarity of two sets of shingles is ``least`` or more."""
    # The smaller set over the larger bounds their similarity: most pairs need no intersection.
    small, large = sorted((len(one), len(other)))
    if small < least * large:
        return False
    shared = len(one & other)
    return shared >= least * (small + large - shared)
