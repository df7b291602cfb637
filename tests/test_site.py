"""The docs as a site (mkdocs) and the notebook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = [DOCS / "notebook.ipynb", *sorted(DOCS.glob("examples/*.ipynb"))]
OUTSIDE = re.compile(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//[^"'\s)>]+""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; a warning is an error."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # with --quiet, --strict counts no warning
    return place


def test_every_page_is_in_the_navigation(site: Path) -> None:
    named = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {page.name for page in DOCS.glob("*.md")}
    assert all((site / page).with_suffix(".html").is_file() for page in named)
    assert all((site / name).is_file() for name in ("notebook.ipynb", "examples/last_layer.ipynb"))
    assert not (site / "site.py").exists()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", html)
        assert loaded and not [tag for tag in loaded if OUTSIDE.search(tag)]
    for sheet in site.rglob("*.css"):
        assert not OUTSIDE.search(sheet.read_text(encoding="utf-8")), sheet


def test_links_out_of_the_docs_are_text(site: Path) -> None:
    for page in site.glob("*.html"):
        assert not re.search(r"""href=["']\.\./""", page.read_text(encoding="utf-8")), page


def test_the_page_of_names_is_made_of_docstrings(site: Path) -> None:
    html = (site / "api.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
    assert ":::" not in text and "def train_run" not in text
    for signature in ("search( cache: str | Path, query: str | None = None", "train_run( cache: str | Path"):
        assert signature in text, signature
    for said in ("The rows of a cache that are most like texts", "ec.FusedHeadSearchCV", "Raises: EmbedcacheError"):
        assert said in text, said


@pytest.mark.slow
def test_versions_stand_beside_each_other(tmp_path: Path) -> None:
    """As the workflow of a release publishes them."""
    run(tmp_path, "git", "clone", "--quiet", ROOT, "clone")
    clone = tmp_path / "clone"
    run(clone, "git", "config", "user.name", "test")
    run(clone, "git", "config", "user.email", "test@example.org")
    for version in ("0.1", "0.2"):
        run(clone, Path(sys.executable).with_name("mike"), "deploy", "--update-aliases", version, "latest")
    run(clone, Path(sys.executable).with_name("mike"), "set-default", "latest")
    known = json.loads(run(clone, "git", "show", "gh-pages:versions.json"))
    assert [(one["version"], one["aliases"]) for one in known] == [("0.2", ["latest"]), ("0.1", [])]
    page = run(clone, "git", "show", "gh-pages:0.1/search.html")
    assert '<script src="js/version-select.js">' in page and not OUTSIDE.search(
        "".join(re.findall(r"<script[^>]*>", page))
    )
    assert "latest/" in run(clone, "git", "show", "gh-pages:index.html")


def run(folder: Path, *command: str | Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_notebook(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    assert len(cells) >= 5
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert path.name in (DOCS / "examples.md").read_text("utf-8")


SAYS = {  # what its outputs hold
    "notebook": ["800", "12 heads in", "fresh", "rotten"],
    "wrong_labels": ["1,500 rows", "of the first 60 rows are flipped ones, 3 would be by chance"],
    "vectors_you_have": ["(2000, 128)", "fresh", "rotten", "vectors.parquet"],
    "last_layer": ["fresh", "rotten", "tuned.safetensors: 7.1 MB"],
    "when_it_does_not_know": ["unfamiliar", "unsure", "tedious"],
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(one, marks=[pytest.mark.slow] * (one.stem == "last_layer"), id=one.stem) for one in NOTEBOOKS],
)
def test_notebooks_run(path: Path) -> None:
    """In a kernel of its own; the reviews and the encoder are fetched where they are not there yet."""
    notebook = read_notebook(path)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(map(str, outputs))
    assert [one for one in SAYS[path.stem] if one not in text] == []
    assert not [one for one in outputs if one.output_type == "error"] and "Traceback" not in text
