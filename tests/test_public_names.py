"""The names of ``import embedcache as ec``: all there, in any order of imports, typed, with the commands' defaults."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import embedcache as ec
from embedcache.cli import main

ROOT = Path(__file__).resolve().parents[1]
INIT = ROOT / "embedcache" / "__init__.py"
MODULES = [
    "audit",
    "drift",
    "export",
    "finetune",
    "index",
    "ladder",
    "report",
    "search",
    "serve",
]  # names of functions, and of modules


def seen_by_editors() -> dict[str, str]:
    """Public name -> the name that it has at home."""
    (block,) = (node for node in ast.parse(INIT.read_text("utf-8")).body if isinstance(node, ast.If))
    imports = (alias for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names)
    return {alias.asname or alias.name: alias.name for alias in imports}


def test_the_three_lists_agree() -> None:
    assert set(ec._HOME) == set(seen_by_editors()) == set(ec.__all__) - {"__version__"}
    assert ec.__all__ == sorted(ec.__all__) == dir(ec)


@pytest.mark.parametrize("name", sorted(ec._HOME))
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(ec, name)
    assert (inspect.getdoc(found) or "").strip(), f"{name} has no docstring"
    if name in MODULES:
        assert found.function.__name__ == seen_by_editors()[name]


@pytest.mark.parametrize("name", MODULES)
def test_a_function_and_a_module_of_one_name(name: str) -> None:
    """In any order, each in a process of its own."""
    steps = [
        f"callable(ec.{name})",
        f"__import__('embedcache.{name}') is ec",
        f"importlib.import_module('embedcache.{name}').__name__ == 'embedcache.{name}'",
    ]
    first = {
        "search": "Searcher", "index": "SearchIndex", "report": "ReportFile", "audit": "AuditReport",
        "export": "ExportReport", "finetune": "TuneReport", "ladder": "LadderReport", "drift": "DriftReport",
    }.get(name)  # fmt: skip
    inside = f"from embedcache.{name} import {first}" if first else f"import embedcache.{name}.job"
    for order in (steps, steps[::-1]):
        code = "import importlib, inspect, pickle\nimport embedcache as ec\n"
        code += "".join(f"assert {step}, {step!r}\n" for step in order) + f"{inside}\n"
        code += f"import embedcache.{name} as module\nassert module is ec.{name} and callable(module)\n"
        code += f"assert list(inspect.signature(ec.{name}).parameters)[0] != 'args'\n"
        code += f"assert pickle.loads(pickle.dumps(ec.{name})) is module\n"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'embedcache' has no attribute 'xyz'"):
        _ = ec.xyz  # type: ignore[attr-defined]


# ---- the same defaults on the command line and from Python ----

# Command -> the functions that together have its options.
SAME: dict[str, list[Callable[..., Any]]] = {
    "adapt": [ec.adapt],
    "audit": [ec.audit.function],
    "drift": [ec.drift.function],
    "evaluate": [ec.evaluate],
    "export": [ec.export.function],
    "finetune": [ec.finetune.function],
    "extract": [ec.extract],
    "import": [ec.import_vectors],
    "index": [ec.index.function],
    "info": [ec.open_cache],
    "label": [ec.label_cache],
    "labels": [ec.labels],
    "ladder": [ec.ladder.function],
    "merge": [ec.merge],
    "next": [ec.next_rows],
    "predict": [ec.predict_file, ec.Classifier.predict],
    "relabel": [ec.relabel],
    "report": [ec.report.function],
    "search": [ec.search.function, ec.search_file],
    "serve": [ec.serve.function],
    "train-head": [ec.train_run],
    "vectors": [ec.write_vectors],
    "verify": [ec.verify],
    "zero-shot": [ec.zero_shot],
}
COMMAND_LINE_ALONE = {"completion": "for shells", "doctor": "prints what it finds"}
ANOTHER_NAME = {"cache": {"path"}, "runs": {"data"}}  # open_cache(path) is pinned; RUN... TABLE is one argument
# What one of the two has, or has otherwise, and why. (command, parameter) -> reason.
DIFFERENT: dict[tuple[str, str], str] = {
    ("predict", "input"): "the command also takes texts instead",
    ("search", "columns"): "which kept columns the screen shows: Found has them all",
}


def commands() -> list[tuple[str, click.Parameter]]:
    """All options but those of the whole process, whose value the command does not see."""
    return [
        (name, param)
        for name, command in sorted(main.commands.items())
        for param in command.params
        if name not in COMMAND_LINE_ALONE and param.name not in ("as_json", "help") and param.expose_value
    ]


def test_every_command_has_its_function() -> None:
    assert set(main.commands) == set(SAME) | set(COMMAND_LINE_ALONE)


def parameters(command: str) -> dict[str, inspect.Parameter]:
    """Of the functions together, those of the first first."""
    found: dict[str, inspect.Parameter] = {}
    for function in SAME[command]:
        for name, parameter in inspect.signature(function).parameters.items():
            found.setdefault(name, parameter)
    return found


@pytest.mark.parametrize(("command", "param"), commands(), ids=lambda value: getattr(value, "name", value))
def test_the_same_default(command: str, param: click.Parameter) -> None:
    assert param.name is not None
    found = parameters(command)
    names = {param.name, *ANOTHER_NAME.get(param.name, ())} & set(found)
    if (command, param.name) in DIFFERENT:
        return
    assert names, f"{command}: no function has {param.name}; it has {', '.join(found)}"
    default = found[names.pop()].default
    if param.required or default is inspect.Parameter.empty:
        assert default is inspect.Parameter.empty, f"{param.name} must be given to the command, not to the function"
        return
    given = main.commands[command].make_context(command, [], resilient_parsing=True).params[param.name]
    assert plain(given) == plain(default), f"{command} --{param.name}: {given!r}, from Python {default!r}"


def plain(value: Any) -> Any:
    """A list of one is that one; nothing is None."""
    if isinstance(value, (list, tuple)):
        return None if not value else value[0] if len(value) == 1 else list(value)
    return value


@pytest.mark.parametrize("command", sorted(SAME))
def test_python_has_no_options_of_its_own(command: str) -> None:
    heard = {"progress", "tell", "planned", "listening", "vectors", "self", "texts"}
    own = [str(param.name) for one, param in commands() if one == command]
    known = {name for one in own for name in (one, *ANOTHER_NAME.get(one, ()))}
    assert not set(parameters(command)) - known - heard - {name for one, name in DIFFERENT if one == command}


def test_the_exceptions_are_needed() -> None:
    there = {(command, param.name) for command, param in commands()}
    assert set(DIFFERENT) <= there and all(DIFFERENT.values())


# ---- types ----


@pytest.mark.slow
def test_a_users_script_is_typed(tmp_path: Path) -> None:
    """As mypy sees an installed package: py.typed is there, and a wrong use is seen."""
    script = ROOT / "tests" / "user_script.py"
    (tmp_path / "right.py").write_text(script.read_text("utf-8"), "utf-8")
    wrong = 'import embedcache as ec\nec.search("c.h5", k="ten")\nec.open_cache("c.h5").rows.upper()\n'
    (tmp_path / "wrong.py").write_text(wrong, "utf-8")
    (tmp_path / "mypy.ini").write_text("[mypy]\nfollow_imports = silent\nwarn_unused_ignores = False\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        "right.py",
        "wrong.py",
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if "error:" in line]
    assert [line.split(":")[:2] for line in found] == [["wrong.py", "2"], ["wrong.py", "3"]], done.stdout + done.stderr
    assert '"k"' in found[0] and '"int" has no attribute "upper"' in found[1]


def test_the_types_are_in_the_package() -> None:
    assert (ROOT / "embedcache" / "py.typed").is_file()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text("utf-8").split("package-data]")[1].splitlines()[1]
