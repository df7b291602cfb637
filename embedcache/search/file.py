"""A file of queries, answered into a table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.frames import free_names
from embedcache.common.progress import Progress, Tell, no_progress, no_tell
from embedcache.common.resume import all_parts
from embedcache.common.whole_file import check_output, open_output
from embedcache.index.file_format import rows_digest
from embedcache.search.job import answer_document, query_texts, query_vectors
from embedcache.search.searcher import Answer, Query, Searcher
from embedcache.tables.memory import Frame
from embedcache.tables.read import content_digest, open_source, source_digest
from embedcache.tables.stream import Stored, Table, stored
from embedcache.tables.write import TableLayout, output_format

FILE_QUERIES = 1024  # that are encoded, searched and saved together, or fewer that find
HITS_TOGETHER = 100_000  # rows in all, some 100 MB with all that is known of them
VERSION = 1  # of what Hits are saved as


@dataclass(frozen=True)
class SearchFileReport:
    """What search_file wrote: ``found`` rows for ``queries`` queries, ``blank`` of which were no text.

    ``resumed``: queries of them that an earlier, interrupted command had answered. ``notes``: where labels come
    from, what the encoder did not read of the others, or does not know. ``labels_from``: see docs/labelling.md.
    """

    output: str
    queries: int
    blank: int
    found: int
    k: int
    candidates: int
    seconds: float
    resumed: int = 0
    notes: list[str] = field(default_factory=list)
    labels_from: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


@dataclass
class Hits:
    """Rows and scores for some queries, best first."""

    rows: list[list[int]]
    scores: list[list[float]]

    def __len__(self) -> int:
        return len(self.rows)

    def to_bytes(self) -> bytes:
        """Counts int64 [queries], then all rows int64 and all scores float64."""
        counts = np.array([len(self), *map(len, self.rows)], np.int64)
        rows = np.array([row for some in self.rows for row in some], np.int64)
        scores = np.array([score for some in self.scores for score in some], np.float64)
        return counts.tobytes() + rows.tobytes() + scores.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Hits:
        """What ``to_bytes`` wrote, its checksum found right."""
        numbers = np.frombuffer(data, np.int64)
        counts, rest = numbers[1 : 1 + numbers[0]], numbers[1 + numbers[0] :]
        rows, scores = np.split(rest, 2)
        places = np.cumsum(counts)[:-1]
        return cls(
            [some.tolist() for some in np.split(rows, places)],
            [some.tolist() for some in np.split(scores.view(np.float64), places)],
        )


def search_file(
    cache: str | Path,
    file: str | Path,
    output: str | Path,
    *,
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
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> SearchFileReport:
    """Answer each text of ``file`` into ``output``: a line for each row found, or in JSON an object for each query.

    The file is read once, before the work begins, and its queries stay in memory. Long work can be interrupted: what is
    finished is kept beside the output (in ``.OUT.partial``), and the same call continues after it. The output appears
    whole or not at all, and replaces a file of that name.

    Args:
        cache: The cache file.
        file: The queries: a table, or a file with one on each line; "-" is standard input, JSON lines.
        output: The table to write, in the format of its suffix; "-" is standard output, JSON lines.
        k: Number of results for each query.
        where: Conditions on the rows, see ``Searcher.search``.
        dedupe: Leave out near-duplicates of a better result.
        text: The column of queries in ``file``.
        vector: See ``search_cache``.
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
        progress: Called with (done, total, rows), all three in queries.
        tell: Called with each note, one line.

    Raises:
        EmbedcacheError: Something cannot be read, searched or written.
    """
    start = time.perf_counter()
    kind = output_format(output)
    check_output(output, file)
    how = {"encoding": encoding, "separator": separator, "sheet": sheet}
    vectors: dict[str, Any] = {"labels": labels, "index": index, "pooling": pooling, "layer": layer, "center": center}
    vectors |= {"device": device, "trust_remote_code": trust_remote_code}
    with stored(file) as table, Searcher.open(cache, **vectors) as searcher:
        job = _Job(searcher, table, text, vector, how, k, where, dedupe)
        blank = found = 0
        with open_output(output) as place:
            parts, resumed = all_parts(
                place,
                lambda skip: job.make(skip, progress or no_progress),
                Hits.from_bytes,
                key=job.key,
                total=job.total,
                what="queries are answered",
                tell=tell or no_tell,
            )
            lines = _Objects() if kind.writer.nests else _Lines(searcher)
            with kind.open(place, lines.layout) as writer:
                for texts, hits in zip(job.texts(), parts, strict=True):
                    answers = job.answers(texts, hits)
                    writer.write(lines.columns(answers))
                    blank += sum(not one.strip() for one in texts)
                    found += sum(len(answer.results) for answer in answers)
        name = place.name
    return SearchFileReport(
        output=name,
        queries=job.total,
        blank=blank,
        found=found,
        k=k,
        candidates=int(np.count_nonzero(job.among)),
        seconds=time.perf_counter() - start,
        resumed=resumed,
        notes=searcher.notes,
        labels_from=searcher.cache.labels_from,
    )


class _Job:
    """The queries of one file, read once and kept: ``total`` of them, looked for ``among`` the rows, bool [N]."""

    def __init__(
        self,
        searcher: Searcher,
        table: Table,
        text: str,
        vector: str | None,
        how: dict[str, Any],
        k: int,
        where: str | Sequence[str] | None,
        dedupe: bool,
    ) -> None:
        import pyarrow as pa

        self.searcher, self.table, self.text, self.how = searcher, table, text, how
        self.k, self.where, self.dedupe = k, where, dedupe
        # Not by the memory that is free: what is resumed must be cut as it was.
        self.together = max(1, min(FILE_QUERIES, HITS_TOGETHER // max(1, min(k, searcher.cache.rows))))
        self._vectors = query_vectors(searcher, table, vector, how["encoding"])
        self._queries = [pa.array(self._vectors)] if self._vectors else list(query_texts(table, text, **how))
        self.total = sum(map(len, self._queries))
        self.among = searcher.among(where)

    def texts(self) -> Iterator[list[str]]:
        """The queries, in lists of as many as are answered together."""
        for part in self._queries:
            for first in range(0, len(part), self.together):
                yield part[first : first + self.together].to_pylist()

    def make(self, skip: int, progress: Progress) -> Iterator[Hits]:
        """The hits of the queries after the first ``skip``; a blank one has none."""
        done = 0
        for texts in self.texts():
            done += len(texts)
            if done <= skip:
                continue
            asked = [Query((text,)) for text in texts if text.strip()]
            found = iter(self.searcher.find(asked, self.k, where=self.where, dedupe=self.dedupe, encoded=self._vectors))
            hits = [next(found) if text.strip() else ([], []) for text in texts]
            yield Hits([rows for rows, _ in hits], [scores for _, scores in hits])
            progress(done, self.total, done)

    def answers(self, texts: list[str], hits: Hits) -> list[Answer]:
        """The hits with all that is known of their rows."""
        return [
            self.searcher.answer(Query((text,)), rows, scores) if text.strip() else Answer(text, None, [])
            for text, rows, scores in zip(texts, hits.rows, hits.scores, strict=True)
        ]

    def _digest(self) -> list[str]:
        if isinstance(self.table, Frame):
            return [source_digest(open_source(self.table))]
        file = self.table.file if isinstance(self.table, Stored) else Path(self.table)
        return [content_digest(file), file.suffix]

    def key(self) -> str:
        """What decides the hits."""
        cache, index = self.searcher.cache, self.searcher.index
        rows = rows_digest(cache, index.pooling, index.layer, cache.rows)
        among = blake2b(np.packbits(self.among).data, digest_size=16).hexdigest()
        queries = [*self._digest(), self.text, self.how, self.together]
        return json.dumps([VERSION, rows, among, asdict(index.about), queries, self.k, self.dedupe])


class _Objects:
    """An object a query, with the list of what was found."""

    def __init__(self) -> None:
        self.layout = TableLayout(["query", "results"])

    def columns(self, answers: Sequence[Answer]) -> list[Any]:
        documents = [answer_document(answer) for answer in answers]
        return [[document[name] for document in documents] for name in self.layout.names]


class _Lines:
    """A line for each row that was found: the query's number and text, then the row as a search shows it."""

    def __init__(self, searcher: Searcher) -> None:
        import pyarrow as pa

        cache = searcher.cache
        known = {"query_row": pa.int64(), "query": pa.string(), "rank": pa.int64(), "row": pa.int64()}
        known["score"] = pa.float64()
        if cache.ids is not None:
            known["id"] = pa.string()
        self._labels = cache.label_names
        self._kept = [name for name in cache.column_names if name not in (cache.id_column, *self._labels)]
        names = free_names([*known, "text"], [*self._labels, *self._kept])
        kinds = {
            names[name]: pa.list_(pa.string()) if cache.holds_lists(name) else pa.string() for name in self._labels
        }
        kept = {names[name]: pa.string() for name in self._kept}
        columns = {**known, **kinds, "text": pa.string(), **kept}
        self.layout = TableLayout(list(columns), list(columns.values()))
        self._with_id, self._queries = "id" in known, 0

    def columns(self, answers: Sequence[Answer]) -> list[Any]:
        lines = [
            (number, answer.query, one)
            for number, answer in enumerate(answers, self._queries)
            for one in answer.results
        ]
        self._queries += len(answers)
        found = [one for _, _, one in lines]
        return [
            [number for number, _, _ in lines],
            [query for _, query, _ in lines],
            [one.rank for one in found],
            [one.row for one in found],
            [round(one.score, 6) for one in found],
            *([[one.id for one in found]] if self._with_id else []),
            *([one.labels[name] for one in found] for name in self._labels),
            [one.text for one in found],
            *([one.columns[name] for one in found] for name in self._kept),
        ]
