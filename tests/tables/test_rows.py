"""Every format, every packing, and one clear line for each way in which an input file can be wrong."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import blocks
from embedcache.tables.rows import Columns, Rows, column_names, read_lines, read_rows

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


WRITE: dict[str, Callable[[Path], Path]] = {
    "csv": lambda path: write_delimited(path, ","),
    "tsv": lambda path: write_delimited(path, "\t"),
    "jsonl": write_jsonl,
    "json": write_array,
    "parquet": write_parquet,
    "feather": write_arrow,
    "arrow": write_arrow,
    "xlsx": write_sheet,
}


@pytest.mark.parametrize("packing", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("format", WRITE)
@pytest.mark.parametrize("batch_rows", [3, 8192])
def test_every_format_gives_the_same_rows(tmp_path: Path, format: str, packing: str, batch_rows: int) -> None:
    path = WRITE[format](tmp_path / f"reviews.{format}")
    if format in ("parquet", "feather", "arrow", "xlsx"):
        packing = ""
    rows = read(packed(path, packing), Columns(labels=("label",), id="id"), batch_rows=batch_rows)
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
@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "json", "txt"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, format: str, encoding: str) -> None:
    path = tmp_path / f"x.{format}"
    write = {"csv": WRITE["csv"], "tsv": WRITE["tsv"], "jsonl": write_jsonl, "json": write_array}
    if format == "txt":
        path.write_text("日本語のレビュー\n")
    else:
        write[format](path)
    mark = "\ufeff" if encoding.endswith("-be") else ""  # the others write one themselves
    path.write_bytes((mark + path.read_bytes().decode()).encode(encoding))
    texts = ["日本語のレビュー"] if format == "txt" else TEXTS
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


@pytest.mark.parametrize("batch_rows", [1, 8192])
@pytest.mark.parametrize("format", WRITE)
def test_a_label_column_of_lists(tmp_path: Path, format: str, batch_rows: int) -> None:
    path = tmp_path / f"x.{format}"
    if format in ("parquet", "feather", "arrow"):
        (write_parquet if format == "parquet" else write_arrow)(path, text=list("abcdef"), label=LISTS)
    elif format == "json":
        path.write_text(json.dumps([{"text": t, "label": x} for t, x in zip("abcdef", LISTS, strict=True)]))
    elif format == "xlsx":
        cells = [None if x is None else json.dumps(x, ensure_ascii=False) for x in LISTS]
        write_sheet(path, [("text", "label"), *zip("abcdef", cells, strict=True)])
    elif format == "jsonl":
        path.write_text("\n".join(json.dumps({"text": t, "label": x}) for t, x in zip("abcdef", LISTS, strict=True)))
    else:
        cells = ["" if x is None else json.dumps(x, ensure_ascii=False) for x in LISTS]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="," if format == "csv" else "\t").writerows(
                [("text", "label"), *zip("abcdef", cells, strict=True)]
            )
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
    assert column_names(write_delimited(tmp_path / "a.tsv", "\t")) == ["id", "text", "label"]
    assert column_names(packed(write_jsonl(tmp_path / "b.ndjson"), ".gz")) == ["id", "text", "label"]
    assert column_names(write_parquet(tmp_path / "c.parquet")) == ["id", "text", "label"]
    assert column_names(write_array(tmp_path / "c.json")) == ["id", "text", "label"]
    assert column_names(write_arrow(tmp_path / "c.feather")) == ["id", "text", "label"]
    assert column_names(write_arrow(tmp_path / "c.arrow")) == ["id", "text", "label"]
    assert column_names(write_sheet(tmp_path / "c.xlsx")) == ["id", "text", "label"]
    (tmp_path / "d.txt").write_text("x")
    assert column_names(tmp_path / "d.txt") == ["text"]
    (tmp_path / "e.csv").write_text("")
    assert column_names(tmp_path / "e.csv") == []


BAD = [
    ("x.csv", b"", r"x\.csv is empty"),
    ("x.csv", b"text,label\n", r"has a header but no rows"),
    ("x.jsonl", b"\n \n", r"is empty"),
    ("x.txt", b"", r"is empty"),
    ("x.csv", b"texts,label\na,b\n", r"no column 'text' \(did you mean 'texts'\?\); it has: texts, label; .*--text"),
    ("x.csv", b"text;label\na;b\nc\n", r"line 3: 1 fields where the header has 2"),
    ("x.csv", b"text^label\na^b\n", r"no column 'text'; it has: text\^label; choose with --text"),
    ("x.csv", b"text,label,text\na,b,c\n", r"2 columns named 'text'"),
    ("x.csv", b'text,label\na,b\n"a"x,b\n', r"line 3: broken quoting"),
    ("x.csv", b'text,label\na,b\n"a\n\n,b\nc,d\n', r"line 3: broken quoting"),
    ("x.csv", b'text,label\n"a\nb",c\n\nd\n', r"line 5: 1 fields where the header has 2"),
    ("x.csv", b"text,label\na,b\na,b,c\n", r"line 3: 3 fields where the header has 2"),
    ("x.csv", b"text,label\nok,a\n\xe9t\xe9,b\n", r"not UTF-8: byte 16 \(line 3\) is 0xe9: .*--encoding cp1252"),
    ("x.csv", "text,label\na,b\n".encode("utf-16")[:-1], r"not utf-16: byte 30 \(line 3\) is 0x0a: is it cut off"),
    ("x.csv", b"text,label\na\0b,c\n", r"NUL"),
    ("x.csv", "text,label\na,b\n".encode("utf-16-le"), r"as in UTF-16 without a byte order mark: .* utf-16-le$"),
    ("x.csv", "text,label\na,b\n".encode("utf-16-be"), r"as in UTF-16 without a byte order mark: .* utf-16-be$"),
    ("x.csv", b"PK\x03\x04\x14\0\x06\0\x08\0\xff", r"is a workbook or another zip archive, .*: name it \.xlsx"),
    ("x.csv", gzip.compress(b"text,label\na,b\n"), r"is packed by gzip, whatever its name says: add \.gz to"),
    ("x.jsonl", b"PAR1\x15\x04\xff\n", r"is a Parquet file, whatever its name says: name it \.parquet"),
    ("x.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', r"line 2: not JSON"),
    ("x.jsonl", b"[" * 100_000, r"line 1: not JSON"),
    ("x.jsonl", b'["a"]\n', r"line 1: not a JSON object"),
    ("x.jsonl", b'{"text": "a", "label": "b"}\n\n{"label": "b"}\n', r"line 3: no 'text' in this row, .*: label"),
    ("x.jsonl", b'{"text": "a", "label": {"b": 1}}\n', r"line 1: column 'label' \(--label\) holds an object"),
    ("x.jsonl", b'{"text": "a", "label": ["b", null]}\n', r"line 1: column 'label' .* a list that holds null"),
    ("x.jsonl", b'{"text": "a", "label": ["b", " "]}\n', r"line 1: .* a list that holds ' ', which is no label"),
    ("x.jsonl", b'{"text": "a", "label": [["b"]]}\n', r"line 1: .* a list that holds a list"),
    ("x.jsonl", b'{"text": "a", "label": ["\\ud800"]}\n', r"line 1: .*surrogate"),
    (
        "x.jsonl",
        b'{"text": "a", "label": ["b"]}\n{"text": "a", "label": "b"}',
        r"line 2: .* 'b', which is no list, but",
    ),
    ("x.jsonl", b'{"text": "a", "label": 1}\n\n{"text": "a", "label": []}', r"line 3: .* a list, but single labels in"),
    ("x.csv", b'text,label\na,"[""b""]"\nb,\nc,d\n', r"line 4: column 'label' .* 'd', which is no list, but lists in"),
    ("x.csv", b'text,label\na,b\nb,"[""b""]"\n', r"line 3: .* a list, but single labels in earlier rows"),
    ("x.csv", b"text,label\na,\"['b', 'c']\"\n", r"line 2: .*no JSON list: write it as \[\"a\", \"b\"\]"),
    ("x.csv", b'text,label\na,"[1, NaN]"\n', r"line 2: .* a list that holds null"),
    ("x.jsonl", b'{"text": {"a": 1}, "label": "b"}\n', r"line 1: column 'text' \(--text\) holds an object"),
    ("x.jsonl", b'{"text": "a", "label": "b"}\n{"text": "\\ud800", "label": "b"}', r"line 2: .*surrogate"),
    ("x.jsonl", b'{"text": "a\\u0000", "label": "b"}', r"line 1: column 'text' holds a NUL"),
    ("x.parquet", b"not one", r"not a Parquet file"),
    ("x.csv.gz", b"text,label\na,b\n", r"cannot be read .*\.gz"),
    ("x.csv.zst", b"text,label\na,b\n", r"cannot be read .*\.zst"),
    ("x.csv.bz2", b"text,label\na,b\n", r"cannot be read .*\.bz2"),
    ("x.json", b"", r"is empty"),
    ("x.json", b" [ ] \n", r"is empty"),
    ("x.json", b'"text"', r"line 1: not a JSON array of objects \(neither an array nor an object\)"),
    ("x.json", b'[{"text": "a", "label": "b"}\n', r"line 2: .*it ends too early"),
    ("x.json", b'[\n{"text": "a", "label": "b"},\n{"text": "a\n"}]', r"line 3: .*Invalid control character"),
    ("x.json", b'[\n{"text": "a", "label": "b"} {"text": "a"}]', r"line 2: .*',' or '\]' is missing here"),
    ("x.json", b'[\n{"text": "a", "label": "b"},\n]', r"line 3: .*Expecting value"),
    ("x.json", b'[\n{"text": "a", "label": "b"}\n]\n[]', r"line 4: .*something follows"),
    ("x.json", b'[\n{"text": "a", "label": "b"},\n{"text": "c", "la', r"line 3: .*it ends too early"),
    ("x.json", b'[{"text": "a", "label": "b"},\n\n["a"]]', r"line 3: not a JSON object"),
    ("x.json", b'[{"text": "a", "label": "b"},\n{"label": "b"}]', r"line 2: no 'text' in this row, .*: label"),
    ("x.json", b'[\n{"text": "a", "label": "b"},\n{"text": ["a"], "label": "b"}]', r"line 3: column 'text' .* a list"),
    ("x.json", b"[" * 100_000, r"line 1: .*nested too deeply"),
    ("x.json", b'{\n"text": ["a", "b"]}', r"is one JSON object, not a table: .*orient=\"records\""),
    ("x.json", b'{"text": {"0": "a"}, "label": {"0": "b"}}', r"is one JSON object, not a table: .*orient=\"records\""),
    ("x.json", b'{"version": 1, "data": []}', r"no column 'text'; it has: version, data; a table is an array of obj"),
    ("x.json", b'{"text": "a", "label": "b"}\n{"text": \n', r"line 2: not JSON"),
    ("x.json.gz", b"[]", r"cannot be read .*\.gz"),
    ("x.arrow", b"not one, in spite of its name", r"not an Arrow file or stream, or a damaged one"),
    ("x.feather", b"", r"not an Arrow file or stream, or a damaged one"),
    ("x.feather", b"FEA1 and more", r"Feather file of version 1: write it again"),
    ("x.xlsx", b"not one", r"not a workbook, or a damaged one"),
    ("x.xls", b"", r"unknown kind of file '\.xls': save it as \.xlsx or \.csv"),
    ("x.pkl", b"", r"unknown kind of file '\.pkl': it may hold any code"),
    ("x.arrow.gz", b"", r"unknown kind of file '\.arrow\.gz'"),
    ("x", b"text\na", r"unknown kind of file ''"),
    ("x.parquet.gz", b"", r"unknown kind of file '\.parquet\.gz'"),
]


@pytest.mark.parametrize("block", [5, 1 << 22])
@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_get_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str, block: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EmbedcacheError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    assert path.read_bytes() == content


def test_paths_are_checked_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="no such file"):
        read_rows([tmp_path / "none.csv"], Columns())
    with pytest.raises(EmbedcacheError, match="is a directory"):
        read_rows([tmp_path], Columns())
    with pytest.raises(EmbedcacheError, match="name at least one"):
        read_rows([], Columns())
    with pytest.raises(EmbedcacheError, match="unknown encoding 'utf-9'"):
        read_rows([write_jsonl(tmp_path / "a.jsonl")], Columns(), encoding="utf-9")


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".zst"])
def test_a_file_that_is_cut_off(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"{i * 7919 % 10007} words {i},a\n" for i in range(5000)))
    whole = packed(path, packing)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(EmbedcacheError, match=r"cannot be read .*cut off"):
        read(whole)


def test_a_bad_byte_far_into_the_file(tmp_path: Path) -> None:
    """The position is the file's, not a buffer's, also right behind a character that two buffers share."""
    for before in (1 << 20, (1 << 20) - 2, (1 << 20) - 4, 3_000_001):
        data = b"text,label\n" + b"x,a\n" * 1000
        data += b"y" * (before - len(data) - 3) + "日".encode()
        (tmp_path / "x.csv").write_bytes(data + b"\xff,a\n")
        with pytest.raises(EmbedcacheError, match=rf"byte {len(data)} \(line 1002\) is 0xff"):
            read(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(b"text,label\na,\xe6\x97")
    with pytest.raises(EmbedcacheError, match=r"byte 13 \(line 2\) is 0xe6"):
        read(tmp_path / "x.csv")


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", text=[f"text {i}" for i in range(5000)], label=["a"] * 5000)
    data = bytearray(path.read_bytes())
    data[10:2000] = bytes(1990)
    path.write_bytes(data)
    with pytest.raises(EmbedcacheError, match="Parquet"):
        read(path)
    path.write_bytes(data[:-100])
    with pytest.raises(EmbedcacheError, match="not a Parquet file, or cut off"):
        read(path)


def test_parquet_strings_that_are_not_utf8(tmp_path: Path) -> None:
    import pyarrow as pa

    raw = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    with pytest.raises(EmbedcacheError, match="strings that are not UTF-8"):
        read(write_parquet(tmp_path / "x.parquet", text=raw), Columns())


def test_parquet_columns_with_dots_and_dictionaries(tmp_path: Path) -> None:
    import pyarrow as pa

    label = pa.array(["a", "b", None]).dictionary_encode()
    table = {"the.text": ["x", "y", "z"], "the": [1, 2, 3], "label": label}
    rows = read(write_parquet(tmp_path / "x.parquet", **table), Columns("the.text", ("label",), keep=("the",)))
    assert (rows.texts, rows.labels["label"], rows.keep["the"]) == (["x", "y", "z"], ["a", "b", None], ["1", "2", "3"])
