"""Completion: the scripts as real shells run them, and what they are offered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from click.testing import CliRunner

from embedcache.cache import open_cache
from embedcache.cli import main
from embedcache.encoder.poolings import MODEL, POOLINGS
from tests.audit.rows import make_rows
from tests.conftest import document, invoke, make_cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a cache, a run's folder, and an embedcache command of this very Python on a path of its own."""
    texts, x, labels = make_rows(40)
    columns = {"movie": texts, "year": texts}
    make_cache(tmp_path / "reviews.h5", texts, x, {"label": labels, "stars": labels}, columns=columns)
    (tmp_path / "run-1").mkdir()
    (tmp_path / "table.csv").write_text("id;text;class;year\n1;a;b;2\n")
    (tmp_path / "table.jsonl").write_text('{"question": "a", "text": "b"}\n')
    book = openpyxl.Workbook()
    book.active.append(["text", "year"])
    book.save(tmp_path / "table.xlsx")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "embedcache"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m embedcache "$@"\n')
    command.chmod(0o755)
    return tmp_path


def in_bash(folder: Path, line: str) -> list[str]:
    """What a real bash offers at the end of the line."""
    words = line.split(" ")
    script = f"""
        eval "$(embedcache completion bash)"
        complete -p embedcache >&2
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
        COMP_LINE='{line}'; COMP_POINT={len(line)}
        _embedcache_completion embedcache
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "-F _embedcache_completion" in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("embedcache ext", ["extract"]),
        ("embedcache train-head reviews.h5 --stand", ["--standardize"]),
        ("embedcache extract --dtype bf", ["bfloat16"]),
        ("embedcache extract --pooling cls,", [f"cls,{name}" for name in ("auto", *POOLINGS, MODEL) if name != "cls"]),
        ("embedcache audit reviews.h5 --group m", ["movie"]),
        ("embedcache train-head reviews.h5 --label label,", ["label,stars", "label,movie", "label,year"]),
        ("embedcache completion z", ["zsh"]),
        ("embedcache extract table.csv -o c.h5 --label ", ["id", "text", "class", "year"]),
        ("embedcache extract table.csv --label class,", ["class,id", "class,text", "class,year"]),
        ("embedcache extract -o c.h5 table.csv table.jsonl --text t", ["text"]),
        ("embedcache extract table.xlsx --keep y", ["year"]),
        ("embedcache predict run-1 --input table.jsonl --text q", ["question"]),
        ("embedcache search reviews.h5 --file table.jsonl --text ", ["question", "text"]),
        ("embedcache search reviews.h5 word --show m", ["movie"]),
        ("embedcache search reviews.h5 word --where mo", ["movie"]),
        ("embedcache predict run-1 reviews.h5 --where ye", ["year"]),
        ("embedcache train-head reviews.h5 -o r --split-column ye", ["year"]),
    ],
)
def test_bash(folder: Path, line: str, offered: list[str]) -> None:
    assert in_bash(folder, line) == offered


def answers(folder: Path, *words: str) -> list[str]:
    """TYPE,VALUE of each offer for the last word."""
    environment = {"COMP_WORDS": " ".join(["embedcache", *words]), "COMP_CWORD": str(len(words))}

    result = CliRunner().invoke(
        main, [], prog_name="embedcache", env={**environment, "_EMBEDCACHE_COMPLETE": "bash_complete"}
    )
    return result.stdout.split()


def test_files_and_folders_are_left_to_the_shell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for command in ("info", "verify", "audit", "search", "train-head"):
        assert answers(folder, command, "rev") == ["file,rev"]
    assert answers(folder, "predict", "run") == ["dir,run"]
    assert answers(folder, "--config", "x") == ["file,x"]
    assert answers(folder, "extract", "a.csv", "-o", "rev") == ["file,rev"]
    assert answers(folder, "audit", "none.h5", "--label", "l") == []
    (folder / "broken.h5").write_bytes(b"no cache")
    assert answers(folder, "audit", "broken.h5", "--label", "l") == []
    (folder / "broken.parquet").write_bytes(b"no table")
    assert answers(folder, "extract", "broken.parquet", "--label", "l") == []


def test_conditions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zsh and fish ask for what stands after =, too; bash takes that for another word."""
    monkeypatch.chdir(folder)
    with open_cache("reviews.h5") as cache:
        classes = cache.labels("label")[1]
    where = ["search", "reviews.h5", "word", "--where"]
    assert answers(folder, *where, "''") == ["plain,label", "plain,stars", "plain,movie", "plain,year", "plain,text"]
    assert answers(folder, *where, "label=") == [f"plain,label={name}" for name in classes]
    assert answers(folder, *where, f"'stars={classes[0]} and mov'") == ["plain,stars=" + classes[0], "and", "movie"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    first, rest = result.stdout.split("\n", 1)
    assert first.startswith("# ") and f"completion {shell}" in first
    assert f"_EMBEDCACHE_COMPLETE={shell}_complete" in rest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_valid(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    script = invoke("completion", shell).stdout
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_script_as_json() -> None:
    found = document("completion", "fish")
    assert found["shell"] == "fish" and "complete" in found["script"]


def test_wrong_usage() -> None:
    assert invoke("completion").exit_code == 2
    assert invoke("completion", "powershell").exit_code == 2
