"""What results are as tables: Arrow's, and from them DataFrames."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import embedcache as ec
from embedcache.common.frames import Tabular, free_names
from embedcache.errors import EmbedcacheError
from embedcache.search.job import search_cache
from embedcache.search.searcher import Query, Searcher
from tests.conftest import make_cache

KINDS = ["good", "bad", None]
TAGS = [["a", "b"], [], None]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows; kept columns that are called as search's own are."""
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float16)
    labels = {"label": [KINDS[i % 3] for i in range(60)], "tags": [TAGS[i % 3] for i in range(60)]}
    columns = {"key": [f"k{i}" for i in range(60)], "score": [str(i * 2) for i in range(60)], "film": ["七人"] * 60}
    texts = [f"text {i} é" for i in range(60)]
    return make_cache(
        tmp_path_factory.mktemp("frames") / "c.h5", texts, {"cls": x, "mean": x * 2}, labels, columns=columns, id="key"
    )


def names(column: pd.Series) -> list[str | None]:
    return [None if missing else name for name, missing in zip(column, column.isna(), strict=True)]


def test_what_was_found(cache: Path) -> None:
    report = search_cache(cache, row=1, k=4)
    (answer,) = report.answers
    assert len(report) == 1 and len(answer) == 4
    table = answer.to_arrow()
    assert table.column_names == ["rank", "row", "score", "text", "id", "label", "tags", "film", "score_2"]
    assert table["score"].type == pa.float64() and table["tags"].type == pa.list_(pa.string())
    for line, one in zip(table.to_pylist(), answer.results, strict=True):
        assert (line["row"], line["id"], line["label"]) == (one.row, one.id, one.labels["label"])
        assert (line["score"], line["score_2"], line["tags"]) == (one.score, one.columns["score"], one.labels["tags"])
        assert one.columns == {"score": str(one.row * 2), "film": "七人"}
    pd.testing.assert_frame_equal(answer.to_pandas(), table.to_pandas())
    with Searcher.open(cache) as searcher:
        both = searcher.search([Query((3,)), Query((4,))], 2)
    frame = type(report)(both, 2, 60, many=True).to_pandas()
    assert list(frame["query_row"]) == [0, 0, 1, 1] and list(frame["rank"]) == [1, 2, 1, 2]
    nothing = type(report)([], 2, 60, many=True).to_arrow()
    assert nothing.num_rows == 0 and nothing.column_names[:3] == ["query_row", "query", "rank"]


def test_neighbours(cache: Path) -> None:
    with ec.open_cache(cache) as opened:
        found = ec.SearchIndex.build(opened).search(opened.embeddings()[:3], 70)  # more than there are
    frame = found.to_pandas()
    assert len(found) == 3 and list(frame.columns) == ["query", "rank", "row", "score"]
    assert len(frame) == 180 and (frame["row"] >= 0).all()
    first = frame[frame["rank"] == 1]
    assert list(first["row"]) == [0, 1, 2] and first["score"].to_numpy() == pytest.approx(1, abs=1e-3)


def test_a_bank(cache: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6)).astype(np.float32)
    grid = ec.head_grid(hidden=[0, 4], lr=[1e-2, 1e30], seed=[0, 2**64 - 1], class_weight=["balanced", (1.0, 2.0)])
    result = ec.train_heads(X, X[:, 0] > 0, grid, epochs=3, validation=(X, X[:, 0] > 0), engine="torch")
    frame = result.to_pandas()
    assert len(result) == len(frame) == 16 and list(frame["head"]) == list(range(16))
    for (_, line), head in zip(frame.iterrows(), result.heads, strict=True):
        assert (line["lr"], line["seed"], line["status"]) == (head.spec.lr, head.spec.seed, head.status)
        assert line["val_loss"] == pytest.approx(head.val_loss, nan_ok=True)
        assert (line["epoch"] == head.best_epoch) or (head.best_epoch == 0 and np.isnan(line["epoch"]))
        assert np.isnan(line["val_r2"])
    assert {"ok", "diverged"} == set(frame["status"]) and set(frame["class_weight"]) == {"balanced", "[1.0, 2.0]"}


def test_without_pandas(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = search_cache(cache, row=1, k=2)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EmbedcacheError, match=r"needs pandas, .*: pip install pandas \(to_arrow\(\) does without\)"):
        report.to_pandas()
    assert report.to_arrow().num_rows == 2


def test_others_read_it_as_arrow(cache: Path) -> None:
    answer = search_cache(cache, row=1, k=2).answers[0]
    assert isinstance(answer, Tabular) and pa.table(answer).equals(answer.to_arrow())


def test_names_that_are_taken() -> None:
    assert free_names(["a", "a_2"], ["a", "b", "a_3", "b_2"]) == {"a": "a_3", "b": "b", "a_3": "a_3_2", "b_2": "b_2"}


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (3, "needs a text, a Query or a list of them, not int"),
        (["a", 3], r"query 1 must be a text or a Query, not 3; row 3 of the cache is Query\(3\)"),
        ([None], "query 0 must be a text or a Query, not None"),
        (pd.DataFrame({"text": ["a"]}), "not DataFrame"),
    ],
)
def test_queries_that_are_none(cache: Path, queries: object, message: str) -> None:
    with Searcher.open(cache) as searcher, pytest.raises(EmbedcacheError, match=message):
        searcher.search(queries)  # type: ignore[arg-type]


def test_a_text_is_a_query(made: Path) -> None:
    with Searcher.open(made / "reviews.h5", device="cpu") as searcher:
        (one,) = searcher.search("a superb film", 3)
        assert (
            searcher.search(["a superb film", Query((2,))], 3)[0] == one == searcher.search(Query((one.query,)), 3)[0]
        )


def test_a_cache(cache: Path) -> None:
    with ec.open_cache(cache) as opened:
        table = opened.to_arrow(vectors=["cls", "mean"])
        frame = opened.to_pandas(slice(6, 9))
        texts, codes = opened.texts, opened.labels("label")[0]
        places = table["text"].chunk(0).buffers()[2].address, table["cls"].chunk(0).values.buffers()[1].address
        assert places == (texts.data.ctypes.data, opened.embeddings("cls").ctypes.data), "copied"
        assert table["label"].chunk(0).indices.buffers()[1].address == codes.ctypes.data
        assert len(opened) == opened.rows == table.num_rows == 60 and bool(opened)
        expected = opened.embeddings("mean").copy()
    assert table.column_names == ["key", "text", "label", "tags", "film", "score", "cls", "mean"]
    assert table["text"].to_pylist() == [f"text {i} é" for i in range(60)]  # after close, too
    assert table["label"].to_pylist() == [KINDS[i % 3] for i in range(60)]
    assert table["tags"].to_pylist() == [TAGS[i % 3] for i in range(60)]
    assert table["mean"].type == pa.list_(pa.float16(), 8)
    assert np.array_equal(np.stack(table["mean"].to_numpy()), expected)
    assert list(frame.index) == [6, 7, 8] and frame.index.name == "row"
    assert names(frame["label"]) == ["good", "bad", None] and list(frame["key"]) == ["k6", "k7", "k8"]
    frame.loc[8, "label"] = "something new"  # no Categorical that refuses it


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, range(60)),
        (slice(None, None, 7), range(0, 60, 7)),
        (slice(-3, None), range(57, 60)),
        (range(50, 60), range(50, 60)),
        (range(5, 3), []),
        ([3, 1, 1], [3, 1, 1]),
        (np.arange(60) % 20 == 5, [5, 25, 45]),
        ([], []),
    ],
)
def test_some_rows_of_a_cache(cache: Path, rows: object, expected: list[int]) -> None:
    with ec.open_cache(cache) as opened:
        frame = opened.to_pandas(rows, vectors="cls")  # type: ignore[arg-type]
        assert list(frame.index) == list(expected) == [int(text.split()[1]) for text in frame["text"]]
        assert names(frame["label"]) == [KINDS[i % 3] for i in expected]
        assert [None if one is None else list(one) for one in frame["tags"]] == [TAGS[i % 3] for i in expected]
        for row, vector in zip(expected, frame["cls"], strict=True):
            assert np.array_equal(vector, opened.embeddings()[row])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([60], "has no row 60: it has 60, counted from 0"),
        ([-1], "has no row -1"),
        (range(55, 65), "has no row 60"),
        ([1.5], "rows must be a slice, row numbers or 60 booleans"),
        ([True, False], "60 booleans"),
    ],
)
def test_rows_that_are_not_there(cache: Path, rows: object, message: str) -> None:
    with ec.open_cache(cache) as opened, pytest.raises(EmbedcacheError, match=message):
        opened.to_arrow(rows)  # type: ignore[arg-type]


def test_vectors_that_are_not_there(cache: Path) -> None:
    with ec.open_cache(cache) as opened, pytest.raises(EmbedcacheError, match="no max vectors, only cls, mean"):
        opened.to_arrow(vectors="max")


def test_a_damaged_text_is_named(cache: Path, tmp_path: Path) -> None:
    data = bytearray(cache.read_bytes())
    at = data.index("text 41 é".encode())
    data[at + 8] = 0xFF
    (tmp_path / "c.h5").write_bytes(data)
    with ec.open_cache(tmp_path / "c.h5") as opened:
        assert opened.to_arrow(slice(0, 41)).num_rows == 41
        for rows in (None, [41]):
            with pytest.raises(EmbedcacheError, match="text of row 41 is damaged: not UTF-8"):
                opened.to_arrow(rows)


def test_an_empty_cache_is_true(tmp_path: Path) -> None:
    with ec.open_cache(make_cache(tmp_path / "c.h5", [], np.zeros((0, 4), np.float16), {"label": []})) as opened:
        assert opened and len(opened) == 0 and opened.to_pandas(vectors="cls").empty


def test_an_example_is_no_row_of_letters(cache: Path) -> None:
    assert ec.Query("dull") == ec.Query(("dull",)) == ec.Query(["dull"], unlike=[]) and ec.Query("dull").texts == [
        "dull"
    ]
    assert ec.Query(np.int64(7), unlike="too long").rows == {7}
    assert ec.Query(("a", 7), unlike=np.array([12, 13])).unlike == (12, 13)
    for wrong in (3.5, None, ["a", 2.0]):
        with pytest.raises(EmbedcacheError, match="an example must be a text or a row number, not"):
            ec.Query(wrong)  # type: ignore[arg-type]


def test_a_ladder_refuses_a_frame_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="ladder reads files, not a DataFrame: write it first"):
        ec.ladder(pd.DataFrame({"text": ["a"]}), tmp_path / "ladder")  # type: ignore[arg-type]
