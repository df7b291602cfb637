"""The house rules that a machine can check: who imports whom, what is loaded when, no pickle, file sizes."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from embedcache.heads.kinds import KINDS
from tests.not_on_windows import NOT_ON_WINDOWS, reason_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "embedcache"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Rooms by floor: a module may import from its own room and from lower floors only.
FLOORS = [
    "errors",
    "common ops",
    "encoder heads tables",
    "cache",
    "labelling",
    "extraction index pretraining runs",
    "vector_store vectors",
    "audit doctor finetune search",
    "prediction",
    "active_learning drift",
    "report",
    "evaluation export",
    "prompting",
    "ladder serve",
    "commands",
    "cli",
    "__main__ __init__",
]
LOOSE = {"__init__", "__main__", "cli", "errors", "ops"}  # files that are no room's
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
HEAVY = {
    "torch", "transformers", "numpy", "h5py", "pyarrow", "sklearn", "faiss", "rich", "matplotlib", "jinja2", "fastapi",
    "uvicorn",
}  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports, at the top or inside a function."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "embedcache":
            rooms |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embedcache."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("embedcache.")}
    return rooms


def imported_packages(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
    return packages


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_never_point_upwards(path: Path) -> None:
    own = room(path)
    assert own in FLOOR, f"{own} needs a floor"
    for other in imported_rooms(path) - {own}:
        assert FLOOR[other] < FLOOR[own], f"{own} imports {other}, which is not below it"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_files(path: Path, known: set[str]) -> set[str]:
    """Modules of the project that a module imports while it works, not for type checkers alone."""
    files, todo = set(), list(ast.iter_child_nodes(ast.parse(path.read_text(encoding="utf-8"))))
    while todo:
        node = todo.pop()
        if is_type_checking(node):
            todo += node.orelse  # type: ignore[attr-defined]
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embedcache"):
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            files |= {one if one in known else node.module or "" for one in each}
        elif isinstance(node, ast.Import):
            files |= {alias.name for alias in node.names if alias.name in known}
        todo += ast.iter_child_nodes(node)
    return files - {"embedcache"}


def test_no_circle_between_files() -> None:
    known = {module_name(path) for path in MODULES}
    arrows = {module_name(path): imported_files(path, known) - {module_name(path)} for path in MODULES}
    assert sum(map(len, arrows.values())) > 500
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError with the circle


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from embedcache.cache import file\n")
    assert imported_files(tmp_path / "a.py", {"embedcache.cache", "embedcache.cache.file"}) == {"embedcache.cache.file"}
    (tmp_path / "b.py").write_text(
        "if TYPE_CHECKING:\n    from embedcache.cache import file\nelse:\n    import embedcache.cli\n"
    )
    assert imported_files(tmp_path / "b.py", {"embedcache.cache.file", "embedcache.cli"}) == {"embedcache.cli"}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_few_files_are_loose() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_files_of_tests_have_names_of_their_own() -> None:
    """tests/ has no packages: pytest takes two files of one name for one module, and runs neither."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_what_is_skipped_on_windows_is_there() -> None:
    listed = [name for names in NOT_ON_WINDOWS.values() for name in names.split()]
    there = [
        f"{path.relative_to(ROOT).as_posix()}::{node.name}"
        for path in {ROOT / name.partition("::")[0] for name in listed}
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert sorted(set(listed)) == sorted(listed) and set(listed) <= set(there)
    assert all(reason_of(name) for name in listed) and reason_of("tests/test_house.py::test_nothing") is None


def test_contributing_lists_the_rooms() -> None:
    listed = re.findall(r"^  (\w+)/ +\w", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    floors = [FLOOR[name] for name in listed]
    assert floors == sorted(floors, reverse=True)  # as they stand in FLOORS, the faces first


@pytest.mark.parametrize("init", sorted(PACKAGE.glob("*/**/__init__.py")), ids=lambda path: path.parent.name)
def test_a_room_lists_its_files(init: Path) -> None:
    """In the order in which to read them, a line each."""
    listed = re.findall(
        r"^    (\w+)/?  ", ast.get_docstring(ast.parse(init.read_text("utf-8")), clean=False) or "", re.M
    )
    there = {path.stem for path in init.parent.glob("*.py")} | {
        path.parent.name for path in init.parent.glob("*/__init__.py")
    }
    assert sorted(listed) == sorted(there - {"__init__"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_room_may_not_touch(path: Path) -> None:
    packages = imported_packages(path)
    assert not packages & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    if room(path) == "heads":
        assert "transformers" not in packages
    if room(path) == "cache":
        assert "torch" not in packages
    text = path.read_text(encoding="utf-8")
    calls = [
        node.func.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"eval", "exec"} & set(calls)
    assert len(text.splitlines()) <= 400, "a file over 400 lines wants to be two"


def asks_for_a_kind(node: ast.AST) -> bool:
    """Whether code decides by the name of a kind of task: compares with it, or looks something up under it."""
    if isinstance(node, ast.Compare):
        parts: list[ast.AST] = [node.left, *node.comparators]
    elif isinstance(node, ast.Dict):
        parts = [key for key in node.keys if key is not None]
    else:
        return isinstance(node, ast.MatchValue) and asks_for_a_kind(ast.Compare(node.value, [], []))
    parts += [element for part in parts for element in getattr(part, "elts", [])]
    return any(isinstance(part, ast.Constant) and part.value in KINDS for part in parts)


def test_what_follows_from_a_kind_is_asked_of_the_kind() -> None:
    """See heads/kinds: a class there says what follows."""
    found = {
        str(path.relative_to(PACKAGE)): sum(map(asks_for_a_kind, ast.walk(ast.parse(path.read_text("utf-8")))))
        for path in MODULES
    }
    assert {path: times for path, times in found.items() if times} == {"heads/sklearn.py": 1}  # scikit-learn's tag


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ('kind == "regression"', True),
        ('kind in ("regression", "other")', True),
        ('"classification" != kind', True),
        ('x = {"multilabel": 1}[kind]', True),
        ('match kind:\n    case "regression":\n        pass', True),
        ('kind == "exact"', False),
        ('kind_of("regression").main', False),
        ('kind: str = "classification"', False),
    ],
)
def test_asking_for_a_kind_would_be_seen(code: str, asks: bool) -> None:
    assert any(asks_for_a_kind(node) for node in ast.walk(ast.parse(code))) == asks


def test_a_class_has_its_name_alone() -> None:
    """One word, one thing, in all rooms. Only the schemas of files name what they check as that is named."""
    places: dict[str, list[str]] = {}
    for path in (path for path in MODULES if "schema" not in path.stem):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["extract", "--help"], ["train-head", "c.h5", "-o", "r", "--lr", "abc"], ["nonsense"]],
)
def test_help_and_usage_errors_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom embedcache.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_costs_no_torch() -> None:
    code = "import embedcache as ec, sys; ec.HeadSpec; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert run("-c", code).returncode == 0


@pytest.mark.parametrize("first", ["extract", "ExtractReport", "export"])
def test_a_public_name_stays_what_it_is(first: str) -> None:
    code = f"import embedcache as ec; ec.{first}; assert all(callable(getattr(ec, n)) for n in ('extract', '{first}'))"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_the_tables_show_what_was_measured() -> None:
    done = run("-m", "benchmarks.doc_tables.write", "--check")
    assert done.returncode == 0, done.stderr
