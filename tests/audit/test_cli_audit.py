"""embedcache audit: what it prints, and one clear line for all that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audit.rows import make_rows
from tests.conftest import document, fails, invoke, make_cache


def test_the_screen(noisy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    result = invoke("audit", noisy[0], "-o", tmp_path / "a.csv", "--split", "part")
    assert result.exit_code == 0, result.output
    for words in (
        "Label errors: about",
        "ead the first",
        "Duplicates:",
        "across part",
        "Outliers:",
        "400 of 400 rows judged",
        "a.json",
    ):
        assert words in result.stdout
    assert "suggested" in result.stdout


def test_the_json(noisy: tuple[Path, np.ndarray]) -> None:
    found = document("audit", noisy[0], "--top", 3, "--seed", "0,1", "--group", "film", "--folds", 3, "-k", 5)
    assert (len(found["labels"]), found["seeds"], found["folds"], found["group"]) == (3, [0, 1], 3, "film")
    assert found["neighbours"] == 5 and found["found"]["label"] >= 3


def test_texts_are_not_obeyed(tmp_path: Path) -> None:
    """Neither by the terminal nor by rich's markup."""
    texts, x, labels = make_rows(60)
    texts[0] = texts[1] = "[bold red]\x1b[31mred [link=http://x]"
    result = invoke("audit", make_cache(tmp_path / "c.h5", texts, x, {"label": labels}))
    assert result.exit_code == 0 and "\x1b" not in result.stdout and "[bold red]" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label", "nothing"], "no label column 'nothing'"),
        (["--label", "film"], "kept column"),
        (["--group", "nothing"], "--group nothing"),
        (["--group", "label"], "that is the label itself"),
        (["--split", "nothing"], "no such column"),
        (["--split", "film"], "50 different values"),
        (["--run", "nowhere"], "no run at nowhere"),
        (["--pooling", "mean"], "has no mean vectors"),
        (["--layers", "3"], "layer"),
        (["--folds", "100", "--group", "film"], "100 folds need as many groups"),
        (["-o", "audit.txt"], "name one of .csv"),
        (["-o", "audit.json"], "name a table such as a .csv"),
        (["-o", "nowhere/audit.csv"], "cannot write nowhere/audit.csv: there is no folder"),
    ],
)
def test_bad_options(noisy: tuple[Path, np.ndarray], options: list[str], words: str) -> None:
    assert words in fails("audit", noisy[0], *options)


@pytest.mark.parametrize(
    "options",
    [
        ["--folds", "1"],
        ["--folds", "many"],
        ["--seed", "a"],
        ["--seed", "0,0"],
        ["--near", "1.5"],
        ["--near", "x"],
        ["-k", "0"],
        ["-k", "100000"],
        ["--top", "0"],
        ["--pooling", "median"],
        ["--split", "part", "--run", "r"],
        ["--nothing"],
    ],
)
def test_wrong_usage(options: list[str]) -> None:
    fails("audit", "c.h5", *options, code=2)


def test_no_cache(tmp_path: Path) -> None:
    fails("audit", code=2)
    assert "no such file" in fails("audit", tmp_path / "none.h5")
    other = tmp_path / "other.h5"
    other.write_text("not a cache")
    assert "not an HDF5 file" in fails("audit", other)


def cache_of(tmp_path: Path, labels: list[Any], **options: Any) -> Path:
    texts, x, _ = make_rows(len(labels))
    return make_cache(tmp_path / "c.h5", texts, x, {"label": labels}, **options)


def test_caches_that_cannot_be_audited(tmp_path: Path) -> None:
    half = ["a", "b"] * 20
    assert "not complete" in fails("audit", cache_of(tmp_path, half, incomplete=True))
    assert "holds lists" in fails("audit", cache_of(tmp_path, [["a"], ["b", "a"]] * 20))
    assert "one class" in fails("audit", cache_of(tmp_path, ["a"] * 40))
    assert "no row of" in fails("audit", cache_of(tmp_path, [None] * 40))
    assert "1 classes with 5 rows or more" in fails("audit", cache_of(tmp_path, ["a"] * 36 + ["b"] * 4))
    assert "no label column" in fails("audit", make_cache(tmp_path / "d.h5", *make_rows(9)[:2]))
    assert "is it the label?" in fails("audit", cache_of(tmp_path, [str(i) for i in range(40)]))
    blank = make_cache(tmp_path / "e.h5", [" "] * 40, make_rows(40)[1], {"label": half})
    assert "0 classes with 5 rows or more" in fails("audit", blank)


def test_a_cut_file(noisy: tuple[Path, np.ndarray]) -> None:
    data = noisy[0].read_bytes()
    noisy[0].write_bytes(data[: len(data) // 2])
    assert "damaged" in fails("audit", noisy[0])


def test_a_place_that_is_a_folder(noisy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    assert "is a folder" in fails("audit", noisy[0], "-o", tmp_path / "a.csv")
    (tmp_path / "b.json").mkdir()
    assert "is a folder" in fails("audit", noisy[0], "-o", tmp_path / "b.csv")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours(noisy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    assert "cannot write" in fails("audit", noisy[0], "-o", tmp_path / "theirs" / "a.csv")


def test_an_old_report_stays_where_the_work_fails(noisy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    fails("audit", noisy[0], "-o", tmp_path / "a.csv", "--label", "nothing")
    assert (tmp_path / "a.csv").read_text() == "old"
    document("audit", noisy[0], "-o", tmp_path / "a.csv")
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["rows"] == 400
