"""Databases: which table, in which order, and what is wrong with them."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.tables.limits import text_limit
from embedcache.tables.rows import Columns, column_names
from tests.tables.samples import LABELLED, TEXTS, read, write_database


def run(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


def test_which_table(tmp_path: Path) -> None:
    path = write_database(tmp_path / "x.db")
    run(path, "CREATE VIEW seen AS SELECT * FROM reviews", 'CREATE TABLE "a ""b""" (text)', "ANALYZE")
    run(path, 'INSERT INTO "a ""b""" VALUES (7)')
    with pytest.raises(EmbedcacheError, match=r'x\.db has 2 tables: choose one with --sheet: reviews, a "b"$'):
        read(path)
    assert read(path, sheet="reviews").texts == TEXTS
    assert read(path, Columns(), sheet='a "b"').texts == ["7"]
    for none in ("seen", "none", "sqlite_stat1"):
        with pytest.raises(EmbedcacheError, match=rf"has no table '{none}'; it has: reviews"):
            read(path, sheet=none)


def test_rows_come_in_the_order_of_the_table(tmp_path: Path) -> None:
    """An index that holds every column asked for would give its own."""
    path = write_database(tmp_path / "x.sqlite")
    run(path, "CREATE INDEX by_text ON reviews (text, label)")
    assert read(path).texts == TEXTS and read(path, batch_rows=2).texts == TEXTS


def test_values(tmp_path: Path) -> None:
    path = run(
        tmp_path / "x.sqlite",
        "CREATE TABLE t (text TEXT, label INTEGER, score REAL)",
        "INSERT INTO t VALUES ('a', 1, 0.1), (NULL, NULL, NULL), ('c', 2, 1e300)",
    )
    rows = read(path, Columns(labels=("label",), keep=("score",)))
    assert (rows.texts, rows.labels["label"]) == (["a", "", "c"], ["1", None, "2"])
    assert rows.keep["score"] == ["0.1", "", "1e+300"]


def test_what_is_wrong_with_a_cell(tmp_path: Path) -> None:
    path = write_database(tmp_path / "x.sqlite", [("a", "x"), (b"\xff", "y")], ("text", "label"))
    with pytest.raises(EmbedcacheError, match=r"x\.sqlite row 2: column 'text' \(--text\) holds bytes"):
        read(path)
    run(path, "DELETE FROM reviews", "INSERT INTO reviews VALUES (CAST(x'ff' AS TEXT), 'y')")
    with pytest.raises(EmbedcacheError, match="Could not decode to UTF-8"):
        read(path)
    run(path, "DELETE FROM reviews")
    with pytest.raises(EmbedcacheError, match="has a header but no rows"):
        read(path)


def test_a_text_that_is_too_long(tmp_path: Path) -> None:
    path = write_database(tmp_path / "x.sqlite", [("a" * 200_000, "x")], ("text", "label"))
    with text_limit(0.15), pytest.raises(EmbedcacheError, match=r"row 1: column 'text' has more than 0\.15 MB"):
        read(path)
    assert len(read(path).texts[0]) == 200_000


def test_a_stream_is_no_database(tmp_path: Path) -> None:
    from embedcache.tables.rows import read_rows
    from embedcache.tables.stream import Stored

    path = write_database(tmp_path / "x.sqlite")
    with pytest.raises(EmbedcacheError, match="cannot be read from a stream: save it to a file"):
        list(read_rows([Stored("x.sqlite", path)], LABELLED))


def test_nothing_is_written_beside_it(tmp_path: Path) -> None:
    path = write_database(tmp_path / "x.sqlite")
    before = path.read_bytes()
    path.chmod(0o444)
    read(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_damaged_databases_get_one_line(tmp_path: Path) -> None:
    path = write_database(
        tmp_path / "x.sqlite", [(f"text {i} " * (i % 90), "x") for i in range(300)], ("text", "label")
    )
    data, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        spoilt = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            spoilt[rng.randrange(100 if rng.random() < 0.3 else len(spoilt))] = rng.randrange(256)
        path.write_bytes(spoilt[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            column_names(path)
            read(path)
        except EmbedcacheError as error:
            assert "\n" not in str(error) and "x.sqlite" in str(error)
            refused += 1
    assert refused > 50
