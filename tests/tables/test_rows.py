"""Every format and every packing give the same rows, whatever their cells are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import FORMATS
from embedcache.tables.packing import PACKINGS
from embedcache.tables.rows import Columns, column_names, read_lines, read_rows
from tests.tables.samples import (
    LABELLED,
    TABLES,
    TEXT_TABLES,
    TEXTS,
    WRITE,
    packed,
    read,
    write_arrow,
    write_database,
    write_delimited,
    write_jsonl,
    write_parquet,
    write_sheet,
)


@pytest.mark.parametrize("packing", ["", *PACKINGS])
@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("batch_rows", [3, 8192])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, packing: str, batch_rows: int) -> None:
    path = packed(WRITE[suffix](tmp_path / f"reviews{suffix}"), packing)
    columns = Columns(labels=("label",), id="id")
    if packing and not FORMATS[suffix].is_text:
        with pytest.raises(EmbedcacheError, match="unknown kind of file"):
            read(path, columns)
        return
    rows = read(path, columns, batch_rows=batch_rows)
    assert rows.texts == TEXTS
    assert rows.labels["label"] == ["good", "bad", "good", "bad", None, "bad", None, "bad"]
    assert rows.ids == [str(i) for i in range(len(TEXTS))]


def test_plain_text_keeps_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\r\n\r\n  two\nthree \u2028 still three".encode())
    assert read(path, Columns()).texts == ["one", "", "  two", "three \u2028 still three"]
    path.rename(tmp_path / "queries")
    assert read_lines(tmp_path / "queries") == ["one", "", "  two", "three \u2028 still three"]


def test_several_files_stream_one_after_the_other(tmp_path: Path) -> None:
    first, second = write_delimited(tmp_path / "a.csv", ","), write_jsonl(tmp_path / "b.jsonl")
    batches = list(read_rows([first, str(second)], LABELLED, batch_rows=5))
    assert [len(b) for b in batches] == [5, 3, 5, 3]
    assert [t for b in batches for t in b.texts.to_pylist()] == TEXTS * 2
    (tmp_path / "c.csv").write_text("text\nx\n")
    with pytest.raises(EmbedcacheError, match=r"c\.csv has no column 'label'"):
        list(read_rows([first, tmp_path / "c.csv"], LABELLED))


def test_byte_order_mark_and_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("\ufefftext,label\nété,a\n".encode())
    assert read(path).texts == ["été"]
    for encoding in ("cp1252", "utf-16", "utf-16-le"):
        path.write_bytes("text,label\nété,a\n".encode(encoding))
        assert read(path, encoding=encoding).texts == ["été"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("suffix", [*TEXT_TABLES, ".txt"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, suffix: str, encoding: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".txt":
        path.write_text("日本語のレビュー\n", encoding="utf-8")
    else:
        WRITE[suffix](path)
    mark = "\ufeff" if encoding.endswith("-be") else ""  # the others write one themselves
    path.write_bytes((mark + path.read_bytes().decode()).encode(encoding))
    texts = ["日本語のレビュー"] if suffix == ".txt" else TEXTS
    assert read(path, Columns()).texts == texts
    assert read(packed(path, ".gz"), Columns()).texts == texts


def test_values_are_strings_in_json_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [
        '{"text": 12, "label": true, "tags": ["a", 1]}',
        "",
        '{"text": null, "label": NaN, "tags": null}',
        '{"text": "x"}',
    ]
    path.write_text("\n".join(lines))
    rows = read(path, Columns(labels=("label",), keep=("tags", "text")))
    assert rows.texts == ["12", "", "x"]
    assert rows.labels["label"] == ["true", None, None]
    assert rows.keep == {"tags": ['["a", 1]', "", ""], "text": ["12", "", "x"]}
    import pyarrow as pa

    times = (
        pa.array([1, 10**9], pa.timestamp("ns")),
        pa.array([2932897, 0], pa.date32()),
        pa.array([7, 0], "duration[ns]"),
    )
    columns = dict(zip(("time", "day", "took"), times, strict=True)) | {"stars": pa.array([0.1, None], pa.float32())}
    parquet = write_parquet(tmp_path / "t.parquet", text=["a", "b"], **columns)
    assert read(parquet, Columns(keep=("time", "day", "took", "stars"))).keep == {
        "time": ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:01"],
        "day": ["10000-01-01", "1970-01-01"],
        "took": ["7", "0:00:00"],
        "stars": ["0.1", ""],
    }
    parquet = write_parquet(tmp_path / "x.parquet", text=["a", None], label=[1, None], score=[0.5, float("nan")])
    rows = read(parquet, Columns(labels=("label",), keep=("score",)))
    assert (rows.texts, rows.labels["label"], rows.keep["score"]) == (["a", ""], ["1", None], ["0.5", ""])


LISTS = [["b", "a", "b"], None, [], ["日本", "1"], None, ["a"]]
EXPECTED = [("b", "a"), None, (), ("日本", "1"), None, ("a",)]


def write_lists(path: Path) -> Path:
    """The texts a to f with LISTS: as lists where a cell may be one, else as JSON."""
    cells = [None if x is None else json.dumps(x, ensure_ascii=False) for x in LISTS]
    as_json, as_lists = list(zip("abcdef", cells, strict=True)), list(zip("abcdef", LISTS, strict=True))
    suffix = path.suffix
    if suffix == ".parquet" or FORMATS[suffix].what.startswith("Arrow"):
        return (write_parquet if suffix == ".parquet" else write_arrow)(path, text=list("abcdef"), label=LISTS)
    if suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="," if suffix == ".csv" else "\t").writerows([("text", "label"), *as_json])
    elif suffix == ".json":
        path.write_text(json.dumps([{"text": t, "label": x} for t, x in as_lists]))
    elif suffix in (".jsonl", ".ndjson"):
        path.write_text("\n".join(json.dumps({"text": t, "label": x}) for t, x in as_lists))
    elif suffix in (".xlsx", ".xlsm"):
        write_sheet(path, [("text", "label"), *as_json])
    else:
        write_database(path, as_json, ("text", "label"))
    return path


@pytest.mark.parametrize("batch_rows", [1, 8192])
@pytest.mark.parametrize("suffix", TABLES)
def test_a_label_column_of_lists(tmp_path: Path, suffix: str, batch_rows: int) -> None:
    path = write_lists(tmp_path / f"x{suffix}")
    rows = read(path, Columns(labels=("label",), keep=("label",)), batch_rows=batch_rows)
    assert rows.labels["label"] == EXPECTED
    assert rows.keep["label"] == ["" if x is None else json.dumps(x, ensure_ascii=False) for x in LISTS]


def test_what_a_list_may_hold(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": [1, true, "1", 0.5, "None", "a, b"]}\n')
    assert read(path).labels["label"] == [("1", "true", "0.5", "None", "a, b")]
    path.write_text('{"text": "a", "label": "[\\"a\\"]"}\n')  # JSON has lists of its own: a string is a string
    assert read(path).labels["label"] == ['["a"]']
    (tmp_path / "x.csv").write_text("text,label\na,[positive]\nb,[1\n")  # nor is everything in brackets a list
    assert read(tmp_path / "x.csv").labels["label"] == ["[positive]", "[1"]


def test_lists_in_one_file_and_single_labels_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": null}\n{"text": "a", "label": ["b"]}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "a", "label": null}\n{"text": "a", "label": "b"}\n')
    with pytest.raises(EmbedcacheError, match=r"b\.jsonl line 2: .* but lists in earlier rows"):
        list(read_rows([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], LABELLED))


def test_a_text_of_two_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("text,label\n" + "word " * 400_000 + ",a\n")
    assert len(read(path).texts[0]) == 2_000_000


def test_blank_lines_in_a_csv_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\n\ntext,label\n\na,b\n\n\n")
    assert read(path).texts == ["a"]


def test_column_names(tmp_path: Path) -> None:
    for suffix in TABLES:
        assert column_names(WRITE[suffix](tmp_path / f"a{suffix}")) == ["id", "text", "label"], suffix
    assert column_names(packed(write_jsonl(tmp_path / "b.ndjson"), ".gz")) == ["id", "text", "label"]
    (tmp_path / "d.txt").write_text("x")
    assert column_names(tmp_path / "d.txt") == ["text"]
    (tmp_path / "e.csv").write_text("")
    assert column_names(tmp_path / "e.csv") == []


def test_parquet_columns_with_dots_and_dictionaries(tmp_path: Path) -> None:
    import pyarrow as pa

    label = pa.array(["a", "b", None]).dictionary_encode()
    table = {"the.text": ["x", "y", "z"], "the": [1, 2, 3], "label": label}
    rows = read(write_parquet(tmp_path / "x.parquet", **table), Columns("the.text", ("label",), keep=("the",)))
    assert (rows.texts, rows.labels["label"], rows.keep["the"]) == (["x", "y", "z"], ["a", "b", None], ["1", "2", "3"])
