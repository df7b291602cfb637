"""The benchmarks are not run by the tests; what they take from the project must be there all the same."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))
OURS = ("embedcache", "benchmarks", "tests", "demo")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_that_a_script_imports_is_there(script: Path) -> None:
    """Imports inside functions too."""
    missing = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = importlib.import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name):
                    try:
                        importlib.import_module(f"{node.module}.{name.name}")
                    except ImportError:
                        missing.append(f"line {node.lineno}: {node.module}.{name.name}")
    assert missing == []


def test_the_readme_lists_every_script_that_is_run() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    commands = [path for path in SCRIPTS if "__main__" in path.read_text(encoding="utf-8")]
    assert len(commands) > 20
    names = [path.relative_to(ROOT / "benchmarks").as_posix() for path in commands]
    assert [name for name in names if name not in listed] == []
