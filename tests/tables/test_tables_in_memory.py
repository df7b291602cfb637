"""Tables in memory and at addresses: the same rows make the same cache, whatever they came from."""

from __future__ import annotations

import functools
import http.server
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.tables import stream
from embedcache.tables.inputs import tables_of
from embedcache.tables.memory import as_frame
from embedcache.tables.read import open_source, source_digest
from embedcache.tables.rows import Columns, read_rows
from embedcache.tables.stream import stored
from tests.conftest import document, fails, make_reviews
from tests.extraction.test_store_int8 import same

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    texts, labels = zip(*make_reviews(40), strict=True)
    many = [["a", "b"] if i % 2 else ["b"] for i in range(40)]
    return pd.DataFrame({"text": texts, "label": labels, "year": range(1980, 2020), "tags": many})


@pytest.fixture(scope="module")
def of_csv(frame: pd.DataFrame, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the frame's rows as a CSV."""
    folder = tmp_path_factory.mktemp("csv")
    frame.drop(columns="tags").to_csv(folder / "t.csv", index=False)
    ec.extract(folder / "t.csv", folder / "c.h5", model=tiny_bert, keep="year")
    return folder / "c.h5"


def datasets_table(frame: pd.DataFrame) -> Any:
    dataset = pytest.importorskip("datasets").Dataset.from_pandas(frame)
    return dataset.select(range(len(frame) - 1, -1, -1)).select(range(len(frame) - 1, -1, -1))  # with indices


def in_memory(frame: pd.DataFrame) -> str:
    fsspec.filesystem("memory").pipe("/reviews/t.csv", frame.drop(columns="tags").to_csv(index=False).encode())
    return "memory://reviews/t.csv"


WAYS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "pyarrow": lambda frame: pa.Table.from_pandas(frame),
    "record batch": lambda frame: pa.Table.from_pandas(frame).combine_chunks().to_batches()[0],
    "polars": lambda frame: pytest.importorskip("polars").from_pandas(frame),
    "datasets": datasets_table,
    "dict": lambda frame: frame.to_dict("list"),
    "list of frames": lambda frame: [frame[:15], frame[15:]],
    "memory://": in_memory,
    "memory://*": lambda frame: in_memory(frame).replace("t.csv", "*.csv"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_rows_make_the_same_cache(
    way: str, frame: pd.DataFrame, of_csv: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    report = ec.extract(WAYS[way](frame), tmp_path / "c.h5", model=tiny_bert, keep="year")
    assert report.rows == 40
    same(of_csv, tmp_path / "c.h5")
    again = ec.extract(WAYS[way](frame), of_csv, model=tiny_bert)
    assert again.encoded == 0, "a file and a table in memory share vectors"


def test_parquet_of_a_frame_is_read_as_the_frame(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "t.parquet")
    columns = Columns(labels=("label", "tags"), keep=("year",))
    rows = [list(read_rows([table], columns)) for table in (tmp_path / "t.parquet", as_frame(frame))]  # type: ignore[list-item]
    assert rows[0] == rows[1] and rows[0][0].labels["tags"][1] == ("a", "b")


def test_strings_of_arrow_are_not_copied(frame: pd.DataFrame) -> None:
    table = pa.table({"text": pa.array(frame.text, pa.large_string())})
    (rows,) = read_rows([as_frame(table)], Columns())  # type: ignore[list-item]
    assert rows.texts.buffers()[2].address == table["text"].chunk(0).buffers()[2].address


def test_columns_of_mixed_values_are_read_as_a_csv_has_them() -> None:
    mixed = pd.DataFrame({"text": ["a", 1.5, None, True], "label": pd.Categorical(["x", "y", None, "x"])})
    (rows,) = read_rows([as_frame(mixed)], Columns(labels=("label",)))  # type: ignore[list-item]
    assert rows.texts.to_pylist() == ["a", "1.5", "", "true"] and rows.labels["label"] == ["x", "y", None, "x"]


def test_a_list_of_strings_is_texts_unless_all_are_files(tiny_bert: Path, tmp_path: Path) -> None:
    report = ec.extract(["a good film", "a bad film"], tmp_path / "c.h5", model=tiny_bert)
    assert report.rows == 2 and "the list of texts was read as 2 texts, not as paths" in report.notes
    for series in (pd.Series(["a", "b"]), pa.array(["a", "b"])):
        (table,) = tables_of(series)
        assert table.arrow["text"].to_pylist() == ["a", "b"]
    (tmp_path / "t.csv").write_text("text\na\n")
    with pytest.raises(EmbedcacheError, match=r"the list holds '.*t.csv', which is read as a file, and 'a', which is"):
        tables_of([str(tmp_path / "t.csv"), "a"])
    assert tables_of(["x.csv", "-"]) == ["x.csv", "-"]
    with pytest.raises(EmbedcacheError, match="no such file"):
        ec.extract(["missing.csv"], tmp_path / "d.h5", model=tiny_bert)


def test_other_doors_take_a_frame(frame: pd.DataFrame, of_csv: Path, tmp_path: Path) -> None:
    ec.train_run(of_csv, tmp_path / "run", hidden=0, epochs=2)
    report = ec.predict_file(tmp_path / "run", frame, tmp_path / "p.parquet")
    assert report.rows == 40 and report.input == "the DataFrame"
    written = pd.read_parquet(tmp_path / "p.parquet")
    assert list(written.columns) == [*frame.columns, "predicted", "predicted_probability"]
    assert ec.evaluate(tmp_path / "run", frame, baselines=False).rows == 40
    found = ec.search(of_csv, file=frame[:3], k=1)
    assert [answer.results[0].text for answer in found.answers] == frame.text[:3].tolist()
    assert ec.search_file(of_csv, pa.table({"text": ["film"]}), tmp_path / "s.jsonl", k=2).found == 2


def test_the_digest_of_a_frame_is_of_its_content(frame: pd.DataFrame) -> None:
    def digest(one: pd.DataFrame) -> str:
        found = as_frame(one)
        assert found is not None
        return source_digest(open_source(found))

    assert digest(frame) == digest(frame.copy()) != digest(frame[::-1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine with t.csv."""
    (tmp_path / "t.csv").write_text("text,label\ngood,a\nbad,b\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


def test_addresses_are_read_by_the_suffix_of_their_path(server: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    for address in (f"{server}/t.csv?download=1", f"file://{tmp_path}/t.csv"):
        with stored(address) as table:
            (rows,) = read_rows([table], Columns(labels=("label",)))
        assert rows.texts.to_pylist() == ["good", "bad"], address
    with (
        pytest.raises(EmbedcacheError, match=r"missing\.csv: nothing is there: check the address"),
        stored(f"{server}/missing.csv"),
    ):
        pass


def test_the_command_takes_an_address(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\ngood,a\nbad,b\n")
    found = document("extract", f"file://{tmp_path}/t.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert)
    assert found["rows"] == 2
    error = fails("extract", f"file://{tmp_path}/no.csv", "-o", tmp_path / "d.h5", "--model", tiny_bert)
    assert "no.csv: nothing is there" in error


class LazyFrame:
    columns = ("text",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("foo://x/t.csv", "fsspec knows no addresses that begin with foo://"),
        ("memory://none/t.csv", "nothing is there"),
        ("memory://none/*.csv", "nothing is there"),
        (5, "an input is a path, a data frame or a list, not int"),
        ([5], "a table is a file's path, or a data frame, not int: 5"),
        (LazyFrame(), "a LazyFrame has no rows yet: give frame.collect()"),
        (pd.DataFrame({"text": []}), "the DataFrame has a header but no rows"),
        (pd.DataFrame({"txt": ["a"]}), r"the DataFrame has no column 'text' \(did you mean 'txt'\?\)"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "the DataFrame has 2 columns named 'text'"),
        (pd.DataFrame({"text": [["a"]]}), "the DataFrame row 1: column 'text' .* holds a list: a text is needed"),
        (["a\ud800"], "the list of texts row 1: holds half a surrogate pair"),
    ],
)
def test_what_cannot_be_read_gets_one_line(given: Any, message: str, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match=message) as error:
        ec.extract(given, tmp_path / "c.h5", model=tiny_bert)
    assert "\n" not in str(error.value)


def test_where_linux_keeps_no_unnamed_copy_there_is_a_named_one(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be opened again as often as one likes, and goes at the end, also after an error."""
    monkeypatch.setattr(stream, "sys", type("Windows", (), {"platform": "win32"}))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with stream.stored(in_memory(frame)) as table:
        (copy,) = tmp_path.iterdir()
        assert isinstance(table, stream.Stored) and table.file == copy
        assert len(pd.read_csv(copy)) == len(pd.read_csv(copy)) == len(frame)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="mine"), stream.stored(in_memory(frame)):
        raise OSError("mine")
    assert not list(tmp_path.iterdir())


def test_splits_are_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({"train": datasets.Dataset.from_pandas(frame)})
    with pytest.raises(
        EmbedcacheError, match=r"a DatasetDict has several splits: give one of them, such as \['train'\]"
    ):
        ec.extract(both, tmp_path / "c.h5")
    with pytest.raises(EmbedcacheError, match="is read once: give a Dataset"):
        ec.extract(both["train"].to_iterable_dataset(), tmp_path / "c.h5")


def test_a_missing_package_is_named() -> None:
    s3fs = pytest.importorskip("importlib.util").find_spec("s3fs")
    if s3fs is None:
        with pytest.raises(EmbedcacheError, match="s3:// needs a package: pip install s3fs"), stored("s3://x/y.csv"):
            pass
