"""Every command's -o: modes, streams, symlinks, two at once, and what is left in the folder."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import embedcache as ec
from embedcache.common.whole_file import open_output
from tests.conftest import document, fails, invoke, make_reviews, write_csv


@pytest.fixture(scope="module")
def made(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reviews.csv, its cache c.h5, a run, and the model's name in model."""
    folder = tmp_path_factory.mktemp("made")
    write_csv(folder / "reviews.csv", make_reviews(120))
    extract = ["extract", folder / "reviews.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--pooling", "mean"]
    document(*extract, "--device", "cpu")
    document("train-head", folder / "c.h5", "-o", folder / "run", "--lr", "1e-2", "--epochs", "1")
    (folder / "model").symlink_to(tiny_bert)
    return folder


def outputs(made: Path) -> dict[str, list[Any]]:
    """The arguments of each command that writes, before -o, by the name of what it makes."""
    cache, model = made / "c.h5", made / "model"
    return {
        "new.h5": ["extract", made / "reviews.csv", "--model", model, "--pooling", "mean", "--device", "cpu"],
        "run": ["train-head", cache, "--lr", "1e-2", "--epochs", "1"],
        "predicted.csv": ["predict", made / "run", cache],
        "predicted.parquet": ["predict", made / "run", cache],
        "found.jsonl": ["search", cache, "--file", made / "reviews.csv", "--device", "cpu"],
        "audit.csv": ["audit", cache],
        "c.index": ["index", cache],
        "report.html": ["report", made / "run"],
        "exported": ["export", made / "run", "--to", "sentence-transformers"],
    }


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_modes_follow_the_umask(made: Path, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for name, arguments in outputs(made).items():
            if umask == 0o077 or name in ("predicted.csv", "audit.csv", "c.index"):
                document(*arguments, "-o", tmp_path / name)
        ec.load_run(made / "run").best.save(tmp_path / "head.safetensors")
    finally:
        os.umask(before)
    wrong = {
        str(path): oct(path.stat().st_mode)
        for path in tmp_path.rglob("*")
        if stat.S_IMODE(path.stat().st_mode) != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert not wrong and (tmp_path / "audit.json").exists()


@pytest.mark.parametrize("place", ["-", "/dev/null", "FIFO"])
def test_what_is_no_stream(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "FIFO")
    for name in ("new.h5", "run", "c.index", "exported"):
        line = fails(*outputs(made)[name], "-o", place)
        assert "standard output cannot hold" in line or f"{place} (a pipe or device) cannot hold" in line, line
        assert ("name a folder" if name in ("run", "exported") else "name a file") in line
    assert [path.name for path in tmp_path.iterdir()] == ["FIFO"] and Path("/dev/null").is_char_device()
    line = fails("merge", made / "c.h5", "-o", place)
    assert "cannot hold a cache" in line


@pytest.mark.parametrize("name", ["predicted.csv", "found.jsonl", "audit.csv", "report.html"])
def test_standard_output(made: Path, name: str) -> None:
    arguments = [str(one) for one in outputs(made)[name]]
    command = [sys.executable, "-m", "embedcache", *arguments, "-o", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if name == "report.html":
        assert done.stdout.lower().startswith("<!doctype html>") and done.stdout.rstrip().endswith("-->")
    else:
        assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines()) and done.stdout
    assert "standard output" in done.stderr or "- has all of it" in done.stderr
    assert "both go to standard output" in fails(*arguments, "-o", "-", "--json", code=2)


@pytest.mark.parametrize("name", ["predicted.csv", "found.jsonl", "audit.csv", "c.index", "report.html"])
def test_two_at_once(made: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    with open_output(output):
        line = fails(*outputs(made)[name], "-o", output)
        assert f"process {os.getpid()} is writing" in line or "another process is writing" in line
        assert sorted(path.name for path in tmp_path.iterdir()) == [f".{name}.partial"]
    document(*outputs(made)[name], "-o", output)
    assert {path.name for path in tmp_path.iterdir()} - {"audit.json"} == {name}


@pytest.mark.parametrize("name", ["predicted.csv", "found.jsonl", "audit.csv", "c.index", "report.html", "new.h5"])
def test_symlinks_are_followed(made: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / name).symlink_to(f"there/{name}")
    document(*outputs(made)[name], "-o", tmp_path / name)
    assert (tmp_path / name).is_symlink() and (tmp_path / "there" / name).stat().st_size


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_an_audit_in_every_format(made: Path, tmp_path: Path, suffix: str) -> None:
    from embedcache.tables.read import open_source
    from embedcache.tables.whole import layout_of, whole_columns

    for end in (".csv", suffix):
        shown = invoke("audit", made / "c.h5", "-o", tmp_path / f"audit{end}")
        assert f"{tmp_path / 'audit.json'} the whole report" in shown.stdout.replace("\n", " "), shown.output
    whole = json.loads((tmp_path / "audit.json").read_text())
    layout, _ = layout_of(open_source(tmp_path / f"audit{suffix}"))
    assert layout.names[:3] == ["issue", "rank", "row"]
    columns = [
        column for part in whole_columns(open_source(tmp_path / f"audit{suffix}"), layout, 99) for column in part
    ]
    assert len(columns[0]) == sum(1 for _ in (tmp_path / "audit.csv").open()) - 1 >= len(whole["labels"])
    document("report", made / "run", "--audit", tmp_path / f"audit{suffix}", "-o", tmp_path / "report.html")
    assert "Audit of the data" in (tmp_path / "report.html").read_text()
