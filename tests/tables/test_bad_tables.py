"""One clear line for each way in which an input file can be wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import blocks
from embedcache.tables.packing import PACKINGS
from embedcache.tables.rows import Columns, read_rows
from tests.tables.samples import packed, read, write_jsonl, write_parquet

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
    ("x.csv", gzip.compress(b"text,label\na,b\n", mtime=0), r"is packed by gzip, whatever its name says: add \.gz to"),
    ("x.jsonl", b"PAR1\x15\x04\xff\n", r"is a Parquet file, whatever its name says: name it \.parquet"),
    ("x.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', r"line 2: not JSON"),
    ("x.jsonl", b"[" * 100_000, r"line 1: not JSON"),
    ("x.jsonl", b'["a"]\n', r"line 1: not a JSON object"),
    ("x.jsonl", b'{"text": "a", "label": "b"}\n\n{"label": "b"}\n', r"line 3: no 'text' in this row, .*: label"),
    ("x.jsonl", b'{"text": "a", "label": {"b": 1}}\n', r"line 1: column 'label' \(--label\) holds an object"),
    ("x.jsonl", b'{"text": "a", "label": ["b", null]}\n', r"line 1: column 'label' .* a list that holds null"),
    ("x.jsonl", b'{"text": "a", "label": ["b", " "]}\n', r"line 1: .* a list that holds ' ', which is not a label"),
    ("x.jsonl", b'{"text": "a", "label": [["b"]]}\n', r"line 1: .* a list that holds a list"),
    ("x.jsonl", b'{"text": "a", "label": ["\\ud800"]}\n', r"line 1: .*surrogate"),
    (
        "x.jsonl",
        b'{"text": "a", "label": ["b"]}\n{"text": "a", "label": "b"}',
        r"line 2: .* 'b', which is not a list, but",
    ),
    ("x.jsonl", b'{"text": "a", "label": 1}\n\n{"text": "a", "label": []}', r"line 3: .* a list, but single labels in"),
    (
        "x.csv",
        b'text,label\na,"[""b""]"\nb,\nc,d\n',
        r"line 4: column 'label' .* 'd', which is not a list, but lists in",
    ),
    ("x.csv", b'text,label\na,b\nb,"[""b""]"\n', r"line 3: .* a list, but single labels in earlier rows"),
    ("x.csv", b"text,label\na,\"['b', 'c']\"\n", r"line 2: .*a JSON list: write it as \["),
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
    ("x.sqlite", b"not one", r"not an SQLite database, or a damaged one"),
    ("x.sqlite", b"", r"has no table"),
    ("x.csv", b"SQLite format 3\0\x10\0\1\1\0", r"is an SQLite database, whatever its name says: name it \.sqlite"),
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


@pytest.mark.parametrize("packing", PACKINGS)
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
