"""predict --input and predict CACHE: which columns come out, in which formats, from and into streams, and resumed."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.prediction import rows as predict_rows
from embedcache.prediction.job import predict_file
from tests.conftest import document, fails, invoke, make_reviews, write_csv

REVIEWS = make_reviews(300)


@pytest.fixture(scope="module")
def made(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reviews.csv, its cache c.h5 (id, label, film), run of label, numbers of a regression on stars."""
    folder = tmp_path_factory.mktemp("made")
    rows = [(f"r{i}", text, label, f"film {i % 7}", str(i % 5)) for i, (text, label) in enumerate(REVIEWS)]
    write_csv(folder / "reviews.csv", rows, ("id", "text", "label", "film", "stars"))
    extract = ["extract", folder / "reviews.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--pooling", "mean"]
    document(*extract, "--id", "id", "--keep", "film,stars", "--device", "cpu")
    document("train-head", folder / "c.h5", "-o", folder / "run", "--lr", "1e-2", "--epochs", "3")
    train = ["train-head", folder / "c.h5", "-o", folder / "numbers", "--label", "stars", "--task", "regression"]
    document(*train, "--lr", "1e-2", "--epochs", "2")
    return folder


def labels(folder: Path, texts: list[str]) -> list[str]:
    return [str(one.label) for one in ec.Classifier.load(folder / "run", "cpu").predict(texts)]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_column_stays_and_a_gold_label_too(made: Path, tmp_path: Path) -> None:
    header = ["", "label", "text", "", "note"]  # a table without names for some columns is no rarity
    rows = [[str(i), gold, text, "", 'a "note",\nover lines'] for i, (text, gold) in enumerate(REVIEWS[:30])]
    write_csv(tmp_path / "in.csv", rows, header)
    report = document("predict", made / "run", "--input", tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        first, *found = list(csv.reader(file))
    assert first == [*header, "predicted", "predicted_probability"]
    assert [row[:5] for row in found] == rows
    assert [row[5] for row in found] == labels(made, [row[2] for row in rows])
    assert report["predicted"] == first[5:] and report["rows"] == 30 and "first" not in report
    document("predict", made / "run", "--input", tmp_path / "in.csv", "-o", tmp_path / "out.jsonl")
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[7])
    assert list(row) == ["", "label", "text", "_2", *header[4:], *first[5:]] and row[""] == "7"


def test_types_come_through(made: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, None], pa.int32()),
            "text": ["fine", "dull"],
            "when": pa.array([0, None], pa.timestamp("ms", "UTC")),
            "tags": [["a"], None],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    document("predict", made / "run", "--input", tmp_path / "in.parquet", "-o", tmp_path / "out.feather")
    out = pa.ipc.open_file(tmp_path / "out.feather").read_all()
    assert out.select(table.schema.names).equals(table)
    assert out.schema.names[4:] == ["predicted", "predicted_probability"] and out.schema.types[5] == pa.float64()
    rows = [{"text": "fine", "deep": {"a": [1]}, "n": 1}, {"text": "dull", "n": 2.5, "only here": None}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    document("predict", made / "run", "--input", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl.gz", "--as", "is")
    again = tmp_path / "again.json"
    document("predict", made / "run", "--input", tmp_path / "out.jsonl.gz", "-o", again)
    for row, out_row in zip(rows, json.loads(again.read_text()), strict=True):
        names = [*row, "is", "is_probability", "predicted", "predicted_probability"]
        assert sorted(out_row) == sorted(names) and {name: out_row[name] for name in row} == row
        assert (out_row["is"], out_row["is_probability"]) == (out_row["predicted"], out_row["predicted_probability"])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".csv.gz", ".tsv.zst", ".jsonl.bz2"])
def test_the_name_says_the_format(made: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    document("predict", made / "run", "--input", made / "reviews.csv", "-o", out)
    assert not (tmp_path / "out.csv").exists() or suffix == ".csv"
    document("predict", made / "run", "--input", out, "-o", tmp_path / "again.parquet", "--as", "again")
    table = pq.read_table(tmp_path / "again.parquet")
    assert table.schema.names == [
        *"id text label film stars predicted predicted_probability".split(),
        *table.schema.names[7:],
    ]
    assert table["predicted"].to_pylist() == table["again"].to_pylist() == labels(made, [text for text, _ in REVIEWS])


def test_a_column_is_never_written_over(made: Path, tmp_path: Path) -> None:
    for name in ("predicted", "predicted_probability"):
        write_csv(tmp_path / "in.csv", [("fine", "mine")], ("text", name))
        line = fails("predict", made / "run", "--input", tmp_path / "in.csv", "-o", tmp_path / "out.csv")
        assert f"in.csv has a column '{name}' already: choose another name with --as NAME" in line
    document("predict", made / "run", "--input", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--as", "mood")
    assert list(read_csv(tmp_path / "out.csv")[0]) == ["text", "predicted_probability", "mood", "mood_probability"]


def test_values_have_no_probability(made: Path, tmp_path: Path) -> None:
    document("predict", made / "numbers", "--input", made / "reviews.csv", "-o", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.names[5:] == ["predicted"] and table.schema.types[5] == pa.float64()
    report = document("predict", made / "numbers", made / "c.h5")
    assert report["labels"] == {} and list(report["first"][0])[-1] == "predicted"


def test_a_cache_is_labelled_without_its_encoder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.encoder.load_again.load_again", lambda *_, **__: 1 / 0)
    report = document("predict", made / "run", made / "c.h5", "-o", tmp_path / "out.csv")
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows[0]) == ["row", "id", "text", "label", "film", "stars", "predicted", "predicted_probability"]
    assert report["rows"] == len(rows) == 300 and sum(report["labels"].values()) == 300
    monkeypatch.undo()
    table = read_csv(made / "reviews.csv")
    assert [{name: row[name] for name in table[0]} for row in rows] == table
    found = labels(made, [text for text, _ in REVIEWS])
    assert [row["predicted"] for row in rows] == found and [row["row"] for row in rows[:2]] == ["0", "1"]
    where = ["--where", "label=positive", "--where", "stars>=3"]
    document("predict", made / "run", made / "c.h5", *where, "-o", tmp_path / "some.csv")
    expected = [row for row in rows if row["label"] == "positive" and int(row["stars"]) >= 3]
    assert read_csv(tmp_path / "some.csv") == expected and expected
    shown = invoke("predict", made / "run", made / "c.h5")
    assert shown.exit_code == 0 and "300 rows labelled" in shown.stdout and "-o OUT writes all of them" in shown.stdout
    assert ec.predict_file(made / "run", made / "c.h5").first[0]["text"] == REVIEWS[0][0]


def test_the_screen_shows_the_texts_by_whatever_name(made: Path, tmp_path: Path) -> None:
    rows = [(f"k{i}", text, "x") for i, (text, _) in enumerate(REVIEWS[:3])]
    table = write_csv(tmp_path / "t.csv", rows, ("key", "body", "other"))
    shown = invoke("predict", made / "run", "--input", table, "--text", "body").stdout
    assert shown.split()[:4] == ["key", "predicted", "predicted_probability", "body"] and "other" not in shown
    assert all(text.split()[0] in shown for text, _ in REVIEWS[:3])


def test_a_cache_of_another_encoder(made: Path, tmp_path: Path, tiny_bert: Path) -> None:
    extract = ["extract", made / "reviews.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert, "--pooling", "mean"]
    document(*extract, "--max-length", "7", "--device", "cpu")
    line = fails("predict", made / "run", tmp_path / "c.h5", "-o", tmp_path / "out.csv")
    assert "vectors of another encoder" in line and "max_length" in line
    document(*extract[:-1], "cls", "--overwrite", "--device", "cpu")
    line = fails("predict", made / "run", tmp_path / "c.h5")
    assert "mean" in line and "cls" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "reviews.csv", "fine"], "give texts, a CACHE or --input TABLE"),
        ([], "give texts, a CACHE or --input TABLE"),
        (["fine", "-o", "out.csv"], "-o OUT goes with --input TABLE or a CACHE"),
        (["fine", "--where", "a=b"], "--where goes with a CACHE"),
        (["reviews.csv"], "reviews.csv is a file: --input reviews.csv labels its rows"),
        (["fine", "c.h5"], "c.h5 is a cache: name it alone"),
        (["--input", "reviews.csv", "-o", "-", "--json"], "--json and -o - both go to standard output"),
        pytest.param(
            ["--input", "reviews.csv", "-o", "/dev/stdout", "--json"],
            "both go to standard output",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="it has no /dev/stdout"),
        ),
    ],
)
def test_wrong_usage(made: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(made)
    assert words in fails("predict", "run", *arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.h5"], "gone.h5"),
        (["--input", "reviews.csv", "--where", "label=positive"], "reviews.csv is not a cache"),
        (["--input", "reviews.csv", "-o", "out.xlsx"], "name one of .csv, .tsv"),
        (
            ["--input", "reviews.csv", "-o", "out"],
            "out: nothing behind its name says the format: name one of",
        ),
        (["c.h5", "--where", "label=x", "-o", "out.csv"], "x"),
    ],
)
def test_what_cannot_be(made: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(made)
    before = sorted(made.iterdir())
    assert words in fails("predict", "run", *arguments)
    assert sorted(made.iterdir()) == before


def command(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "embedcache", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def test_streams(made: Path, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"n": i, "text": text}) + "\n" for i, (text, _) in enumerate(REVIEWS[:9]))
    (tmp_path / "in.jsonl").write_text(lines)
    document("predict", made / "run", "--input", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl")
    expected = (tmp_path / "out.jsonl").read_text()
    done = command("predict", made / "run", "--input", "-", "-o", "-", input=lines)
    assert (done.returncode, done.stdout) == (0, expected) and "9 rows labelled" in done.stderr
    done = command("predict", made / "run", "--input", "/dev/stdin", "-o", "/dev/stdout", input=lines)
    assert (done.returncode, done.stdout) == (0, expected)
    bad = command("predict", made / "run", "--input", "-", "-o", tmp_path / "bad.csv", input=lines + '{"n": 1}\n')
    assert bad.returncode == 1 and "Error: standard input line 10: no 'text' in this row" in bad.stderr
    fifo, read = tmp_path / "fifo.csv", list[str]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    document("predict", made / "run", "--input", tmp_path / "in.jsonl", "-o", fifo)
    reader.join(30)
    assert fifo.is_fifo() and len(list(csv.reader(io.StringIO(read[0])))) == 10
    writer = threading.Thread(target=lambda: fifo.write_text(read[0]))
    writer.start()
    document("predict", made / "run", "--input", fifo, "-o", tmp_path / "again.jsonl", "--as", "again")
    writer.join(30)
    assert [json.loads(line)["again"] for line in (tmp_path / "again.jsonl").read_text().splitlines()] == [
        json.loads(line)["predicted"] for line in expected.splitlines()
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.jsonl", "fifo.csv", "in.jsonl", "out.jsonl"]


def test_nobody_reads_the_stream_to_its_end(made: Path) -> None:
    line = f"'{sys.executable}' -m embedcache predict {made / 'run'} --input {made / 'reviews.csv'} -o - | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["id"] == "r0" and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_symlinks_and_devices_survive(made: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.csv").symlink_to("there/real.csv")
    document("predict", made / "run", made / "c.h5", "-o", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and len(read_csv(tmp_path / "there" / "real.csv")) == 300
    document("predict", made / "run", made / "c.h5", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_interrupted_and_gone_on_with(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_rows, "FILE_ROWS", 32)
    classifier, told = ec.Classifier.load(made / "run", "cpu"), list[str]()
    output, encode, calls = tmp_path / "out.csv", classifier.encode_counted, 0

    def stop_after(parts: int) -> None:
        def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > parts:
                raise KeyboardInterrupt
            return encode(*arguments)

        nonlocal calls
        calls = 0
        monkeypatch.setattr(classifier, "encode_counted", counted)

    def label(name: str = "predicted", text: str = "text") -> Any:
        return predict_file(classifier, made / "reviews.csv", output, column=name, text=text, tell=told.append)

    stop_after(4)
    with pytest.raises(KeyboardInterrupt, match="128 of 300 rows are labelled and saved beside"):
        label()
    assert [path.name for path in tmp_path.iterdir()] == [".out.csv.partial"]
    stop_after(2)
    with pytest.raises(KeyboardInterrupt, match="192 of 300"):
        label()
    stop_after(99)
    report = label("mood")  # what the column is called does not matter
    assert report.resumed == 192 and report.rows == 300 and calls == 4 and report.truncated == 0
    assert [line.split(" rows")[0] for line in told] == ["128 of 300", "192 of 300"]
    resumed = output.read_bytes()
    assert label("mood").resumed == 0 and output.read_bytes() == resumed
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        label()
    stop_after(99)
    assert label(text="film").resumed == 0  # other texts
    assert "belongs to another input, run or option" in told[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_ctrl_c_says_what_is_saved(made: Path, tmp_path: Path) -> None:
    rows = [(f"{text} {i}",) for i, (text, _) in enumerate(make_reviews(30_000))]
    table = write_csv(tmp_path / "in.csv", rows, ("text",))
    line = [sys.executable, "-m", "embedcache", "predict", made / "run", "--input", table, "-o", tmp_path / "out.csv"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        saved = tmp_path / ".out.csv.partial"
        deadline = time.monotonic() + 100
        while not (saved.exists() and saved.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)  # it could end while the second command starts
        second = command("predict", made / "run", made / "c.h5", "-o", tmp_path / "out.csv")
        assert second.returncode == 1 and "is writing" in second.stderr and len(second.stderr.splitlines()) == 1
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
    assert "rows are labelled and saved beside" in said and "the same command continues" in said, said
    assert process.returncode == 130 and "Traceback" not in said
    report = document("predict", made / "run", "--input", table, "-o", tmp_path / "out.csv")
    assert report["resumed"] >= 2048 and report["rows"] == 30_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_classifier_without_its_encoder(made: Path) -> None:
    classifier = ec.Classifier.load(made / "run", "cpu", encode=False)
    assert predict_file(classifier, made / "c.h5").rows == 300
    with pytest.raises(EmbedcacheError, match="without its encoder"):
        classifier.predict(["fine"])
