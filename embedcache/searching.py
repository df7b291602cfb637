"""The verb of `embedcache search`: one query, or a file of them, answered on the screen or into a table."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from embedcache.common.frames import Tabular, arrow_table
from embedcache.common.whole_file import check_output, whole_file
from embedcache.errors import EmbedcacheError
from embedcache.search import Answer, Query, Searcher, found_columns
from embedcache.tables.formats import FORMATS

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 3  # answers in a notebook
FILE_QUERIES = 1024  # that are encoded and searched together
OUTPUTS = (".csv", ".jsonl")


@dataclass(frozen=True)
class SearchReport(Tabular):
    """All answers. ``k`` were asked, ``candidates`` rows could be found; ``many``: the queries came from a file."""

    answers: list[Answer]
    k: int
    candidates: int
    many: bool

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
        answers = [_document(answer) for answer in self.answers]
        return {"queries": answers} if self.many else answers[0]


@dataclass(frozen=True)
class SearchFileReport:
    """What search_file wrote: ``found`` rows for ``queries`` queries, ``blank`` of which were no text."""

    output: str
    queries: int
    blank: int
    found: int
    k: int
    candidates: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


def search_cache(
    cache_path: str | Path,
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
    encoding: str = "utf-8",
    index: str | Path | None = None,
    pooling: str | None = None,
    layer: int | None = None,
    center: bool | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> SearchReport:
    """The rows of a cache that are most like texts or rows of it (themselves left out), or each text of a file.

    Args:
        query, row, like: examples of what to look for, at least one. unlike, unlike_row: of what not; see ``Query``.
        file: in place of examples, a table, or any other file, of which each line is a query (a blank one finds
            nothing). text: the table's column of queries. encoding: of the file.
        k, where, dedupe: see ``Searcher.search``. index, pooling, layer, center, device: see ``Searcher.open``.

    Raises:
        EmbedcacheError: nothing to look for, or examples and a file; see also ``Searcher``.
    """
    likes: list[str | int] = [*([] if query is None else [query]), *_rows(row), *like]
    unlikes: list[str | int] = [*unlike, *unlike_row]
    if file is None and not likes:
        raise EmbedcacheError("give at least one query: a text, a row or a file")
    if file is not None and (likes or unlikes):
        raise EmbedcacheError("give a file of queries, or one query, not both")
    opened = Searcher.open(
        cache_path,
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
            return SearchReport(answers, k, candidates - len(asked.rows), many=False)
        texts = [one for part in _query_texts(file, text, encoding) for one in part]
        answers = _answers(searcher, texts, k, where, dedupe)
        return SearchReport(answers, k, candidates, many=True)


def search_file(
    cache_path: str | Path,
    file: str | Path,
    output: str | Path,
    *,
    k: int = 10,
    where: str | Sequence[str] | None = None,
    dedupe: bool = False,
    text: str = "text",
    encoding: str = "utf-8",
    progress: Callable[[int, int, int], None] | None = None,
    **options: Any,
) -> SearchFileReport:
    """Answer each text of ``file`` into ``output``, a .csv with a line for each row found or a .jsonl with one a query.

    The file is streamed, and read to its end once before the work begins. The output appears whole or not at all, and
    replaces a file of that name. Arguments are those of ``search_cache``; ``progress(done, total, rows)`` counts
    queries.

    Raises:
        EmbedcacheError: what cannot be read, searched or written.
    """
    start, output = time.perf_counter(), Path(output)
    if output.suffix.lower() not in OUTPUTS:
        raise EmbedcacheError(f"{output} is neither .csv nor .jsonl: name the output by what it should be")
    check_output(output, file)
    total = sum(len(part) for part in _query_texts(file, text, encoding))
    queries = blank = found = 0
    with Searcher.open(cache_path, **options) as searcher, whole_file(output) as out:
        candidates = int(np.count_nonzero(searcher.among(where)))
        write = _writer(out, output.suffix.lower(), searcher)
        for part in _query_texts(file, text, encoding):
            for first in range(0, len(part), FILE_QUERIES):
                texts = part[first : first + FILE_QUERIES]
                answers = _answers(searcher, texts, k, where, dedupe)
                write(queries, answers)
                queries += len(answers)
                blank += sum(not one.strip() for one in texts)
                found += sum(len(answer.results) for answer in answers)
                if progress is not None:
                    progress(queries, total, queries)
    return SearchFileReport(str(output), queries, blank, found, k, candidates, time.perf_counter() - start)


def _answers(
    searcher: Searcher, texts: Sequence[str], k: int, where: str | Sequence[str] | None, dedupe: bool
) -> list[Answer]:
    """Of each text, a blank one with nothing found."""
    asked = [i for i, text in enumerate(texts) if text.strip()]
    answers = [Answer(text, None, []) for text in texts]
    found = searcher.search([Query((texts[i],)) for i in asked], k, where=where, dedupe=dedupe)
    for i, answer in zip(asked, found, strict=True):
        answers[i] = answer
    return answers


def _writer(out: TextIO, suffix: str, searcher: Searcher) -> Callable[[int, list[Answer]], None]:
    """Writes answers; is told how many queries came before them."""
    if suffix == ".jsonl":

        def write_lines(before: int, answers: list[Answer]) -> None:
            out.writelines(json.dumps(_document(answer), ensure_ascii=False) + "\n" for answer in answers)

        return write_lines
    labels, with_id = searcher.cache.labels_names, searcher.cache.ids is not None
    table = csv.writer(out)
    table.writerow(["query_row", "query", "rank", "row", "score", *(["id"] if with_id else []), *labels, "text"])

    def write_rows(before: int, answers: list[Answer]) -> None:
        for number, answer in enumerate(answers, before):
            for one in answer.results:
                named = [_cell(one.labels[name]) for name in labels]
                ids = [one.id] if with_id else []
                table.writerow([number, answer.query, one.rank, one.row, f"{one.score:.6f}", *ids, *named, one.text])

    return write_rows


def _cell(label: str | list[str] | None) -> str:
    return json.dumps(label, ensure_ascii=False) if isinstance(label, list) else label or ""


def _document(answer: Answer) -> dict[str, Any]:
    return {"query": answer.query, "results": [asdict(found) for found in answer.results]}


def _rows(row: int | Sequence[int] | None) -> Sequence[int]:
    return [] if row is None else [row] if isinstance(row, int) else row


def _query_texts(file: str | Path, text: str, encoding: str) -> Iterator[list[str]]:
    """The queries of a table, or the lines of any other file, part by part."""
    from embedcache.table import Columns, read_lines, read_rows

    if any(suffix.lower() in FORMATS for suffix in Path(file).suffixes[-2:]):
        for rows in read_rows([file], Columns(text), encoding=encoding):
            yield rows.texts.to_pylist()
    else:
        yield read_lines(file, encoding=encoding)
