"""Lines and rows that unpack to far more memory than there is."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.tables.limits import batches_of, text_limit
from embedcache.tables.rows import Columns, read_rows
from tests.faults.conftest import Command, control_group

MB, GB = 10**6, 10**9
GROUP = 400 * MB


def write_packed(path: Path, start: bytes, size: int, end: bytes = b"") -> Path:
    """A .gz, .bz2 or .zst that unpacks to so many bytes "a" between start and end, in a second."""
    pack: Any = {
        ".gz": lambda data: gzip.compress(data, 1),
        ".bz2": bz2.compress,
        ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    }[path.suffix]
    part = 32 << 20
    block = pack(b"a" * part)
    with path.open("wb") as file:
        file.write(pack(start))
        for _ in range(size // part):
            file.write(block)
        file.write(pack(end or b"\n"))
    return path


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("x.csv.gz", b"text,label\nfine,a\n"),
        ("x.csv.gz", b'text,label\nfine,a\n"'),
        ("x.jsonl.gz", b'{"text": "fine", "label": "a"}\n\n{"label": "b", "text": "'),
        ("x.txt.zst", b"fine\nfine\n"),
        ("x.json.gz", b'[{"text": "fine", "label": "a"},\n\n{"label": "b", "text": "'),
    ],
)
def test_one_line_of_four_gigabytes(tmp_path: Path, tiny_bert: Path, name: str, start: bytes) -> None:
    path = write_packed(tmp_path / name, start, 4 * GB)
    with control_group(GROUP) as within:
        command = Command("extract", path, "-o", tmp_path / "c.h5", "--model", tiny_bert, within=within)
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, ""), stderr[-500:]
    assert stderr.startswith(f"Error: {path} line 3") and stderr.count("\n") == 1
    assert "has more than 64 MB" in stderr and "--max-text-mb 128" in stderr
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".zst"])
def test_the_limit_is_counted_in_every_packing(tmp_path: Path, compression: str) -> None:
    path = write_packed(tmp_path / f"x.txt{compression}", b"fine\n", 40 * MB)
    with text_limit(5), pytest.raises(EmbedcacheError, match="line 2 has more than 5 MB"):
        list(read_rows([path], Columns()))
    with text_limit(80):
        assert sum(map(len, read_rows([path], Columns()))) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", 'text,label\nshort,a\n"{}",b\n'),
        ("x.csv", "text,label\nshort,a\nb,{}\n"),
        ("x.csv", 'text,label\nshort,a\n"{}\n{}",b\n'),
        ("x.jsonl", '{{"text": "short", "label": "a"}}\n{{"text": "{}", "label": "a"}}\n'),
        ("x.jsonl", '{{"text": "short", "label": "a"}}\n{{"text": "short", "label": "{}"}}\n'),
        ("x.json", '[{{"text": "short", "label": "a"}},\n{{"text": "{}", "label": "a"}}]\n'),
        ("x.txt", "short\n\n{}\n"),
    ],
)
def test_a_long_cell_is_named(tmp_path: Path, name: str, content: str) -> None:
    """Also where the line is shorter than what is read at a time."""
    path = tmp_path / name
    path.write_text(content.format(*2 * ["é" * 120_000]), encoding="utf-8")
    columns = Columns(labels=() if name == "x.txt" else ("label",))
    with text_limit(0.1), pytest.raises(EmbedcacheError) as error:
        list(read_rows([path], columns))
    line = 2 if "json" in name else 3
    assert f"{path} line {line}" in str(error.value) and "has more than 0.1 MB" in str(error.value)
    assert "--max-text-mb 0.2" in str(error.value)
    assert sum(map(len, read_rows([path], columns))) == (3 if name == "x.txt" else 2)


def write_parquet(path: Path, rows: int, length: int, *, same: bool) -> Path:
    """Texts of ``length`` bytes that take next to nothing in the file: one in all rows, or each its own."""
    schema = pa.schema([("text", pa.string()), ("n", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=same) as writer:
        for start in range(0, rows, 100):
            texts = [("" if same else f"{i} ") + "a" * length for i in range(start, min(start + 100, rows))]
            numbers = list(range(start, start + len(texts)))
            writer.write_table(pa.table({"text": texts, "n": numbers}, schema=schema))
    return path


READ = """
import sys
from embedcache.tables.rows import Columns, read_rows
batches = [len(rows) for rows in read_rows([sys.argv[1]], Columns(keep=("n",)))]
print(sum(batches), max(batches))
"""


@pytest.mark.parametrize("same", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_parquet_rows_of_a_megabyte(tmp_path: Path, same: bool) -> None:
    """800 rows that unpack to 800 MB."""
    path = write_parquet(tmp_path / "x.parquet", 800, MB, same=same)
    assert path.stat().st_size < MB
    script = tmp_path / "read.py"
    script.write_text(READ, encoding="utf-8")
    with control_group(GROUP) as within:
        code, stdout, stderr = Command(path, script=script, within=within).finish()
    assert code == 0, stderr
    rows, most = map(int, stdout.split())
    assert rows == 800 and most < 100


def test_one_page_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    texts = pa.array([f"{i} " + "a" * MB for i in range(500)])
    pq.write_table(pa.table({"text": texts, "n": pa.array(range(500))}), path, compression="zstd", use_dictionary=False)
    del texts
    script = tmp_path / "read.py"
    script.write_text(READ, encoding="utf-8")
    with control_group(GROUP) as within:
        code, _, stderr = Command(path, script=script, within=within).finish()
    assert code == 1
    last = stderr.strip().splitlines()[-1]
    assert f"{path}: pages of 500 rows of 1 MB need about 600 MB of memory" in last and "smaller row groups" in last


@pytest.mark.parametrize("same", [True, False])
def test_parquet_values_do_not_depend_on_the_batches(
    tmp_path: Path, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "x.parquet", 950, 100, same=same)
    whole = list(read_rows([path], Columns(keep=("n",))))
    for module in ("arrow_values", "parquet"):
        monkeypatch.setattr(f"embedcache.tables.formats.{module}.BATCH_BYTES", 4000)
    parts = list(read_rows([path], Columns(keep=("n",))))
    assert len(whole) < 15 and len(parts) > 20
    for read in (lambda rows: rows.texts, lambda rows: rows.keep["n"]):
        assert pa.chunked_array(map(read, whole)).equals(pa.chunked_array(map(read, parts))) or (
            pa.chunked_array(map(read, whole)).to_pylist() == pa.chunked_array(map(read, parts)).to_pylist()
        )


def test_batches_are_cut_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.tables.limits.BATCH_BYTES", 16_000)
    records = ["a"] * 3000 + ["b" * 8000] * 200 + ["c"] * 50
    parts = list(batches_of(records, 1000))
    assert [one for part in parts for one in part] == records
    assert max(map(len, parts)) == 1000
    assert max(sum(map(len, part)) for part in parts) < 64 * 8000 + 16_000


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_forty_thousand_rows_of_a_megabyte(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", 40_000, MB, same=False)
    script = tmp_path / "read.py"
    script.write_text(READ, encoding="utf-8")
    with control_group(GB) as within:
        code, stdout, stderr = Command(path, script=script, within=within).finish(1400)
    assert code == 0, stderr
    assert int(stdout.split()[0]) == 40_000
