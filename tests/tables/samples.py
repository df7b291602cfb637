"""The same small table in every format, written by other people's packages where there are such."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from embedcache.tables.formats import FORMATS
from embedcache.tables.rows import Columns, Rows, read_rows

TEXTS = ["plain", 'with "quotes", and a comma', "two\nlines", "", "   ", "日本語のレビュー", "🎬👍🏽", "مراجعة فيلم"]
LABELS = ["good", "bad", "good", "bad", "", "bad", "nan", "bad"]


LABELLED = Columns(labels=("label",))


def read(path: Path, columns: Columns = LABELLED, **options: Any) -> Rows:
    batches = list(read_rows([path], columns, **options))
    return Rows(
        [text for b in batches for text in b.texts.to_pylist()],
        {name: [v for b in batches for v in b.labels[name]] for name in columns.labels},
        None if columns.id is None else [v for b in batches for v in b.ids.to_pylist()],
        {name: [v for b in batches for v in b.keep[name].to_pylist()] for name in columns.keep},
    )


def write_delimited(path: Path, delimiter: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "text", "label"])
        writer.writerows(zip(map(str, range(len(TEXTS))), TEXTS, LABELS, strict=True))
    return path


def write_jsonl(path: Path) -> Path:
    rows = [{"id": i, "text": t, "label": x} for i, (t, x) in enumerate(zip(TEXTS, LABELS, strict=True))]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns or {"id": range(len(TEXTS)), "text": TEXTS, "label": LABELS}), path)
    return path


def write_array(path: Path) -> Path:
    rows = [{"id": i, "text": t, "label": x} for i, (t, x) in enumerate(zip(TEXTS, LABELS, strict=True))]
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def write_arrow(path: Path, **columns: Any) -> Path:
    """A file, or where its name says .arrow a stream, as datasets has it; of batches of three rows."""
    import pyarrow as pa

    table = pa.table(columns or {"id": range(len(TEXTS)), "text": TEXTS, "label": LABELS})
    new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


def write_sheet(path: Path, rows: Any = None) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows or [("id", "text", "label"), *zip(range(len(TEXTS)), TEXTS, LABELS, strict=True)]:
        book.active.append(row)
    book.save(path)
    return path


def packed(path: Path, how: str) -> Path:
    import pyarrow as pa

    data, out = path.read_bytes(), path.with_name(path.name + how)
    if how == ".zst":
        with pa.output_stream(str(out), compression="zstd") as stream:
            stream.write(data)
    elif how:
        out.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}[how](data))
    return out


def write_database(path: Path, rows: Any = None, names: tuple[str, ...] = ("id", "text", "label")) -> Path:
    """One table, ``reviews``, of columns without types."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"CREATE TABLE reviews ({', '.join(names)})")
        values = list(rows or zip(range(len(TEXTS)), TEXTS, LABELS, strict=True))
        database.executemany(f"INSERT INTO reviews VALUES ({', '.join('?' * len(names))})", values)
        database.commit()
    return path


WRITE: dict[str, Callable[[Path], Path]] = {
    ".csv": lambda path: write_delimited(path, ","),
    ".tsv": lambda path: write_delimited(path, "\t"),
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".json": write_array,
    ".parquet": write_parquet,
    ".feather": write_arrow,
    ".arrow": write_arrow,
    ".ipc": write_arrow,
    ".xlsx": write_sheet,
    ".xlsm": write_sheet,
    ".sqlite": write_database,
    ".sqlite3": write_database,
    ".db": write_database,
}
TABLES = [suffix for suffix in FORMATS if suffix != ".txt"]  # which has one column and no labels
TEXT_TABLES = [suffix for suffix in TABLES if FORMATS[suffix].is_text]
