""".txt: a text a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embedcache.tables.formats.base import Records, WholeRows
from embedcache.tables.limits import batches_of
from embedcache.tables.source import Source, check_columns


class PlainText(Records):
    """One column, ``text``; blank lines are rows."""

    suffixes = (".txt",)
    what = "a text a line, blank lines too"
    named_by = "one, `text`"
    by_lines = True

    def columns(self, source: Source) -> list[str]:
        return ["text"]

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        with source.text() as file:
            for lines in batches_of(file, batch_rows):
                check_columns(source, wanted, ["text"])
                yield [[line.rstrip("\n") for line in lines]]

    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        for columns in self.batches(source, {"text": ""}, {"text"}, batch_rows):
            yield WholeRows(["text"], columns)

    def records(self, source: Source) -> Iterator[tuple[int, Any]]:
        with source.text() as file:
            yield from enumerate(file, 1)
