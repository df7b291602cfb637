"""The table of a ladder, read once: what its encoders need of it, kept beside them until each has made its cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from embedcache.common.whole_file import whole_binary
from embedcache.extraction.columns import Asked, choose_columns
from embedcache.tables.rows import Rows, read_rows
from embedcache.tables.stream import stored

NAME = ".table.jsonl"


def copy_table(
    source: str, folder: Path, *, text: str, labels: str | Sequence[str] | None, keep: Sequence[str], **reading: Any
) -> Path:
    """Write texts, labels and kept columns as JSON lines; ``extract`` makes the same of them as of the table.

    Args:
        source: the table, or a stream.
        folder: where the copy goes.
        text: see ``extract``.
        labels: see ``extract``.
        keep: see ``extract``.
        reading: how files are read, see ``read_rows``.

    Returns:
        The copy.

    Raises:
        EmbedcacheError: the table cannot be read, or its copy not be written.
    """
    copy, encoder = folder / NAME, msgspec.json.Encoder()
    with stored(source) as table:
        columns, _ = choose_columns([table], Asked(text, labels, None, tuple(keep)), None, None, reading)
        with whole_binary(copy) as file:
            for rows in read_rows([table], columns, **reading):
                file.write(encoder.encode_lines(_objects(rows, text)))
    return copy


def _objects(rows: Rows, text: str) -> list[dict[str, Any]]:
    """One for each row. A label that is missing is null; what ``read_rows`` took for one is not looked at again."""
    columns = {**{name: column.to_pylist() for name, column in rows.keep.items()}, **rows.labels}
    columns[text] = rows.texts.to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
