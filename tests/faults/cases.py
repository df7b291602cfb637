"""The kinds of cases of fuzz.py: how each is made from sound files, and what is then done with it."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults import mutate

Make = Callable[[random.Random, Path, Path], Path]  # of sound files, a folder for the spoilt ones
Read = Callable[[Path, Path, int], str]
ROWS = 1100
OPTIONS: dict[str, Any] = {"device": "cpu", "labels": ["label", "topics"], "id": "id", "keep": ["id", "movie"]}


def load() -> None:
    """Import, before memory is limited and counted, what the cases use."""
    import openpyxl  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import embedcache.extraction.job  # noqa: F401
    from embedcache.encoder import Encoder  # noqa: F401

    import transformers.models.bert.modeling_bert  # noqa: F401  isort:skip


def prepare(base: Path) -> None:
    """Sound files: a model, tables, a small cache and one of many columns and classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from embedcache.extraction.job import extract
    from tests.conftest import make_cache, write_tiny_bert

    (base / "model").mkdir()
    write_tiny_bert(base / "model")
    rng = random.Random(0)
    words = "a fine dull film ü 退屈 story".split()
    names = [f"class {i}" for i in range(5)]
    rows = [
        {
            "text": f"{rng.choice(words)} {rng.choice(words)} {i}",
            "label": rng.choice([*names, ""]),
            "topics": rng.choice([None, [], ["a"], ["a", "b"]]),
            "id": f"r{i}",
            "movie": rng.choice(words),
        }
        for i in range(ROWS)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (base / "table.jsonl").write_text(lines, encoding="utf-8")
    small = rows[:60]
    cells = [[json.dumps(cell) if isinstance(cell, list) else cell or "" for cell in row.values()] for row in small]
    for name, comma in (("small.csv", ","), ("small.tsv", "\t")):
        quoted = [comma.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [list(rows[0]), *cells]]
        (base / name).write_text("\n".join(quoted) + "\n", encoding="utf-8")
    (base / "small.jsonl").write_text("\n".join(lines.split("\n")[:60]), encoding="utf-8")
    (base / "small.csv.gz").write_bytes(gzip.compress((base / "small.csv").read_bytes()))
    (base / "small.jsonl.bz2").write_bytes(bz2.compress((base / "small.jsonl").read_bytes()))
    with pa.output_stream(str(base / "small.csv.zst"), compression="zstd") as stream:
        stream.write((base / "small.csv").read_bytes())
    (base / "small.json").write_text(json.dumps(small, indent=1, ensure_ascii=False), encoding="utf-8")
    (base / "small.ndjson").write_text("".join(json.dumps(row) + "\n" for row in small), encoding="utf-16")
    (base / "small.csv.bz2").write_bytes(bz2.compress((base / "small.tsv").read_bytes()))
    table = pa.Table.from_pylist(small)
    for name, new in (("small.feather", pa.ipc.new_file), ("small.arrow", pa.ipc.new_stream)):
        with new(str(base / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    write_workbook(base, [list(rows[0]), *cells])
    with closing(sqlite3.connect(base / "small.sqlite")) as database:
        database.execute(f"CREATE TABLE small ({', '.join(rows[0])})")
        database.executemany(f"INSERT INTO small VALUES ({', '.join('?' * len(rows[0]))})", cells)
        database.commit()
    for name, how in (("small", {}), ("plain", {"compression": "none", "use_dictionary": False})):
        pq.write_table(pa.Table.from_pylist(small), base / f"{name}.parquet", **how)
    extract(base / "table.jsonl", base / "c.h5", model=base / "model", pooling=("cls", "mean"), **OPTIONS)
    texts, many = [str(i) for i in range(5000)], [f"class {i} " + "x" * (i % 50) for i in range(5000)]
    kept = {f"column {i}": texts for i in range(40)}  # groups and attributes too large for one object header
    make_cache(base / "many.h5", texts, np.ones((5000, 2), np.float16), {"label": many}, columns=kept)


def write_workbook(base: Path, rows: list[list[str]]) -> None:
    """One as it is saved, and one that is not compressed, so that spoilt bytes reach the parser of XML."""
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(base / "small.xlsx")
    with zipfile.ZipFile(base / "small.xlsx") as packed, zipfile.ZipFile(base / "small.xlsm", "w") as plain:
        for name in packed.namelist():
            plain.writestr(name, packed.read(name))


@cache
def sound(path: Path) -> mutate.Metadata:
    return mutate.Metadata(path.read_bytes())


def make_bytes(rng: random.Random, base: Path, folder: Path) -> Path:
    """A cache with spoilt bytes, four times of five in its structure."""
    metadata = sound(base / rng.choice(["c.h5", "many.h5"]))
    spoilt = mutate.spoil(rng, metadata.data, metadata.places if rng.random() < 0.8 else [])
    path = folder / "c.h5"
    path.write_bytes(metadata.seal(spoilt) if rng.random() < 0.9 else spoilt)
    return path


def make_structure(rng: random.Random, base: Path, folder: Path) -> Path:
    """A cache that HDF5 calls sound and we do not."""
    path = folder / "c.h5"
    shutil.copy(base / "c.h5", path)
    mutate.rebuild(rng, path, reseal)
    return path


def reseal(path: Path) -> None:
    """Make the seal right again: whoever forges the content can do that too."""
    from embedcache.cache.hdf5_reader import Hdf5
    from embedcache.cache.hdf5_structure import read_structure

    data = np.fromfile(path, np.uint8)
    layout, _, created, _ = read_structure(Hdf5(data), data.size)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file.attrs["seal"] = layout.seal(created)


def read_cache(path: Path, base: Path, number: int) -> str:
    """All that opens a cache and decides what it holds."""
    from embedcache.cache import open_cache, verify
    from embedcache.errors import EmbedcacheError
    from embedcache.extraction.job import extract

    outcome = "read"
    try:
        if not verify(path).ok:
            outcome = "damaged"
        with open_cache(path) as opened:
            json.dumps(opened.info())
            for output in opened.outputs:
                np.asarray(opened.embeddings(*output, allow_incomplete=True)).sum(dtype=np.float64)
            for name in opened.label_names:
                opened.labels(name)[0].sum()
            for strings in [opened.texts, *map(opened.column, opened.column_names)]:
                strings[:200]
    except EmbedcacheError as error:
        assert "\n" not in str(error)
        outcome = "refused"
    if number % 50:
        return outcome
    extract(base / "table.jsonl", path, model=base / "model", **OPTIONS)
    assert verify(path).ok
    with open_cache(path) as opened, open_cache(base / "c.h5") as expected:
        assert opened.complete and list(opened.texts) == list(expected.texts)
        assert (opened.hashes == expected.hashes).all()
        for name in expected.label_names:
            np.testing.assert_array_equal(opened.labels(name)[0], expected.labels(name)[0])
            assert opened.labels(name)[1] == expected.labels(name)[1]
        np.testing.assert_allclose(opened.embeddings("cls"), expected.embeddings("cls"), atol=4e-3)
    return outcome + ", extracted"


def make_table(rng: random.Random, base: Path, folder: Path) -> Path:
    source = rng.choice([*sorted(base.glob("small.*")), base / "plain.parquet"])
    data = source.read_bytes()
    tail = list(range(max(0, len(data) - 4000), len(data)))  # Parquet's schema and index
    places = tail if source.suffix == ".parquet" and rng.random() < 0.7 else list(range(len(data)))
    path = folder / source.name
    path.write_bytes(mutate.spoil(rng, data, places))
    return path


def read_table(path: Path, base: Path, number: int) -> str:
    from embedcache.extraction.read_input import collect
    from embedcache.tables.rows import Columns, column_names, read_rows

    column_names(path)
    columns = Columns("text", ("label", "topics"), "id", ("movie",))
    collect(read_rows([path], columns), columns, path.parent)
    return "read"


def make_model(rng: random.Random, base: Path, folder: Path) -> Path:
    path = folder / "model"
    shutil.copytree(base / "model", path)
    victim = path / rng.choice(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
    data = victim.read_bytes()
    if victim.suffix == ".json" and rng.random() < 0.8:
        victim.write_text(json.dumps(mutate.spoil_json(rng, json.loads(data))))
    else:
        head = 8 + int.from_bytes(data[:8], "little") if victim.suffix == ".safetensors" else len(data)
        victim.write_bytes(mutate.spoil(rng, data, list(range(head))))
    return path


def read_model(path: Path, base: Path, number: int) -> str:
    from embedcache.encoder import Encoder

    encoder = Encoder.load(path, device="cpu")
    (found,) = encoder.encode_texts(["a fine film", "", "dull " * 300], [("cls", -1)])
    assert found.shape == (3, encoder.dim)
    return "read"


KINDS: dict[str, tuple[Make, Read]] = {
    "bytes": (make_bytes, read_cache),
    "structure": (make_structure, read_cache),
    "table": (make_table, read_table),
    "model": (make_model, read_model),
}
