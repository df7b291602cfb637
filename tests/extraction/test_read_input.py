"""Planning holds some bytes a row, not the texts."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcache.extraction.read_input import collect
from embedcache.tables.formats import blocks
from embedcache.tables.rows import Columns, read_rows

COLUMNS = Columns(labels=("label",), id="id")
TEXT = "a text of three hundred characters " * 9
FORMATS = ["csv", "jsonl", "parquet"]


def write_table(path: Path, rows: int) -> Path:
    if path.suffix == ".parquet":
        texts = [f"{TEXT}{i}" for i in range(rows)]
        table = pa.table({"id": list(map(str, range(rows))), "text": texts, "label": ["x"] * rows})
        pq.write_table(table, path, row_group_size=2000, compression="none", use_dictionary=False)
        return path
    line, header = '{{"id": "{i}", "text": "{TEXT}{i}", "label": "x"}}\n', ""
    if path.suffix == ".csv":
        line, header = '{i},"{TEXT}{i}",x\n', "id,text,label\n"
    path.write_text(header + "".join(line.format(i=i, TEXT=TEXT) for i in range(rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_readers_hold_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 18)
    path = write_table(tmp_path / f"x.{format}", 40_000)
    before, peak, rows = pa.total_allocated_bytes(), 0, 0
    for batch in read_rows([path], COLUMNS, batch_rows=500):
        peak, rows = max(peak, pa.total_allocated_bytes() - before), rows + len(batch)
    assert rows == 40_000 and 0 < peak < 3 << 20, "of a table of 13 MB"


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 18)
    peaks = []
    for rows in (10_000, 40_000):
        path = write_table(tmp_path / f"{rows}.{format}", rows)
        tracemalloc.start()
        table = collect(read_rows([path], COLUMNS), COLUMNS, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(table.hashes) == rows and len(table.texts[0]) > rows * len(TEXT)
    assert peaks[1] - peaks[0] < 30_000 * 40
