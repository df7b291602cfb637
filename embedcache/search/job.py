"""The job of `embedcache search`: one query, or a file of them, answered on the screen or into a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.frames import Tabular, arrow_table
from embedcache.errors import EmbedcacheError
from embedcache.search.searcher import Answer, Query, Searcher, found_columns
from embedcache.tables.formats import FORMATS
from embedcache.tables.memory import Frame
from embedcache.tables.stream import Stored, Table, stored

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 3  # answers in a notebook


@dataclass(frozen=True)
class SearchReport(Tabular):
    """All answers. ``k`` were asked, ``candidates`` rows could be found; ``many``: the queries came from a file.

    notes: where labels come from, what the encoder did not read of the queries, or does not know. labels_from: the
    journal of labels that was read, see docs/labelling.md.
    """

    answers: list[Answer]
    k: int
    candidates: int
    many: bool
    notes: list[str] = field(default_factory=list)
    labels_from: dict[str, Any] | None = None

    def _repr_html_(self) -> str:
        """For notebooks."""
        return "".join(answer._repr_html_() for answer in self.answers[:SHOWN])

    def __len__(self) -> int:
        return len(self.answers)

    def to_arrow(self) -> pa.Table:
        """A line for each row found, as in ``Answer``, behind query_row (the query's number, from 0) and query."""
        import pyarrow as pa

        counts = [len(answer) for answer in self.answers]
        queries = [answer.query for answer, count in zip(self.answers, counts, strict=True) for _ in range(count)]
        numbers = np.repeat(np.arange(len(counts)), counts)
        before = {"query_row": pa.array(numbers, pa.int64()), "query": pa.array(queries, pa.string())}
        return arrow_table(found_columns([found for answer in self.answers for found in answer.results], before))

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: query and results, or for a file a list of these as ``queries``."""
        answers = [answer_document(answer) for answer in self.answers]
        return {**({"queries": answers} if self.many else answers[0]), "labels_from": self.labels_from}


def search_cache(
    cache: str | Path,
    query: str | None = None,
    *,
    row: int | Sequence[int] | None = None,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    unlike_row: Sequence[int] = (),
    file: str | Path | None = None,
    k: int = 10,
    where: str | Sequence[str] | None = None,
    dedupe: bool = False,
    text: str = "text",
    vector: str | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    labels: str | Path | None = None,
    index: str | Path | None = None,
    pooling: str | None = None,
    layer: int | None = None,
    center: bool | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> SearchReport:
    """The rows of a cache that are most like texts or rows of it (themselves left out), or like each text of a file.

    Args:
        cache: The cache file.
        query: A text to look for.
        row: Row numbers, counted from 0, to look for.
        like: More texts that the results should be like.
        unlike: Texts that the results should not be like; see ``Query``.
        unlike_row: Rows that the results should not be like.
        file: Instead of examples, a table or any other file in which each line is a query (a blank one finds nothing);
            "-" is standard input, JSON lines.
        k: Number of results for each query.
        where: Conditions on the rows, see ``Searcher.search``.
        dedupe: Leave out near-duplicates of a better result.
        text: The column of queries in ``file``.
        vector: The column of ``file`` that has vectors of the cache's encoder in place of texts; a file of arrays, such
            as .npy, needs no name.
        encoding: Encoding of ``file``.
        separator: Between the cells of a .csv; None detects it.
        sheet: Sheet of a workbook, or table of a database.
        labels: See ``Searcher.open``, as for the next six.
        index: See ``Searcher.open``.
        pooling: See ``Searcher.open``.
        layer: See ``Searcher.open``.
        center: See ``Searcher.open``.
        device: See ``Searcher.open``.
        trust_remote_code: See ``Searcher.open``.

    Raises:
        EmbedcacheError: There is nothing to look for, or both examples and a file are given; see also ``Searcher``.
    """
    likes: list[str | int] = [*([] if query is None else [query]), *_rows(row), *like]
    unlikes: list[str | int] = [*unlike, *unlike_row]
    if file is None and not likes:
        raise EmbedcacheError("give at least one query: a text, a row or a file")
    if file is not None and (likes or unlikes):
        raise EmbedcacheError("give a file of queries, or one query, not both")
    opened = Searcher.open(
        cache,
        labels=labels,
        index=index,
        pooling=pooling,
        layer=layer,
        center=center,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    with opened as searcher:
        candidates = int(np.count_nonzero(searcher.among(where)))
        if file is None:
            asked = Query(tuple(likes), tuple(unlikes))
            answers = searcher.search([asked], k, where=where, dedupe=dedupe)
            return SearchReport(
                answers, k, candidates - len(asked.rows), False, searcher.notes, searcher.cache.labels_from
            )
        with stored(file) as table:
            how = {"encoding": encoding, "separator": separator, "sheet": sheet}
            vectors = query_vectors(searcher, table, vector, encoding)
            texts = list(vectors or [one for part in query_texts(table, text, **how) for one in part.to_pylist()])
        answers = _answers(searcher, texts, k, where, dedupe, vectors)
        return SearchReport(answers, k, candidates, True, searcher.notes, searcher.cache.labels_from)


def _answers(
    searcher: Searcher,
    texts: Sequence[str],
    k: int,
    where: str | Sequence[str] | None,
    dedupe: bool,
    vectors: dict[str, np.ndarray],
) -> list[Answer]:
    """One answer for each text; nothing is found for a blank one."""
    asked = [i for i, text in enumerate(texts) if text.strip()]
    answers = [Answer(text, None, []) for text in texts]
    found = searcher.search([Query((texts[i],)) for i in asked], k, where=where, dedupe=dedupe, encoded=vectors)
    for i, answer in zip(asked, found, strict=True):
        answers[i] = answer
    return answers


def answer_document(answer: Answer) -> dict[str, Any]:
    return {"query": answer.query, "results": [asdict(found) for found in answer.results]}


def _rows(row: int | Sequence[int] | None) -> Sequence[int]:
    return [] if row is None else [row] if isinstance(row, int) else row


def query_vectors(searcher: Searcher, file: Table, vector: str | None, encoding: str) -> dict[str, np.ndarray]:
    """The vectors of a file, by what they are called, "row 0 of new.npy"; {}: it has texts.

    Raises:
        EmbedcacheError: they cannot be read, or are not of the cache's encoder.
    """
    from embedcache.vectors.read import check_maker, checked, holds_vectors_alone, open_vectors

    if vector is None and not holds_vectors_alone(getattr(file, "known_as", file)):
        return {}
    opened = open_vectors(file, vector, encoding=encoding)
    found: list[np.ndarray] = []
    for part in checked(opened, dim=searcher.index.dim):
        found += list(part.astype(np.float32))
    check_maker(opened.name, opened.encoder, searcher.cache.encoder, str(searcher.cache.path))
    if not found:
        raise EmbedcacheError(f"{file} has no rows: there is nothing to look for")
    name = Path(opened.name).name
    return {f"row {row} of {name}": one for row, one in enumerate(found)}


def query_texts(file: Table, text: str, **how: Any) -> Iterator[pa.Array]:
    """The queries of a table, or the lines of any other file, as Arrow strings, part by part. how: as ``read_rows``."""
    import pyarrow as pa

    from embedcache.tables.rows import Columns, read_lines, read_rows

    if isinstance(file, (Frame, Stored)) or any(suffix.lower() in FORMATS for suffix in Path(file).suffixes[-2:]):
        for rows in read_rows([file], Columns(text), **how):
            yield rows.texts
    else:
        yield pa.array(read_lines(file, encoding=how["encoding"]), pa.string())
