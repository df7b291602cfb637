""".jsonl and .json: rows with a list of numbers, and what embedding services answer.

    {"text": "...", "embedding": [0.1, ...]}                              a row a line
    {"custom_id": "a", "response": {"body": {"data": [...], "model": "..."}}}  the batch output of OpenAI
    {"object": "list", "data": [{"index": 0, "embedding": [...]}], "model": "..."}  a response of OpenAI's API
    {"embeddings": [[...], ...], "texts": ["...", ...]}                   a response of Cohere's API

The batch output is in no order: its rows are known by ``custom_id``. A request of several texts has several vectors:
they are named custom_id/0, custom_id/1 and so on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import msgspec
import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.tables.explain import explained
from embedcache.tables.memory import Frame
from embedcache.tables.read import open_source
from embedcache.tables.stream import Table
from embedcache.vectors.formats.base import USUAL, VectorFile, VectorFormat, choose

LINE_BYTES = 1 << 29  # of a line: a response of 2,048 vectors of 3,072 numbers has some 140 MB
ROWS = 1024  # of lines that hold one vector each, together
BATCH_ID = "custom_id"


class Batch(NamedTuple):
    """The vectors of one object: lists of numbers, or base64 of float32; what names them, or their texts."""

    vectors: list[Any]
    ids: list[str] | None = None
    texts: list[str] | None = None
    encoder: str | None = None


class JsonObjects(VectorFormat):
    suffixes = (".jsonl", ".ndjson", ".json")
    what = "objects with a list of numbers; batch output and responses of OpenAI's API, responses of Cohere's"
    is_table = True

    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        return JsonFile(table, column, reading.get("encoding", "utf-8"))


class JsonFile(VectorFile):
    """What its objects are is seen in the first of them."""

    def __init__(self, table: Table, column: str | None, encoding: str) -> None:
        super().__init__(str(table))
        self._table = table
        self._source = replace(open_source(table, encoding=encoding), most=LINE_BYTES)
        self._ids: list[str] | None = None
        self._texts: list[str] | None = None
        _, first = next(self._objects(), (1, None))
        if first is None:
            raise EmbedcacheError(f"{self.name} is empty: there are no vectors; check that it is the right file")
        self._read = self._reader(first, column)

    @property
    def table(self) -> Table | None:
        import pyarrow as pa

        if self._read == self._of_row:
            return self._table
        named = {BATCH_ID: self._ids, "text": self._texts}
        columns = {name: pa.array(values, pa.large_string()) for name, values in named.items() if values is not None}
        return Frame(self.name, pa.table(columns)) if columns else None

    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        row, held = 0, []
        self._ids, self._texts = ([] if self.own_id else None), None
        with explained(self._source):
            for line, one in self._objects():
                found = self._read(one, line)
                self._note(found)
                if len(found.vectors) == 1:
                    held.append((line, found.vectors[0]))
                    if len(held) < ROWS:
                        continue
                    part = held
                    held = []
                else:
                    part = held + [(line, vector) for vector in found.vectors]
                    held = []
                row += len(part)
                if row > first:
                    yield self._matrix(part[max(0, first - (row - len(part))) :])
        row += len(held)
        if held and row > first:
            yield self._matrix(held[max(0, first - (row - len(held))) :])

    def _note(self, found: Batch) -> None:
        self.encoder = self.encoder or found.encoder
        if self._ids is not None and found.ids is not None:
            self._ids += found.ids
        if found.texts is not None:
            self._texts = [*(self._texts or []), *found.texts]

    def _objects(self) -> Iterator[tuple[int, Any]]:
        """(line, object) of every object."""
        decoder = msgspec.json.Decoder()
        if self._source.format.by_lines:
            with self._source.text() as file:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        yield number, self._decoded(decoder, line, number)
            return
        with self._source.text() as file:
            text = file.read(LINE_BYTES + 1)
        if len(text) > LINE_BYTES:
            raise EmbedcacheError(f"{self.name} is too long to be read at once: write it as .jsonl, an object a line")
        whole = self._decoded(decoder, text, 1)
        yield from enumerate(whole if isinstance(whole, list) else [whole], 1)

    def _decoded(self, decoder: Any, text: str, line: int) -> Any:
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EmbedcacheError(f"{self.name} line {line}: not JSON ({error}): write it again") from None

    def _reader(self, first: Any, column: str | None) -> Callable[[Any, int], Batch]:
        if not isinstance(first, dict):
            raise EmbedcacheError(
                f'{self.name} line 1: not a JSON object: each line is one, as in {{"embedding": [...]}}'
            )
        services = column is None or column in USUAL
        if services and BATCH_ID in first and "response" in first:
            self.own_id = BATCH_ID
            return self._of_batch
        if services and isinstance(first.get("data"), list):
            return self._of_response
        if services and _lists(first.get("embeddings")) is not None:
            return self._of_cohere
        found = [name for name, value in first.items() if _is_vector(value)]
        self._path = column.split(".") if column and column not in first else []
        if not self._path:
            self._path = [choose(self.name, found, column, list(first), "list of numbers")]
        self.column = ".".join(self._path)
        return self._of_row

    def _of_row(self, one: Any, line: int) -> Batch:
        for name in self._path:
            if not isinstance(one, dict) or name not in one:
                self._refuse(line, f"no {self.column!r} in this row: leave the row out, or choose with --vector")
            one = one[name]
        return Batch([one])

    def _of_batch(self, one: Any, line: int) -> Batch:
        """A line of https://platform.openai.com/docs/guides/batch."""
        name = str(one.get(BATCH_ID)) if isinstance(one, dict) else None
        response = (one.get("response") if isinstance(one, dict) else None) or {}
        body = response.get("body") or {}
        if one.get("error") or response.get("status_code", 200) != 200 or "data" not in body:
            error = one.get("error") or body.get("error") or {}
            said = f" ({error['message']})" if isinstance(error, dict) and error.get("message") else ""
            self._refuse(line, f"the request {name!r} failed{said}: ask for it again, or leave the line out")
        found = self._of_response(body, line)
        count = len(found.vectors)
        ids = [name or ""] if count == 1 else [f"{name}/{i}" for i in range(count)]
        return found._replace(ids=ids)

    def _of_response(self, one: Any, line: int) -> Batch:
        """The embeddings object of https://platform.openai.com/docs/api-reference/embeddings."""
        data = one.get("data") if isinstance(one, dict) else None
        if not isinstance(data, list) or not all(isinstance(item, dict) and "embedding" in item for item in data):
            self._refuse(line, "no list of embeddings in 'data': leave the line out")
        data = sorted(data, key=lambda item: item.get("index", 0))
        return Batch([item["embedding"] for item in data], encoder=one.get("model"))

    def _of_cohere(self, one: Any, line: int) -> Batch:
        found = _lists(one.get("embeddings")) if isinstance(one, dict) else None
        if found is None:
            self._refuse(line, "no 'embeddings' in this response: leave the line out")
        texts = one.get("texts")
        return Batch(found, texts=texts if isinstance(texts, list) and len(texts) == len(found) else None)

    def _refuse(self, line: int, what: str) -> NoReturn:
        raise EmbedcacheError(f"{self.name} line {line}: {what}")

    def _matrix(self, rows: list[tuple[int, Any]]) -> np.ndarray:
        """float32 [n, D]."""
        lists = [_numbers(vector) for _, vector in rows]
        width = None if lists[0] is None else len(lists[0])
        for (line, _), vector in zip(rows, lists, strict=True):
            if vector is None:
                self._refuse(line, "the vector is not a list of numbers: leave the row out")
            if len(vector) != width:
                self._refuse(line, f"the vector has {len(vector):,} numbers, not {width:,}")
        return np.array(lists, np.float32)


def _numbers(vector: Any) -> np.ndarray | None:
    if isinstance(vector, str):
        try:
            return np.frombuffer(base64.b64decode(vector, validate=True), "<f4")
        except (ValueError, binascii.Error):
            return None
    if not _is_vector(vector):
        return None
    try:
        return np.array(vector, np.float32)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) in (float, int) for one in value)


def _lists(value: Any) -> list[Any] | None:
    """The vectors of Cohere's response: lists, or by their type."""
    if isinstance(value, Mapping):
        value = value.get("float")
    return value if isinstance(value, list) and value and _is_vector(value[0]) else None
