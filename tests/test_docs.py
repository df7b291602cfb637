"""The code on the pages of docs/ does what they say, and uses public names alone."""

from __future__ import annotations

import ast
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import embedcache as ec
from embedcache.common.labels import LabelWarning

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    DOCS / "notebook.ipynb",
    *sorted(DOCS.glob("examples/*.ipynb")),
    ROOT / "README.md",
    ROOT / "embedcache" / "report" / "card.md",
]


def test_the_blocks_of_the_python_page_run_in_order(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bert, tmp_path / "minilm")
    names: dict[str, Any] = {}
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    for block in blocks:
        lines_before = page[: block.start(1)].count("\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LabelWarning)
            exec(compile("\n" * lines_before + block[1], str(DOCS / "python.md"), "exec"), names)
    assert len(blocks) == page.count("```python") >= 11 and capsys.readouterr().out
    assert names["result"].best.val_accuracy > 0.85 and names["search"].best_score_ > 0.85
    assert names["result_of_names"].best.classes == ["bad", "good"] and names["probabilities"].shape == (10, 2)
    assert names["frame"]["predicted"].isin(["bad", "good"]).all() and set(names["found"]["kind"]) == {"good"}
    assert len(names["doubtful"]) == (names["issues"]["issue"] == "label").sum()
    assert names["loss"].item() < 0.5 and (tmp_path / "best.safetensors").exists()


def code_of(page: Path) -> Iterator[str]:
    """The blocks of a page that are Python."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        yield from ("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        return
    yield from (found[1] for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for found in re.finditer(r"(?:^    .*\n|^\n)+", text, re.MULTILINE):
        block = re.sub("^    ", "", found[0], flags=re.MULTILINE)
        if re.search(r"\bec\.|import embedcache", block):
            yield block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_public_names_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, more in re.findall(r"\bec\.([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?", text):
        assert name in ec.__all__, f"ec.{name}"
        assert not more or hasattr(getattr(ec, name), more), f"ec.{name}.{more}"
    for code in code_of(page):
        for node in ast.walk(ast.parse(code.replace("{", "_").replace("}", "_") if page.name == "card.md" else code)):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "embedcache", node.module
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("embedcache.") for alias in node.names)


def test_pages_have_code() -> None:
    """The test above finds it."""
    found = {page.name: len(list(code_of(page))) for page in PAGES}
    assert found["README.md"] >= 1 and found["tutorial.md"] >= 1 and found["search.md"] >= 2
    assert found["python.md"] >= 11 and found["notebook.ipynb"] >= 8


def test_every_public_name_is_on_the_page_of_names() -> None:
    named = re.findall(r"^::: ec\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) == len(set(named)) and set(named) == set(ec.__all__) - {"__version__"}


def test_the_badges_are_true() -> None:
    texts = re.findall(r"<text [^>]*>([^<]+)</text>", (DOCS / "images" / "badges.svg").read_text(encoding="utf-8"))
    badges = dict(zip(texts[::2], texts[1::2], strict=True))
    assert f"![{'; '.join(f'{name}: {value}' for name, value in badges.items())}]" in (ROOT / "README.md").read_text(
        "utf-8"
    )
    project, makefile, wheels = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "Makefile", "release/wheels.py")
    )
    (oldest,), (newest,) = (
        re.findall(r'requires-python = ">=(.+)"', project),
        re.findall(r"newest:\n.*python(3\S+)", makefile),
    )
    assert badges["Python"] == f"{oldest} to {newest}"
    assert f'license = "{badges["license"]}"' in project
    built = " ".join(re.findall(r'^    "(\w+)": Platform', wheels, re.MULTILINE))
    for name in ("manylinux", "musllinux", "macosx", "win_amd64", "x86_64", "aarch64"):
        assert name in built
    assert badges["wheels"] == "Linux (glibc, musl), macOS, Windows" and badges["processors"] == "x86-64, ARM"
