"""The rows of a cache that are most like a text or another row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.cache.labels import label_of
from embedcache.errors import EmbedcacheError
from embedcache.formats import FORMATS
from embedcache.index import SearchIndex
from embedcache.index.search_index import load_encoder
from embedcache.table import Columns, read_lines, read_rows
from embedcache.where import not_blank, rows_where


@dataclass(frozen=True)
class Found:
    """One row that was found. ``rank`` counts from 1, ``row`` from 0.

    ``labels`` is column -> class, or a list of labels where the column holds lists; None where there is no label.
    """

    rank: int
    row: int
    score: float
    text: str
    labels: dict[str, str | list[str] | None]
    id: str | None


@dataclass(frozen=True)
class Answer:
    """What was found for one query; ``row`` is set where the query is a row of the cache."""

    query: str
    row: int | None
    results: list[Found]


@dataclass(frozen=True)
class SearchReport:
    """All answers. ``k`` were asked, ``candidates`` rows could be found; ``many``: the queries came from a file."""

    answers: list[Answer]
    k: int
    candidates: int
    many: bool

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: query and results, or for a file a list of these as ``queries``."""
        answers = [{"query": a.query, "results": [asdict(found) for found in a.results]} for a in self.answers]
        return {"queries": answers} if self.many else answers[0]


def search_cache(
    cache_path: str | Path,
    *,
    query: str | None = None,
    row: int | None = None,
    file: str | Path | None = None,
    k: int = 10,
    where: str | Sequence[str] | None = None,
    pooling: str | None = None,
    layer: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    text: str = "text",
    encoding: str = "utf-8",
) -> SearchReport:
    """The rows of a cache that are most like a text, one of its rows (itself left out), or each text of a file.

    Rows with a blank text are never found: to an encoder they are much like any short text. Rows with the same text
    as the query are.

    Args:
        file: a table, or any other file, of which each line is a query (a blank one finds nothing).
        text: the table's column of queries. encoding: of the file.
        where: conditions "column=value" or "column!=value" on label or kept columns, several in a list or separated by
            commas; see ``rows_where``.
        pooling, layer: which of the cache's vectors; None means cls of the last layer, or the only ones stored.

    Raises:
        EmbedcacheError: not exactly one of query, row and file; nothing to search; no such row, column, value or
            vectors; an encoder that cannot be had, or is not the one that made the cache.
    """
    if sum(given is not None for given in (query, row, file)) != 1:
        raise EmbedcacheError("give one query: a text, a row or a file")
    with open_cache(cache_path) as cache:
        index = SearchIndex.build(cache, *_stored_output(cache, pooling, layer))
        among = not_blank(cache.texts)
        if where:
            among &= rows_where(cache, [where] if isinstance(where, str) else where)
        if row is not None:
            _check_row(cache, index, row)
            among[row] = False
            texts, asked = [cache.texts[row]], [0]
            found = index.search(index.vector(row), k, among=among)
        else:
            texts = _query_texts(query, file, text, encoding)
            asked = [i for i, text in enumerate(texts) if not text.isspace() and text]
            index.use(load_encoder(cache.encoder, str(cache.path), device, trust_remote_code))
            found = index.search([texts[i] for i in asked], k, among=among)
        results: list[list[Found]] = [[] for _ in texts]
        for i, rows, scores in zip(asked, found.rows, found.scores, strict=True):
            results[i] = _describe(cache, rows, scores)
        answers = [Answer(text, row, result) for text, result in zip(texts, results, strict=True)]
        return SearchReport(answers, k, int(np.count_nonzero(among)), many=file is not None)


def _stored_output(cache: Cache, pooling: str | None, layer: int | None) -> tuple[str, int]:
    """The vectors to search: the asked ones, preferably of the last layer, preferably cls."""
    fits = [(p, n) for p, n in cache.outputs if pooling in (None, p) and layer in (None, n)]
    fits.sort(key=lambda output: (output[0] != "cls", output[1] != -1))
    return fits[0] if fits else (pooling or "cls", -1 if layer is None else layer)


def _check_row(cache: Cache, index: SearchIndex, row: int) -> None:
    if not 0 <= row < cache.rows:
        raise EmbedcacheError(f"{cache.path} has no row {row}: it has {cache.rows}, counted from 0 to {cache.rows - 1}")
    if not cache.texts[row].strip():
        raise EmbedcacheError(f"row {row} of {cache.path} has a blank text: choose another row")
    if not index.vector(row).any():
        raise EmbedcacheError(f"row {row} of {cache.path} has no usable vector (zero or NaN): choose another row")


def _query_texts(query: str | None, file: str | Path | None, text: str, encoding: str) -> list[str]:
    if query is not None:
        if not query.strip():
            raise EmbedcacheError("the query is blank: write what to look for")
        return [query]
    assert file is not None
    if any(suffix.lower() in FORMATS for suffix in Path(file).suffixes[-2:]):
        return [one for rows in read_rows([file], Columns(text), encoding=encoding) for one in rows.texts.to_pylist()]
    return read_lines(file, encoding=encoding)


def _describe(cache: Cache, rows: np.ndarray, scores: np.ndarray) -> list[Found]:
    labels = {name: cache.labels(name) for name in cache.labels_names}
    return [
        Found(
            rank=rank,
            row=int(row),
            score=float(score),
            text=cache.texts[int(row)],
            labels={name: label_of(codes[row], classes) for name, (codes, classes) in labels.items()},
            id=None if cache.ids is None else cache.ids[int(row)],
        )
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), 1)
    ]
