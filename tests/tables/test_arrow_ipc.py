"""Arrow's files and streams: their types, and damaged ones."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import arrow_values
from embedcache.tables.rows import Columns, read_rows

SUFFIXES = pytest.mark.parametrize("suffix", [".feather", ".arrow"])  # a file, a stream


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with new(str(path), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def read(path: Path, *keep: str) -> dict[str, list[str]]:
    batches = list(read_rows([path], Columns(keep=keep)))
    columns = {name: [value for batch in batches for value in batch.keep[name].to_pylist()] for name in keep}
    return {"text": [text for batch in batches for text in batch.texts.to_pylist()], **columns}


@SUFFIXES
def test_types_become_what_they_become_from_parquet(tmp_path: Path, suffix: str) -> None:
    import pyarrow.parquet as pq

    days = [datetime.date(2020, 1, 2), None, datetime.date(1, 1, 1)]
    table = pa.table(
        {
            "text": pa.array(["a", None, "日本"], pa.string_view()),
            "coded": pa.array(["x", "y", "x"]).dictionary_encode(),
            "large": pa.array(["x", "y", None], pa.large_string()),
            "day": days,
            "stars": pa.array([0.1, None, 3.0], pa.float32()),
            "tags": [["a"], [], None],
            "yes": [True, False, None],
        }
    )
    names = [name for name in table.column_names if name != "text"]
    pq.write_table(table.set_column(0, "text", table["text"].cast(pa.string())), tmp_path / "x.parquet")
    expected = read(tmp_path / "x.parquet", *names)
    assert read(write(tmp_path / f"x{suffix}", table), *names) == expected
    assert expected["stars"] == ["0.1", "", "3.0"]
    assert read(write(tmp_path / f"z{suffix}", table, compression="zstd"), *names) == expected


@SUFFIXES
def test_strings_of_a_pyarrow_that_cannot_measure_views(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_values, "_measures_views", lambda: False)
    texts = ["a", None, "日本" * 20]
    path = write(tmp_path / f"x{suffix}", pa.table({"text": pa.array(texts, pa.string_view()), "n": ["1", "2", "3"]}))
    assert read(path, "n") == {"text": ["a", "", "日本" * 20], "n": ["1", "2", "3"]}
    (part,) = arrow_values.parts_of(pa.record_batch({"text": pa.array(texts, pa.string_view())}))
    assert part.schema.field("text").type == pa.large_string()


def test_what_pandas_and_pyarrow_write(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"]})
    pyarrow.feather.write_feather(table, tmp_path / "x.feather")
    assert read(tmp_path / "x.feather") == {"text": ["a", "b"]}
    pyarrow.feather.write_feather(table, tmp_path / "x.feather", version=1)
    with pytest.raises(EmbedcacheError, match="Feather file of version 1"):
        read(tmp_path / "x.feather")


@SUFFIXES
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"text": [f"text {i}" for i in range(100)]})
    path = write(tmp_path / f"x{suffix}", table)
    data = path.read_bytes()
    for cut in range(0, len(data) - 8, 97):  # a stream may lack the mark of its end
        path.write_bytes(data[:cut])
        with pytest.raises(EmbedcacheError, match=r"x.*(damaged|no rows|no column)"):
            read(path)


@SUFFIXES
def test_offsets_that_point_anywhere(tmp_path: Path, suffix: str) -> None:
    """Arrow itself would read past the end."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1 << 30, 2)))
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    path = write(tmp_path / f"x{suffix}", pa.table({"text": text}))
    with pytest.raises(EmbedcacheError, match="damaged"):
        read(path)


@SUFFIXES
def test_strings_that_are_not_utf8(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"text": pa.array([b"fine", b"\xff\xfe"]).view(pa.string())})
    with pytest.raises(EmbedcacheError, match="strings that are not UTF-8"):
        read(write(tmp_path / f"x{suffix}", table))


@SUFFIXES
def test_no_rows(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(EmbedcacheError, match="has a header but no rows"):
        read(write(tmp_path / f"x{suffix}", pa.table({"text": pa.array([], pa.string())})))
