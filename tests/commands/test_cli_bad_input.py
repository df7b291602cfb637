"""Bad input on the command line: one line, exit 1 or 2, nothing that existed damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embedcache.cli import main
from tests.conftest import document, fails, invoke, make_reviews, write_csv


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"text,label\n", ["no rows"]),
        (b"review,stars\nfine,5\n", ["'text'", "review", "stars", "--text"]),
        (b'text,label\n"never closed,positive\n', ["line 2", "quot"]),
        (b"text,label\nfine,good\ncaf\xe9,good\n", ["byte 24", "--encoding"]),
        (b"text,label\nfine,good,extra\n", ["line 2"]),
        (b"text,text\na,b\n", ["'text'", "rename"]),
    ],
    ids=["empty", "header-only", "unknown-column", "broken-quoting", "not-utf8", "extra-field", "same-name"],
)
def test_bad_tables(extract: Any, tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    line = fails(*extract(path))
    assert "table.csv" in line
    for word in words:
        assert word in line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table.csv"]


def test_encoding_option_reads_what_utf8_cannot(extract: Any, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("text,label\nfine,good\ncafé,bad\n".encode("latin-1"))
    assert document(*extract(path, "--encoding", "latin-1"))["rows"] == 2
    assert "nonsense" in fails(*extract(path, "--encoding", "nonsense"))


def test_missing_file_and_directory(extract: Any, tmp_path: Path) -> None:
    assert "nowhere.csv" in fails(*extract(tmp_path / "nowhere.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "folder" in fails(*extract(tmp_path / "folder.csv"))


def test_unknown_label_column_names_those_that_exist(extract: Any, reviews_csv: Path) -> None:
    line = fails(*extract(reviews_csv, "--label", "labels"))
    assert "'labels'" in line and "text" in line and "label" in line


def test_a_label_column_with_ten_thousand_values_is_questioned(extract: Any, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [(f"text {i}", f"value {i}") for i in range(10_000)])
    line = fails(*extract(path))
    assert "10,000" in line and "label" in line and "?" in line
    assert not (tmp_path / "cache.h5").exists()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 20, ["one class"]),
        ([""] * 20, ["label"]),
        (["a", "b"], ["2 "]),
    ],
    ids=["one-class", "no-labels", "two-rows"],
)
def test_labels_that_cannot_be_learned(extract: Any, tmp_path: Path, labels: list[str], words: list[str]) -> None:
    document(*extract(write_csv(tmp_path / "t.csv", [(f"text number {i}", label) for i, label in enumerate(labels)])))
    line = fails("train-head", tmp_path / "cache.h5", "-o", tmp_path / "run")
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_a_class_with_one_row_is_trained_on_and_said(extract: Any, tmp_path: Path) -> None:
    document(*extract(write_csv(tmp_path / "t.csv", [*make_reviews(60), ("so so", "mixed")])))
    result = invoke("train-head", tmp_path / "cache.h5", "-o", tmp_path / "run", "--epochs", "2")
    assert result.exit_code == 0, result.output
    assert "mixed" in result.output


@pytest.mark.parametrize("command", ["info", "verify", "train-head", "search"])
@pytest.mark.parametrize("kind", ["text", "empty", "hdf5", "truncated", "newer", "missing", "folder"])
def test_what_is_no_cache(made: Path, tmp_path: Path, command: str, kind: str) -> None:
    import h5py

    path = tmp_path / "cache.h5"
    if kind == "text":
        path.write_text("hello " * 1000)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["data"] = [1, 2, 3]
    elif kind == "truncated":
        path.write_bytes((made / "reviews.h5").read_bytes()[:9000])
    elif kind == "newer":
        shutil.copy(made / "reviews.h5", path)
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = 999
    more = {"train-head": ["-o", tmp_path / "run"], "search": ["great"]}.get(command, [])
    line = fails(command, path, *more)
    assert "cache.h5" in line
    if kind == "newer":
        assert "999" in line


def test_extract_never_writes_over_what_is_no_cache(extract: Any, reviews_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "cache.h5").write_text("my diary")
    fails(*extract(reviews_csv))
    fails(*extract(reviews_csv, "--overwrite"))
    assert (tmp_path / "cache.h5").read_text() == "my diary"


def test_another_encoder_is_refused_by_name_of_what_differs(extract: Any, reviews_csv: Path, tmp_path: Path) -> None:
    document(*extract(reviews_csv))
    before = (tmp_path / "cache.h5").read_bytes()
    line = fails(*extract(reviews_csv, "--max-length", "99"))
    assert "99" in line and "250" in line and "--overwrite" in line and "-o" in line
    assert (tmp_path / "cache.h5").read_bytes() == before
    assert document(*extract(reviews_csv, "--max-length", "99", "--overwrite"))["encoded"] == 300


def test_a_run_whose_encoder_changed(made: Path, tiny_bert: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert "model.safetensors" in fails("predict", made / "run", "great", "--model", other)


def test_output_folder_that_cannot_be_written(made: Path, tiny_bert: Path, tmp_path: Path) -> None:
    line = fails("extract", made / "reviews.csv", "-o", tmp_path / "no" / "such" / "c.h5", "--model", tiny_bert)
    assert "such" in line
    (tmp_path / "file").touch()
    assert "file" in fails("train-head", made / "reviews.h5", "-o", tmp_path / "file" / "run")
    assert "file" in fails("train-head", made / "reviews.h5", "-o", tmp_path / "file")
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert "precious" in fails("train-head", made / "reviews.h5", "-o", folder)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_unknown_model_while_offline(reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = fails("extract", reviews_csv, "-o", tmp_path / "c.h5", "--model", "nobody/no-such-model")
    assert "nobody/no-such-model" in line and "folder" in line
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize("name", ["best.safetensors", "run.json"])
def test_a_run_that_lacks_a_file(made: Path, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(made / "run", tmp_path / "run")
    (run / name).unlink()
    assert name in fails("predict", run, "great")
    assert "nowhere" in fails("predict", tmp_path / "nowhere", "great")


def test_options_that_would_do_nothing_are_refused(made: Path, tmp_path: Path) -> None:
    train = ["train-head", made / "reviews.h5", "-o", tmp_path / "run"]
    assert "--val" in fails(*train, "--val", "0", "--early-stop", "2")
    assert "--folds" in fails(*train, "--val", "0.2", "--folds", "3")
    assert document(*train, "--folds", "3", "--early-stop", "1", "--epochs", "3")["heads"] == 1


def test_columns_that_cannot_be_trained_together(made: Path, tmp_path: Path) -> None:
    train = ["train-head", made / "reviews.h5", "-o", tmp_path / "run"]
    assert "'stars'; it has label" in fails(*train, "--label", "label,stars")
    assert "not a finite number" in fails(*train, "--task", "regression")
    assert "--class-weight is for classes" in fails(*train, "--task", "regression", "--class-weight", "none,balanced")
    assert "one label a row" in fails(*train, "--task", "multilabel")
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there(made: Path, tmp_path: Path) -> None:
    line = fails("train-head", made / "reviews.h5", "-o", tmp_path / "run", "--device", "cuda:99")
    assert "GPU" in line and "device cpu" in line and "cuda:99" in line
    assert "cuda:N" in fails("train-head", made / "reviews.h5", "-o", tmp_path / "run", "--device", "gpu")


def test_search_asks_for_what_exists(made: Path) -> None:
    assert "205" in fails("search", made / "reviews.h5", "--row", "205")
    line = fails("search", made / "reviews.h5", "great", "--where", "labl=positive")
    assert "labl" in line and "label" in line
    assert "positive" in fails("search", made / "reviews.h5", "great", "--where", "label=postive")
    assert "label=positive" in fails("search", made / "reviews.h5", "great", "--where", "positive")


def test_the_terminal_obeys_no_text_of_the_users(extract: Any, tmp_path: Path) -> None:
    evil = "!\x1b[31mred\x07 \x1b]0;title\x07"
    rows = [[f"{evil} {word}", f"{label}{evil}"] for word in ("good", "bad", "dull") for label in "pq"]
    table, cache = write_csv(tmp_path / "t.csv", rows, ("text", f"label{evil}")), tmp_path / "cache.h5"
    document(*extract(table, "--label", f"label{evil}"))
    for arguments in (["info", cache], ["search", cache, "--row", "1"]):
        shown = invoke(*arguments)
        assert shown.exit_code == 0 and "red" in shown.stdout and not {"\x1b", "\x07"} & set(shown.stdout)
    for where in (f"label{evil}=x{evil}", f"{evil}=p"):
        result = CliRunner().invoke(main, ["search", str(cache), "--row", "1", "--where", where], color=True)
        assert result.exit_code == 1 and not {"\x1b", "\x07"} & set(result.stderr)


def test_tables_on_a_terminal_that_is_not_utf8(made: Path) -> None:
    result = CliRunner(charset="ascii").invoke(main, ["search", str(made / "reviews.h5"), "--row", "1", "-k", "205"])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["train-head", "c.h5", "-o", "r", "--lr", "abc"],
        ["train-head", "c.h5", "-o", "r", "--lr", "nan"],
        ["train-head", "c.h5", "-o", "r", "--lr", "0"],
        ["train-head", "c.h5", "-o", "r", "--lr", "1e-3,"],
        ["train-head", "c.h5", "-o", "r", "--lr", "1e-3,1e-3"],
        ["train-head", "c.h5", "-o", "r", "--hidden", "-3"],
        ["train-head", "c.h5", "-o", "r", "--hidden", "1.5"],
        ["train-head", "c.h5", "-o", "r", "--val", "1.5"],
        ["train-head", "c.h5", "-o", "r", "--dropout", "1"],
        ["train-head", "c.h5", "-o", "r", "--epochs", "0"],
        ["train-head", "c.h5", "-o", "r", "--lr", "1e-5:1e-3"],
        ["train-head", "c.h5", "-o", "r", "--lr", "1e-3:1e-5", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--lr", "1e-5:1e-4:1e-3", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--lr", "1e-2,1e-5:1e-3", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--lr", ":1e-3", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--weight-decay", "0:0.1", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--hidden", "0:64", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--hidden", "1.5:64", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--dropout", "0:1", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--seed", "0:9", "--random", "3"],
        ["train-head", "c.h5", "-o", "r", "--random", "0"],
        ["train-head", "c.h5", "-o", "r", "--random", "many"],
        ["train-head", "c.h5", "-o", "r", "--schedule", "up"],
        ["train-head", "c.h5", "-o", "r", "--schedule", "linear,linear"],
        ["train-head", "c.h5", "-o", "r", "--warmup", "1"],
        ["train-head", "c.h5", "-o", "r", "--label-smoothing", "-0.1"],
        ["train-head", "c.h5", "-o", "r", "--class-weight", "some"],
        ["train-head", "c.h5", "-o", "r", "--task", "ranking"],
        ["train-head", "c.h5", "-o", "r", "--label", "a,,b"],
        ["train-head", "c.h5", "-o", "r", "--label", "a,a"],
        ["train-head", "c.h5"],
        ["extract", "-o", "c.h5"],
        ["extract", "t.csv"],
        ["extract", "t.csv", "-o", "c.h5", "--pooling", "median"],
        ["extract", "t.csv", "-o", "c.h5", "--max-length", "0"],
        ["extract", "t.csv", "-o", "c.h5", "--no-such-option"],
        ["predict", "run"],
        ["predict", "run", "text", "--input", "t.csv", "-o", "out.csv"],
        ["predict", "run", "text", "-o", "out.csv"],
        ["search", "c.h5"],
        ["search", "c.h5", "query", "--row", "1"],
        ["search", "c.h5", "query", "-k", "0"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    fails(*arguments, code=2)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDCACHE_DEBUG", "1")
    result = invoke("info", tmp_path / "nowhere.h5")
    assert result.exit_code == 1 and not isinstance(result.exception, SystemExit)
