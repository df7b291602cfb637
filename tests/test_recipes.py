"""The recipes of CONTRIBUTING: the files that they name are there, and their code, as it stands there, works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from embedcache.cli import main
from embedcache.commands.completion import add_completion
from embedcache.index.kinds import KINDS
from embedcache.runs.baselines import BASELINES
from embedcache.runs.scores import SCORES
from embedcache.tables.formats import FORMATS
from tests.conftest import document, fails, invoke, make_reviews
from tests.runs.caches import make_labelled_cache

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TRAINED = ["--label", "label", "--lr", "1e-2", "--epochs", "3", "--hidden", "0", "--val", "0.2", "--test", "0.2"]


def recipe(name: str) -> Any:
    """What the code under **NAME** in CONTRIBUTING makes."""
    found = re.search(rf"^\*\*{name}\*\*.*?^```python\n(.*?)^```", TEXT, re.M | re.S)
    assert found is not None, f"CONTRIBUTING has no recipe for {name}"
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile("\n" * TEXT[: found.start(1)].count("\n") + found[1], "CONTRIBUTING.md", "exec"), names)
    return names["VARIANT"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("recipes") / "c.h5")


def test_the_files_are_there() -> None:
    to_add = TEXT[TEXT.index("## To add") :]
    named = set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", to_add)) | set(re.findall(r"`((?:\w+/)+)`", to_add))
    assert len(named) > 20
    for name in named:
        if "NAME" not in name:
            assert (ROOT / name).exists() or (ROOT / "embedcache" / name).exists(), f"CONTRIBUTING names {name}"


def test_a_format(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.bullets"
    path.write_text("".join(f"- {text}\n" for text, _ in make_reviews(12)), encoding="utf-8")
    extract = ("extract", path, "-o", tmp_path / "c.h5", "--model", tiny_bert, "--device", "cpu")
    assert "unknown kind of file '.bullets'" in fails(*extract)
    made = recipe("A format of tables")
    for suffix in made.suffixes:
        monkeypatch.setitem(FORMATS, suffix, made)
    assert document(*extract)["rows"] == 12
    found = document("search", tmp_path / "c.h5", "--row", 0, "-k", 3)["results"]
    assert len(found) == 3 and not any(one["text"].startswith("-") for one in found)
    assert ".bullets" in invoke("extract", "--help").stdout


def test_an_index_kind(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("An index kind")
    command = ("index", cache, "-o", tmp_path / "c.index", "--kind", made.kind, "--recall", "0.9")
    assert made.kind in fails(*command, code=2)
    monkeypatch.setitem(KINDS, made.kind, made)
    assert document(*command)["kind"] == made.kind
    assert document("search", cache, "--index", tmp_path / "c.index", "--row", 3, "-k", 5)["results"]
    assert made.kind in invoke("index", "--help").stdout


def test_a_baseline(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("A baseline")
    monkeypatch.setitem(BASELINES, made.name, made)
    trained = invoke("train-head", cache, "-o", tmp_path / "run", *TRAINED)
    assert trained.exit_code == 0 and made.title in trained.stdout
    document("report", tmp_path / "run", "-o", tmp_path / "page.html")
    assert made.title in (tmp_path / "page.html").read_text("utf-8")
    assert made.long in (tmp_path / "run" / "README.md").read_text("utf-8")
    evaluated = document("evaluate", tmp_path / "run", cache, "--label", "label")
    assert 0 <= evaluated["runs"][0]["baselines"][made.name]["scores"]["accuracy"]["value"] <= 1


def test_a_score(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("A score")
    monkeypatch.setitem(SCORES, made.name, made)
    report = document("train-head", cache, "-o", tmp_path / "run", *TRAINED)
    (column,) = report["columns"].values()
    assert 0 < column["evaluation"]["test"][made.name] <= 1
    evaluate = ("evaluate", tmp_path / "run", cache, "--label", "label")
    assert 0 < document(*evaluate)["runs"][0]["scores"][made.name]["value"] <= 1
    assert "balanced" in invoke(*evaluate).stdout


def test_a_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("A command")
    add_completion(made)
    monkeypatch.setitem(main.commands, "count", made)
    assert document("count", cache) == {"rows": 400}
    assert invoke("count", cache).stdout == "400 rows\n"
    assert "embedcache count" in invoke("count", "--help").stdout and "count" in invoke("--help").stdout
    assert "no such file" in fails("count", "none.h5")


def test_every_command_has_a_file_of_its_name() -> None:
    there = {path.stem for path in (ROOT / "embedcache" / "commands").glob("*.py")}
    assert {name.replace("-", "_") for name in main.commands} - there == {
        "verify",  # beside info
        "relabel",  # beside labels
        *("import", "vectors"),  # in import_vectors: import is a word of Python's own
        "next",  # in next_rows: so is next
    }
