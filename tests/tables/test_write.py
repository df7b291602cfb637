"""Every format that is written is read again, with its types, whole or through a pipe."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import threading
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcache.common.whole_file import open_output
from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.base import ABSENT
from embedcache.tables.formats.values import Kinds
from embedcache.tables.packing import PACKINGS
from embedcache.tables.read import open_source, read_whole
from embedcache.tables.whole import layout_of, whole_columns
from embedcache.tables.write import WRITERS, TableLayout, output_format

COLUMNS: dict[str, list[Any]] = {
    "text": ['a "quote", and\r\na line', "日本 🍿", "", " padded\t", "half \ud83c"],
    "whole": [1, -(2**62), None, 3, ABSENT],
    "number": [1, 0.1, None, float("nan"), float("inf")],
    "flag": [True, False, None, ABSENT, True],
    "labels": [["a", "b"], [], None, ["ä, ü"], ["x"]],
    "any": [{"deep": [1, {"er": None}]}, "plain", 5, None, [1, "x"]],
    "day": [date(2020, 2, 29), None, None, None, ABSENT],
    "huge": [2**70, 1, None, 2, 3],
}


def write(path: Path, columns: dict[str, list[Any]] | None = None, times: int = 2) -> Path:
    columns = COLUMNS if columns is None else columns
    kinds = [Kinds() for _ in columns]
    for kind, values in zip(kinds, columns.values(), strict=True):
        kind.see(values[:2])
        kind.see(values[2:])
    layout = TableLayout(list(columns), [kind.arrow_type for kind in kinds])
    with open_output(path) as output, output_format(path).open(output, layout) as writer:
        for _ in range(times):
            writer.write(list(columns.values()))
    return path


def read(path: Path) -> tuple[list[str], list[list[Any]]]:
    source = open_source(path)
    layout, _ = layout_of(source)
    columns: list[list[Any]] = [[] for _ in layout.names]
    for part in whole_columns(source, layout, 3):
        for column, values in zip(columns, part, strict=True):
            column.extend(values if isinstance(values, list) else values.to_pylist())
    return layout.names, columns


@pytest.mark.parametrize("suffix", [suffix for suffix, writer in WRITERS.items() if writer.has_types])
def test_types_are_kept(tmp_path: Path, suffix: str) -> None:
    names, (text, whole, number, flag, labels, rest, day, huge) = read(write(tmp_path / f"t{suffix}"))
    assert names == list(COLUMNS) and len(text) == 10
    assert text[:5] == [*COLUMNS["text"][:4], "half ?"]
    assert whole[:5] == [1, -(2**62), None, 3, None]
    assert str(number[:5]) == "[1.0, 0.1, None, nan, inf]"
    assert flag[:5] == [True, False, None, None, True] and labels[:5] == COLUMNS["labels"]
    assert rest[:5] == ['{"deep": [1, {"er": null}]}', "plain", "5", None, '[1, "x"]']
    assert day[0] == date(2020, 2, 29) and huge[0] == str(2**70)


CELLS = [suffix for suffix, writer in WRITERS.items() if not writer.has_types and not writer.nests]


@pytest.mark.parametrize("suffix", [*CELLS, *(f".csv{packing}" for packing in PACKINGS)])
def test_cells(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t{suffix}")
    names, columns = read(path)
    assert names == list(COLUMNS)
    cells = {name: column[:5] for name, column in zip(names, columns, strict=True)}
    assert cells == {
        "text": [*COLUMNS["text"][:4], "half ?"],
        "whole": ["1", str(-(2**62)), "", "3", ""],
        "number": ["1", "0.1", "", "", "inf"],
        "flag": ["true", "false", "", "", "true"],
        "labels": ['["a", "b"]', "[]", "", '["ä, ü"]', '["x"]'],
        "any": ['{"deep": [1, {"er": null}]}', "plain", "5", "", '[1, "x"]'],
        "day": ["2020-02-29", "", "", "", ""],
        "huge": [str(2**70), "1", "", "2", "3"],
    }
    before = path.read_bytes()
    assert write(path).read_bytes() == before  # the same at any time


@pytest.mark.parametrize("suffix", [*(suffix for suffix, writer in WRITERS.items() if writer.nests), ".jsonl.gz"])
def test_objects(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t{suffix}")
    text = gzip.decompress(path.read_bytes()).decode() if suffix.endswith("gz") else path.read_text("utf-8")
    rows = json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 10 and list(rows[0]) == list(COLUMNS)
    assert rows[0]["any"] == COLUMNS["any"][0] and rows[0]["day"] == "2020-02-29" and rows[0]["huge"] == 2**70
    assert [row.get("number") for row in rows[:5]] == [1, 0.1, None, None, None]
    assert list(rows[4]) == ["text", "number", "flag", "labels", "any", "huge"] and rows[4]["text"] == "half \ud83c"
    assert "whole" in rows[2] and rows[2]["whole"] is None
    assert read(path)[0] == list(COLUMNS)


def test_what_arrow_gives_is_written_as_it_is(tmp_path: Path) -> None:
    """Decimals, times, structs, nulls, names: from Parquet to Parquet nothing is lost but row groups."""
    table = pa.table(
        {
            "when": pa.array([datetime(2020, 1, 1), None], pa.timestamp("ns", "Europe/Berlin")),
            "name": pa.array(["a", None]).dictionary_encode(),
            "price": pa.array(["1.10", None]).cast(pa.decimal128(9, 2)),
            "deep": pa.array([{"a": [1]}, None]),
            "small": pa.array([0.1, None], pa.float32()),
            "raw": pa.array([b"\xff", None]),
            "none": pa.nulls(2),
        }
    ).replace_schema_metadata({"about": "x"})
    pq.write_table(table, tmp_path / "in.parquet")
    table = pq.read_table(tmp_path / "in.parquet")
    for suffix in (".parquet", ".feather", ".csv", ".jsonl"):
        path = tmp_path / f"out{suffix}"
        layout = TableLayout(table.schema.names, list(table.schema.types), table.schema.metadata)
        with open_output(path) as output, output_format(path).open(output, layout) as writer:
            for part in read_whole(open_source(tmp_path / "in.parquet"), 1):
                writer.write(part.columns)
    assert pq.read_table(tmp_path / "out.parquet").equals(table, check_metadata=True)
    again = pa.ipc.open_file(tmp_path / "out.feather").read_all()
    assert again.drop_columns("name").equals(table.drop_columns("name")) and again["name"].to_pylist() == ["a", None]
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (row["price"], row["small"], row["raw"], row["deep"]) == (1.1, 0.1, "/w==", {"a": [1]})
    assert row["when"].startswith("2020-01-01T01:00:00")
    assert (tmp_path / "out.csv").read_text().splitlines()[2] == ",,,,,,"


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_an_empty_table(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t{suffix}", {"text": []}, times=0)
    assert sum(map(len, read_whole(open_source(path), 3))) == 0
    assert open_source(path).format.columns(open_source(path)) == ([] if "json" in suffix else ["text"])


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv.zst", ".csv.bz2"])
def test_nothing_seeks(tmp_path: Path, suffix: str) -> None:
    """So each format goes through a pipe."""
    fifo, read = tmp_path / f"fifo{suffix}", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write(fifo)
    reader.join(20)
    assert read == [write(tmp_path / f"file{suffix}").read_bytes()]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl.gz", ".csv.zst"])
@pytest.mark.parametrize("place", ["file", "fifo"])
def test_a_failure_leaves_nothing_that_looks_whole(tmp_path: Path, suffix: str, place: str) -> None:
    path, read = tmp_path / f"out{suffix}", []
    if place == "fifo":
        os.mkfifo(path)
        reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
        reader.start()
    layout = TableLayout(["n"], [pa.int64()])
    with (
        pytest.raises(ZeroDivisionError),
        open_output(path) as output,
        output_format(path).open(output, layout) as writer,
    ):
        writer.write([[1, 2, 3]])
        _ = 1 / 0
    if place == "file":
        assert list(tmp_path.iterdir()) == []
    else:
        reader.join(20)
        assert not read[0].endswith(b"PAR1") or len(read[0]) == 4


@pytest.mark.parametrize("name", ["out", "out.txt", "out.xlsx", "out.parquet.gz", "out.csv.xz", "out.gz", ".csv"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmbedcacheError, match=r"name one of \.csv, \.tsv, \.jsonl, .* \.gz, \.bz2, \.zst after it"):
        output_format(tmp_path / name)


def test_streams_are_lines_of_json_if_their_name_does_not_say_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tsv")
    for name, suffix in (("-", ".jsonl"), ("/dev/stdout", ".jsonl"), ("/dev/null", ".jsonl"), ("fifo.tsv", ".tsv")):
        assert output_format(tmp_path / name if name == "fifo.tsv" else name).writer is WRITERS[suffix]


def test_bz2_is_what_it_says(tmp_path: Path) -> None:
    assert bz2.decompress(write(tmp_path / "t.csv.bz2").read_bytes()) == write(tmp_path / "t.csv").read_bytes()
