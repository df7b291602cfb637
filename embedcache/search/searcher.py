"""The rows of a cache that are most like texts or other rows, and unlike others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.labels import label_of
from embedcache.cache.where import not_blank, rows_where
from embedcache.common.display import html_table
from embedcache.common.frames import Tabular, arrow_table, free_names, label_column
from embedcache.common.machine import check_memory
from embedcache.common.near_identical import NearIdentical
from embedcache.common.reading import Reading
from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex
from embedcache.index.open_index import open_index
from embedcache.labelling.opened import notes_of, open_labelled
from embedcache.search.query import Query, read_queries

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcache.encoder import Encoder

MANY_HITS = 1_000_000  # rows that are looked for together
HIT_BYTES = 1000  # of a row that is found, with its text and all that is known of it
MOST_FILTERS = 64  # of --where that a Searcher remembers


@dataclass(frozen=True)
class Found:
    """One row that was found. ``rank`` counts from 1, ``row`` from 0.

    ``labels`` is column -> class, or a list of labels where the column holds lists; None where there is no label.
    ``columns`` is kept column -> value, without the id column.
    """

    rank: int
    row: int
    score: float
    text: str
    labels: dict[str, str | list[str] | None]
    id: str | None
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer(Tabular):
    """What was found for one query; ``query`` describes it, ``row`` is set where it is one row of the cache alone."""

    query: str
    row: int | None
    results: list[Found]

    def _repr_html_(self) -> str:
        """For notebooks."""
        columns = list(self.results[0].labels) if self.results else []
        rows = ((one.rank, one.row, one.score, *one.labels.values(), one.text) for one in self.results)
        return html_table(f"Most like {self.query}", ("rank", "row", "score", *columns, "text"), rows)

    def __len__(self) -> int:
        return len(self.results)

    def to_arrow(self) -> pa.Table:
        """A line for each row found: rank, row, score, text, id, every label column, every kept column."""
        return arrow_table(found_columns(self.results))


def found_columns(results: Sequence[Found], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arrow columns of rows that were found, behind those of ``before``; a column whose name is taken gets _2."""
    import pyarrow as pa

    types = {"rank": pa.int64(), "row": pa.int64(), "score": pa.float64(), "text": pa.string(), "id": pa.string()}
    columns = dict(before or {})
    columns |= {name: pa.array([getattr(one, name) for one in results], kind) for name, kind in types.items()}
    labels = list(results[0].labels) if results else []
    kept = [name for name in (results[0].columns if results else ()) if name not in labels]
    names = free_names(columns, [*labels, *kept])
    for name in labels:
        columns[names[name]] = label_column([one.labels[name] for one in results])
    for name in kept:
        columns[names[name]] = pa.array([one.columns[name] for one in results], pa.string())
    return columns


class Searcher:
    """An open cache and its index, for any number of searches, from several threads too. Make one with ``open``.

    Attributes:
        cache, index: what is searched.
        reading: what the encoder has read of the texts that were looked for, None before the first.
    """

    def __init__(self, cache: Cache, index: SearchIndex, load: Callable[[], Encoder]) -> None:
        self.cache, self.index = cache, index
        self._load, self._lock = load, threading.Lock()
        self._loaded: Encoder | None = None
        self.reading: Reading | None = None
        self._with_text = not_blank(cache.texts)
        self.read_labels()
        self._kept = {name: cache.column(name) for name in cache.column_names if name != cache.id_column}
        self._stored = cache.embeddings(index.pooling, index.layer)

    @classmethod
    def open(
        cls,
        cache: str | Path,
        *,
        labels: str | Path | None = None,
        index: str | Path | None = None,
        pooling: str | None = None,
        layer: int | None = None,
        center: bool | None = None,
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> Searcher:
        """Open a cache and an index of it; without an index the vectors themselves are searched.

        Args:
            cache: The cache file.
            labels: A journal of labels that people gave, over the cache's own; "none"; None: that beside it, if any.
            index: What ``embedcache index`` wrote. None is the index of the cache's own name, if there is one of the
                vectors that are asked for.
            pooling: Which of the cache's vectors; None is model, else cls, else the first stored.
            layer: Which of the cache's vectors; None is the last layer, or the only one stored.
            center: Whether to subtract the mean of all rows first; None is as the index has it, or not.
            device: "auto", "cpu", "cuda" or "cuda:N", for the encoder of the texts to look for.
            trust_remote_code: Whether to run Python code that comes with the encoder.

        Raises:
            EmbedcacheError: The cache or the index cannot be opened, they do not belong together, or there are no such
                vectors.
        """
        opened = open_labelled(cache, labels)
        try:
            found = open_index(opened, index, pooling, layer, center)
        except BaseException:
            opened.close()
            raise

        def load() -> Encoder:
            from embedcache.encoder.load_again import encoder_of

            owner = str(opened.path)
            return encoder_of(opened.encoder, owner, found.pooling, device=device, trust_remote_code=trust_remote_code)

        return cls(opened, found, load)

    @property
    def encoder(self) -> Encoder:
        """The encoder that made the vectors, loaded when it is first asked for."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def close(self) -> None:
        self.cache.close()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(
        self,
        queries: str | Query | Sequence[str | Query],
        k: int = 10,
        *,
        where: str | Sequence[str] | None = None,
        dedupe: bool = False,
        encoded: Mapping[str, np.ndarray] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Answer]:
        """The k rows most like each query, best first; one answer for each query. Fewer only if there are fewer.

        Rows with a blank text are never found: to an encoder they resemble any short text. Rows with the same text as
        the query are found.

        Args:
            queries: One or several: a text, or a ``Query`` for rows and for examples of what not to find.
            k: Number of results for each query.
            where: Conditions, see ``rows_where``.
            dedupe: Leave out near-duplicates of a result, or of a query; see ``NearIdentical``.
            encoded: Vectors [D] of texts that are encoded already, by text.
            rows: Look among these rows alone.

        Raises:
            EmbedcacheError: A blank text; no such row, column or value; the encoder cannot be loaded.
        """
        asked = read_queries(queries)
        width = min(k, self.cache.rows)
        if len(asked) * width > MANY_HITS:
            advice = "ask for fewer with -k, or write the answers to a file of queries with -o"
            check_memory(len(asked) * width * HIT_BYTES, f"{len(asked):,} answers of {width:,} rows", advice)
        hits = self.find(asked, k, where=where, dedupe=dedupe, encoded=encoded, rows=rows)
        return [self.answer(query, *hit) for query, hit in zip(asked, hits, strict=True)]

    def find(
        self,
        queries: Sequence[Query],
        k: int,
        *,
        where: str | Sequence[str] | None = None,
        dedupe: bool = False,
        encoded: Mapping[str, np.ndarray] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[tuple[list[int], list[float]]]:
        """Rows and scores alone of what ``search`` finds."""
        for query in queries:
            self._check(query)
        vectors, among = self._vectors(queries, encoded or {}), self.among(where)
        if rows is not None:
            among = among & self._only(rows)
        together = max(1, MANY_HITS // max(1, min(k, self.cache.rows)))  # what looks for them needs memory, too
        parts = (slice(start, start + together) for start in range(0, len(queries), together))
        found = [self._find(queries[part], vectors[part], k, among, dedupe) for part in parts]
        self.cache.check_whole()
        return [hit for places, scores in found for hit in zip(places, scores, strict=True)]

    def answer(self, query: Query, rows: Sequence[int], scores: Sequence[float]) -> Answer:
        """What ``find`` found, with all that is known of the rows."""
        return Answer(self._describe(query), _only_row(query), self._results(rows, scores))

    @property
    def notes(self) -> list[str]:
        """Where labels come from, and what the encoder did not read of the texts, or does not know."""
        return notes_of(self.cache.labels_from) + ([] if self.reading is None else self.reading.notes(advise=False))

    def among(self, where: str | Sequence[str] | None) -> np.ndarray:
        """bool [N]: the rows that may be found under the conditions."""
        key = tuple([where] if isinstance(where, str) else where or ())
        if key not in (filters := self._filters):
            if len(filters) >= MOST_FILTERS:
                filters.clear()
            filters[key] = self._with_text & rows_where(self.cache, key)
        return filters[key]

    def read_labels(self) -> None:
        """Find and show the labels that the cache has now; people may have given some since."""
        self._filters: dict[tuple[str, ...], np.ndarray] = {}
        self._labels = {name: self.cache.labels(name) for name in self.cache.label_names}

    def labels(self, row: int) -> dict[str, str | list[str] | None]:
        """A row's, as in ``Found``."""
        return {name: label_of(codes[row], classes) for name, (codes, classes) in self._labels.items()}

    def columns(self, row: int) -> dict[str, str]:
        """A row's kept columns, as in ``Found``."""
        return {name: values[row] for name, values in self._kept.items()}

    def _find(
        self, queries: Sequence[Query], vectors: np.ndarray, k: int, among: np.ndarray, dedupe: bool
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Rows and scores of each query; more and more are looked at until k of them stay."""
        every = int(np.count_nonzero(among))
        rows: list[list[int]] = [[] for _ in queries]
        scores: list[list[float]] = [[] for _ in queries]
        open_ones = list(range(len(queries)))
        width = k + max((len(query.rows) for query in queries), default=0)
        while open_ones:
            width = min(width * 2, every) if dedupe else min(width, every)
            found = self.index.search(vectors[open_ones], width, among=among)
            short = []
            for place, some, of in zip(open_ones, found.rows.tolist(), found.scores.tolist(), strict=True):
                kept = self._places(queries[place], some, k, dedupe)
                rows[place], scores[place] = [some[i] for i in kept], [of[i] for i in kept]
                if len(kept) < k and width < every:
                    short.append(place)
            open_ones = short
            width = max(width, 1) * 2
        return rows, scores

    def _places(self, query: Query, rows: list[int], k: int, dedupe: bool) -> list[int]:
        """Places of the first k rows that may be shown."""
        places = (i for i, row in enumerate(rows) if row >= 0 and row not in query.rows)
        if not dedupe:
            return [i for i, _ in zip(places, range(k), strict=False)]
        seen = NearIdentical(self.cache.texts[row] for row in sorted(query.rows))
        kept: list[int] = []
        for i in places:
            if len(kept) == k:
                break
            if seen.is_new(self.cache.texts[rows[i]]):
                kept.append(i)
        return kept

    def _vectors(self, queries: Sequence[Query], encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [q, D]; all texts are encoded together."""
        known: dict[str | int, np.ndarray] = dict(encoded.items())
        texts = [text for text in dict.fromkeys(text for query in queries for text in query.texts) if text not in known]
        if texts:
            output = (self.index.pooling, self.index.layer)
            tokens = self.encoder.tokenize(texts)
            known.update(zip(texts, self.encoder.encode_tokens(tokens, [output])[0], strict=True))
            read = self.encoder.reading(texts, tokens)
            self.reading = read if self.reading is None else self.reading + read
        for row in {row for query in queries for row in query.rows}:
            known[row] = self._stored[row].astype(np.float32)
        vectors = np.empty((len(queries), self.index.dim), np.float32)
        for vector, query in zip(vectors, queries, strict=True):
            vector[:] = np.mean([known[one] for one in query.like], axis=0)
            if query.unlike:
                vector += vector - np.mean([known[one] for one in query.unlike], axis=0)
        return vectors

    def _only(self, rows: Sequence[int]) -> np.ndarray:
        """bool [N]: these rows. Raises EmbedcacheError: no such row."""
        if not all(0 <= row < self.cache.rows for row in rows):
            raise EmbedcacheError(f"{self.cache.path} has rows 0 to {self.cache.rows - 1} alone: choose among those")
        only = np.zeros(self.cache.rows, bool)
        only[list(rows)] = True
        return only

    def _check(self, query: Query) -> None:
        path, rows = self.cache.path, self.cache.rows
        if not query.like:
            raise EmbedcacheError("give at least one example to be like, beside those to be unlike")
        if any(not text.strip() for text in query.texts):
            raise EmbedcacheError("the query is blank: write what to look for")
        for row in query.rows:
            if not 0 <= row < rows:
                raise EmbedcacheError(f"{path} has no row {row}: it has {rows}, counted from 0 to {rows - 1}")
            if not self._with_text[row]:
                raise EmbedcacheError(f"row {row} of {path} has a blank text: choose another row")
            vector = self._stored[row]
            if not np.isfinite(vector).all() or not vector.any():
                raise EmbedcacheError(f"row {row} of {path} has no usable vector (zero or NaN): choose another row")

    def _describe(self, query: Query) -> str:
        if len(query.like) == 1 and not query.unlike:
            (one,) = query.like
            return one if isinstance(one, str) else self.cache.texts[one]
        named = [
            ", ".join(f'"{one}"' if isinstance(one, str) else f"row {one}" for one in some)
            for some in (query.like, query.unlike)
        ]
        return named[0] + (f"; unlike {named[1]}" if named[1] else "")

    def _results(self, rows: Sequence[int], scores: Sequence[float]) -> list[Found]:
        texts, ids = self.cache.texts, self.cache.ids
        return [
            Found(rank, row, score, texts[row], self.labels(row), None if ids is None else ids[row], self.columns(row))
            for rank, (row, score) in enumerate(zip(rows, scores, strict=True), 1)
        ]


def _only_row(query: Query) -> int | None:
    (one, *more) = query.like
    return None if more or query.unlike or isinstance(one, str) else one
