"""Examples for a row's prompt: the nearest rows of its cache whose label is known."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.strings import first_rows
from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex
from embedcache.index.file_format import rows_digest


class Examples:
    """The k nearest labelled rows of each row: never the row itself, nor one with the same text.

    Of rows with one text, the first labelled one stands for all.
    """

    def __init__(self, cache: Cache, label: str, names: Sequence[str], k: int) -> None:
        """Raises EmbedcacheError where the cache has no such label column, or no row with one of the names."""
        self._cache, self.k = cache, k
        if cache.holds_lists(label):
            raise EmbedcacheError(f"column {label!r} of {cache.path} holds lists: examples need one label a row")
        codes, classes = cache.labels(label)
        number = {name: i for i, name in enumerate(names)}
        of_class = np.array([number.get(name, -1) for name in classes] + [-1], np.int64)
        self._labels = of_class[np.asarray(codes)]  # int64 [N], -1 for none of the names
        known = np.flatnonzero(self._labels >= 0)
        if not len(known):
            raise EmbedcacheError(f"no row of {cache.path} has one of these labels in column {label!r}: use no --shots")
        text = first_rows(cache.hashes)  # int [N]: the first row with each row's text
        texts, first = np.unique(text[known], return_index=True)
        self._among = np.zeros(cache.rows, bool)
        self._among[known[first]] = True
        stands = np.full(cache.rows, -1, np.int64)
        stands[texts] = known[first]
        self._own = stands[text]  # int64 [N]: the row that stands for the own text, -1 where none is labelled
        self._vectors = cache.embeddings()
        self._index = SearchIndex.from_vectors(self._vectors, kind="exact")

    def key(self) -> str:
        """What decides the examples."""
        digest = blake2b(digest_size=16)
        digest.update(np.ascontiguousarray(self._labels).data)
        vectors = rows_digest(self._cache, self._cache.preferred(), -1, self._cache.rows)
        return f"{digest.hexdigest()} {vectors} {self.k}"

    def of(self, rows: np.ndarray) -> list[list[tuple[str, int]]]:
        """Of rows int64 [n]: texts and numbers of labels, the most similar last, next to the row's own text."""
        found = self._index.search(self._vectors[rows], self.k + 1, among=self._among).rows
        near = (
            [i for i in some if i != own][: self.k] for some, own in zip(found.tolist(), self._own[rows], strict=True)
        )
        return [[(self._cache.texts[i], int(self._labels[i])) for i in reversed(some)] for some in near]
