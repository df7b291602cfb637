"""import: the same cache from every format, joined by row or by id, crash-safe, continued, refused in one line."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import embedcache as ec
from embedcache.errors import EmbedcacheError
from tests.conftest import document, fails, invoke, write_csv
from tests.extraction.test_extract_faults import Stop
from tests.extraction.test_store_int8 import same
from tests.vectors.samples import (
    DIM,
    IDS,
    LABELS,
    ROWS,
    TEXTS,
    VECTORS,
    WRITE,
    WRITE_ALONE,
    batch_line,
    lists,
    response,
    write_jsonl,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """t.csv with id, text and label, v.npy, and c.h5, the cache of both."""
    folder = tmp_path_factory.mktemp("import")
    write_csv(folder / "t.csv", zip(IDS, TEXTS, LABELS, strict=True), ("id", "text", "label"))
    np.save(folder / "v.npy", VECTORS)
    ec.import_vectors(folder / "v.npy", folder / "c.h5", table=folder / "t.csv", id="id", encoder="e")
    return folder


def check(path: Path, vectors: np.ndarray = VECTORS) -> None:
    with ec.open_cache(path) as cache:
        assert (np.asarray(cache.embeddings("model")) == vectors).all()
        assert list(cache.texts) == TEXTS
        codes, classes = cache.labels("label")
        assert [classes[code] for code in codes] == LABELS
    assert ec.verify(path).ok


@pytest.mark.parametrize("name", WRITE)
def test_a_file_with_texts_and_labels(name: str, place: Path, tmp_path: Path) -> None:
    WRITE[name](tmp_path / name)
    report = ec.import_vectors(tmp_path / name, tmp_path / "c.h5", id="id", encoder="e")
    assert (report.rows, report.encoded, report.reused, report.duplicates) == (ROWS, 0, ROWS, 0)
    check(tmp_path / "c.h5")
    same(tmp_path / "c.h5", place / "c.h5")


@pytest.mark.parametrize("name", WRITE_ALONE)
def test_a_file_of_vectors_alone_with_a_table(name: str, place: Path, tmp_path: Path) -> None:
    WRITE_ALONE[name](tmp_path / name)
    ec.import_vectors(tmp_path / name, tmp_path / "c.h5", table=place / "t.csv", id="id", encoder="e")
    same(tmp_path / "c.h5", place / "c.h5")


def test_an_array_and_frames_in_memory(place: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": IDS, "text": TEXTS, "label": LABELS})
    ec.import_vectors(VECTORS, tmp_path / "array.h5", table=frame, id="id", encoder="e")
    frame["embedding"] = list(VECTORS)
    ec.import_vectors(frame, tmp_path / "frame.h5", id="id", encoder="e")
    same(tmp_path / "array.h5", place / "c.h5")
    same(tmp_path / "frame.h5", place / "c.h5")


def test_several_files_are_read_one_after_another(place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS[:1000])
    pq.write_table(pa.table({"v": lists()[1000:]}), tmp_path / "b.parquet")
    parts = [tmp_path / "a.npy", tmp_path / "b.parquet"]
    ec.import_vectors(parts, tmp_path / "c.h5", table=place / "t.csv", id="id", encoder="e")
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert (np.asarray(cache.embeddings()) == VECTORS).all()


def test_rows_are_matched_by_id(place: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(ROWS)
    write_jsonl(tmp_path / "batch.jsonl", [batch_line(IDS[i], [VECTORS[i].tolist()]) for i in order])
    report = ec.import_vectors(tmp_path / "batch.jsonl", tmp_path / "c.h5", table=place / "t.csv", id="id")
    assert report.encoder["identity"] == {"imported": "text-embedding-3-small"}
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert list(cache.texts) == [TEXTS[i] for i in order] and list(cache.ids or ()) == [IDS[i] for i in order]
        assert (np.asarray(cache.embeddings()) == VECTORS[order]).all()
        codes, classes = cache.labels("label")
        assert [classes[code] for code in codes] == [LABELS[i] for i in order]
    # The same of any table that has the id.
    pq.write_table(pa.table({"id": [IDS[i] for i in order], "v": VECTORS[order].tolist()}), tmp_path / "v.parquet")
    ec.import_vectors(tmp_path / "v.parquet", tmp_path / "d.h5", table=place / "t.csv", id="id")
    with ec.open_cache(tmp_path / "d.h5") as cache:
        assert list(cache.texts) == [TEXTS[i] for i in order]


def test_a_request_of_several_texts_and_a_response_with_texts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [batch_line("a", lists()[:2]), batch_line("b", lists()[2:3])])
    ec.import_vectors(tmp_path / "b.jsonl", tmp_path / "b.h5")
    with ec.open_cache(tmp_path / "b.h5") as cache:
        assert list(cache.texts) == list(cache.ids or ()) == ["a/0", "a/1", "b"]
        assert (np.asarray(cache.embeddings()) == VECTORS[:3]).all()
    cohere = {"embeddings": {"float": lists()[:2]}, "texts": ["x", "y"]}
    write_jsonl(tmp_path / "c.jsonl", [cohere, {"embeddings": lists()[2:3], "texts": ["z"]}])
    ec.import_vectors(tmp_path / "c.jsonl", tmp_path / "c.h5")
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert list(cache.texts) == ["x", "y", "z"] and (np.asarray(cache.embeddings()) == VECTORS[:3]).all()


def test_without_texts_a_number_stands_for_each(tmp_path: Path) -> None:
    report = ec.import_vectors(VECTORS[:3], tmp_path / "c.h5")
    assert any("a row's text is its number" in note for note in report.notes)
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert list(cache.texts) == ["row 0", "row 1", "row 2"]
    labelled = pa.table({"label": ["a", None, "b"], "v": lists()[:3]})
    ec.import_vectors(labelled, tmp_path / "d.h5")
    with ec.open_cache(tmp_path / "d.h5") as cache:
        assert cache.texts[2] == "row 2" and cache.labels("label").codes.tolist() == [0, -1, 1]


def test_equal_texts_keep_their_own_vectors(tmp_path: Path) -> None:
    report = ec.import_vectors(VECTORS[:4], tmp_path / "c.h5", table=pa.table({"text": ["a", "b", "a", ""]}))
    assert (report.reused, report.duplicates, report.blank) == (3, 1, 1)
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert (np.asarray(cache.embeddings()) == VECTORS[:4]).all()


@pytest.mark.parametrize(
    ("dtype", "store", "kept"),
    [("f2", "auto", "float16"), ("f4", "auto", "float32"), ("f8", "auto", "float32"), ("i1", "auto", "float32"),
     ("f4", "float16", "float16"), ("f4", "int8", "int8")],
)  # fmt: skip
def test_what_the_vectors_are_stored_as(dtype: str, store: str, kept: str, tmp_path: Path) -> None:
    given = (VECTORS[:50] * 9).astype(dtype)
    report = ec.import_vectors(given, tmp_path / "c.h5", store=store)
    assert report.encoder["store"] == kept
    with ec.open_cache(tmp_path / "c.h5") as cache:
        found = np.asarray(cache.embeddings())
        exact = store == "auto" and dtype != "f8"
        assert np.allclose(found, given, rtol=0, atol=0 if exact else np.abs(given).max() / 200)
    assert ec.verify(tmp_path / "c.h5").ok


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_import_goes_on(stop: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.vectors.fill.TOGETHER", 1024)
    seen: list[int] = []

    def progress(done: int, total: int, rows: int) -> None:
        seen.append(done)
        if len(seen) == stop:
            raise Stop

    options: dict[str, Any] = {"table": place / "t.csv", "id": "id", "encoder": "e"}
    with pytest.raises(Stop):
        ec.import_vectors(place / "v.npy", tmp_path / "c.h5", progress=progress, **options)
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert cache.missing_rows() == max(0, ROWS - stop * 1024)
    again: list[int] = []
    ec.import_vectors(place / "v.npy", tmp_path / "c.h5", progress=lambda *a: again.append(a[0]), **options)
    assert again == [min(ROWS, 1024 * i) for i in range(stop + 1, 4)], "what is there is not written again"
    same(tmp_path / "c.h5", place / "c.h5")


def test_a_changed_file_is_never_mixed_with_what_a_killed_run_left(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.vectors.fill.TOGETHER", 1024)

    def progress(*_: int) -> None:
        raise Stop

    options: dict[str, Any] = {"table": place / "t.csv", "encoder": "e"}
    with pytest.raises(Stop):
        ec.import_vectors(VECTORS, tmp_path / "c.h5", progress=progress, **options)
    ec.import_vectors(VECTORS + 1, tmp_path / "c.h5", **options)
    check(tmp_path / "c.h5", VECTORS + 1)


def test_damage_is_found_and_repaired(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    path.write_bytes((place / "c.h5").read_bytes())
    with ec.open_cache(path) as cache:
        offset = cache.offset("embeddings/model") + 1500 * DIM * 4
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff")
    assert [(span.start, span.stop) for span in ec.verify(path).damaged] == [(1024, 2048)]
    report = ec.import_vectors(place / "v.npy", path, table=place / "t.csv", encoder="e")
    assert report.repaired == 1
    same(path, place / "c.h5")


def test_a_longer_file_appends_and_columns_stay(place: Path, tmp_path: Path) -> None:
    first = pa.table({"text": TEXTS[:1500], "label": LABELS[:1500]})
    ec.import_vectors(VECTORS[:1500], tmp_path / "c.h5", table=first, encoder="e")
    report = ec.import_vectors(VECTORS, tmp_path / "c.h5", table=place / "t.csv", encoder="e")
    assert report.rows == ROWS and report.dropped == 0
    check(tmp_path / "c.h5")
    fewer = ec.import_vectors(VECTORS[:10], tmp_path / "c.h5", table=first[:10], encoder="e")
    assert fewer.dropped == ROWS - 10


def test_vectors_of_another_encoder_are_refused(place: Path, tiny_bert: Path, tmp_path: Path) -> None:
    table = place / "t.csv"
    ec.import_vectors(VECTORS, tmp_path / "c.h5", table=table, encoder="a")
    with pytest.raises(EmbedcacheError, match=r"holds other imported vectors \(a, not b\): name both alike"):
        ec.import_vectors(VECTORS, tmp_path / "c.h5", table=table, encoder="b")
    ec.import_vectors(VECTORS, tmp_path / "c.h5", table=table, encoder="b", overwrite=True)
    with pytest.raises(EmbedcacheError, match=r"holds vectors that were imported \(b\), not those of"):
        ec.extract(table, tmp_path / "c.h5", model=tiny_bert)
    ec.extract(table, tmp_path / "d.h5", model=tiny_bert)
    with pytest.raises(EmbedcacheError, match=r"holds those of .*tiny-bert.*, not vectors that were imported"):
        ec.import_vectors(VECTORS, tmp_path / "d.h5", table=table)
    # Without a name nothing but the same vectors is comparable.
    ec.import_vectors(VECTORS, tmp_path / "e.h5", table=table)
    ec.import_vectors(VECTORS, tmp_path / "e.h5", table=table)
    with pytest.raises(EmbedcacheError, match="holds other imported vectors"):
        ec.import_vectors(VECTORS + 1, tmp_path / "e.h5", table=table)


def pickled(path: Path) -> None:
    np.save(path, np.array([[1.0], [1.0, 2.0]], object), allow_pickle=True)


def with_value(value: float) -> np.ndarray:
    bad = VECTORS[:5].copy()
    bad[3, 2] = value
    return bad


BAD: dict[str, tuple[Any, str]] = {
    "objects.npy": (pickled, "holds Python objects, which may hold any code and are never loaded"),
    "nan.npy": (lambda path: np.save(path, with_value(np.nan)), r"nan.npy row 4: the vector holds NaN"),
    "inf.npz": (lambda path: np.savez(path, v=with_value(np.inf)), r"inf.npz row 4: the vector holds infinity"),
    "empty.npy": (lambda path: np.save(path, VECTORS[:0]), "has no rows: there is nothing to import"),
    "flat.npy": (lambda path: np.save(path, VECTORS[0]), "has no array"),
    "three.npy": (lambda path: np.save(path, VECTORS[None]), "has no array"),
    "words.npy": (lambda path: np.save(path, np.array([["a", "b"]])), "has no array"),
    "cut.npy": (lambda path: (np.save(path, VECTORS), path.write_bytes(path.read_bytes()[:900])), "is cut short"),
    "text.npy": (lambda path: path.write_text("hello"), "not NumPy's, or damaged"),
    "text.npz": (lambda path: path.write_text("hello"), "not NumPy's, or damaged"),
    "text.h5": (lambda path: path.write_text("hello"), "not HDF5, or damaged"),
    "text.safetensors": (lambda path: path.write_text("hello"), "not safetensors, or damaged"),
    "text.parquet": (lambda path: path.write_text("hello"), "not a Parquet file, or cut off"),
    "text.jsonl": (lambda path: path.write_text("hello\n"), "line 1: not JSON"),
    "empty.jsonl": (lambda path: path.write_text(""), "is empty"),
    "list.jsonl": (lambda path: path.write_text("[1]\n"), "line 1: not a JSON object"),
    "two.npz": (lambda path: np.savez(path, a=VECTORS, b=VECTORS), "has several: a, b: choose with --vector"),
    "none.npz": (lambda path: np.savez(path, a=VECTORS[0]), "has no array .*; it has a: check that it is the right"),
    "short.parquet": (
        lambda path: pq.write_table(pa.table({"v": [[1.0, 2.0], [1.0]]}), path),
        "row 2: the vector has 1 numbers, not 2",
    ),
    "null.parquet": (lambda path: pq.write_table(pa.table({"v": [[1.0], None]}), path), "row 2: no vector, but null"),
    "nulls.parquet": (
        lambda path: pq.write_table(pa.table({"v": [[1.0], [None]]}), path), "row 2: the vector holds null",
    ),
    "zero.parquet": (
        lambda path: pq.write_table(pa.table({"v": pa.array([[], []], pa.list_(pa.float32()))}), path),
        "row 1: the vector is empty",
    ),
    "texts.parquet": (lambda path: pq.write_table(pa.table({"text": ["a"]}), path), "has no column of vectors; it has"),
    "short.jsonl": (
        lambda path: write_jsonl(path, [{"v": [1, 2]}, {"v": [1]}]), "line 2: the vector has 1 numbers, not 2",
    ),
    "words.jsonl": (
        lambda path: write_jsonl(path, [{"v": [1, 2]}, {"v": [1, "x"]}]), "line 2: the vector is not a list of numbers",
    ),
    "lost.jsonl": (lambda path: write_jsonl(path, [{"v": [1]}, {"w": [1]}]), "line 2: no 'v' in this row"),
    "failed.jsonl": (
        lambda path: write_jsonl(
            path,
            [
                batch_line("a", lists()[:1]),
                {"custom_id": "b", "response": {"status_code": 429, "body": {"error": {"message": "slow down"}}}},
            ],
        ),
        r"line 2: the request 'b' failed \(slow down\): ask for it again",
    ),
    "models.jsonl": (
        lambda path: write_jsonl(path, [response(lists()[:1], "a"), {"data": 5}]), "line 2: no list of embeddings",
    ),
    "v.csv": (lambda path: path.write_text("a\n1\n"), r"no vectors are read from '.csv'"),
    "v.pkl": (lambda path: path.write_text("x"), "it may hold any code and is never opened"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_line(name: str, tmp_path: Path) -> None:
    write, message = BAD[name]
    write(tmp_path / name)
    with pytest.raises(EmbedcacheError, match=message) as error:
        ec.import_vectors(tmp_path / name, tmp_path / "c.h5")
    assert "\n" not in str(error.value) and name in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {name}, "nothing is left behind"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": pa.table({"text": TEXTS[:4]})}, "the Table has 4 rows, the array 5 vectors: they must be the same"),
        ({"text": "text"}, "the array holds vectors alone, so --text names nothing: give a table with --table"),
        ({"labels": ["a"]}, "so --label names nothing"),
        ({"table": "missing.csv"}, "missing.csv: no such file"),
        ({"table": pa.table({"text": TEXTS[:5]}), "text": "txt"}, "has no column 'txt'"),
        ({"store": "float64"}, "unknown store type 'float64'"),
        ({"encoder": " "}, "the encoder's name is blank"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match=message) as error:
        ec.import_vectors(VECTORS[:5], tmp_path / "c.h5", **options)
    assert "\n" not in str(error.value)
    if sys.platform == "win32":  # it shows the copies that the traceback holds until that goes
        del error
        gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ids", "others", "message"),
    [
        (["a", "a"], ["a", "b"], "v.parquet: id 'a' more than once"),
        (["a", "b"], ["b", "b"], "the Table: id 'b' more than once"),
        (["a", "b"], ["a", "c"], "the Table has no row for id 'b' of .*v.parquet: add it"),
        (["a", "b"], ["a", "b", "c", "d"], "v.parquet has no vector for 2 ids, 'c', 'd' of the Table"),
    ],
)
def test_ids_that_do_not_match(ids: list[str], others: list[str], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ids, "v": lists()[: len(ids)]}), tmp_path / "v.parquet")
    table = pa.table({"id": others, "text": TEXTS[: len(others)]})
    with pytest.raises(EmbedcacheError, match=message):
        ec.import_vectors(tmp_path / "v.parquet", tmp_path / "c.h5", table=table, id="id")


def test_batch_output_needs_an_id(place: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [batch_line("a", lists()[:1])])
    error = fails("import", tmp_path / "b.jsonl", "--table", place / "t.csv", "-o", tmp_path / "c.h5")
    assert "is in no order, its rows are known by custom_id: name the table's column of these ids with --id" in error


def test_a_cache_is_not_imported(place: Path, tmp_path: Path) -> None:
    assert "is a cache already" in fails("import", place / "c.h5", "-o", tmp_path / "d.h5")


def test_the_command(place: Path, tmp_path: Path) -> None:
    arguments = ["import", place / "v.npy", "--table", place / "t.csv", "--encoder", "e", "-o", tmp_path / "c.h5"]
    found = document(*arguments)
    names = "cache rows encoded reused duplicates truncated tokens seconds rows_per_second encoder"
    assert set(names.split()) <= set(found) and found["rows"] == ROWS
    said = invoke(*arguments, "--overwrite").output
    assert "2,300 rows imported at" in said and "stored as float32" in said
    told = invoke("info", tmp_path / "c.h5").output
    assert "e (imported from v.npy)" in told
    save_file({"vectors": VECTORS[:2], "n": np.arange(2)}, tmp_path / "v.safetensors")
    kept = document("import", tmp_path / "v.safetensors", "--keep", "n", "-o", tmp_path / "d.h5")
    assert kept["rows"] == 2
    with ec.open_cache(tmp_path / "d.h5") as cache:
        assert list(cache.column("n")) == ["0", "1"]
    assert json.loads(json.dumps(found)) == found
