"""What works without the packages of the extras, and what the rest says then."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import embedcache as ec
from embedcache.common.packages import EXTRAS, missing
from tests.conftest import write_csv

LEFT_OUT = [*EXTRAS, "fastapi", "pandas"]
ANOTHER_NAME = {"scikit-learn": "sklearn", "opentsne": "openTSNE", "prometheus-client": "prometheus_client"}


WITHOUT = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in {LEFT_OUT} else find(name, *more)

from embedcache.__main__ import run

run()
"""


def run_without(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process that does not find what the base installation does not bring."""
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def cache(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light")
    table = folder / "films.csv"
    write_csv(table, [(f"a {'great' if i % 2 else 'dull'} film {i}", "good" if i % 2 else "bad") for i in range(60)])
    ec.extract([table], folder / "films.h5", model=str(tiny_bert), device="cpu")
    return folder / "films.h5"


@pytest.fixture(scope="module")
def run(cache: Path) -> Path:
    ec.train_run(cache, cache.with_name("run"), hidden=[0], epochs=2)
    return cache.with_name("run")


def test_an_extra_brings_what_it_is_said_to_bring() -> None:
    lines = [line.replace(" ", "") for line in requires("embedcache") or []]
    for module, extra in EXTRAS.items():
        if module == "threadpoolctl":  # comes with scikit-learn
            continue
        package = next((name for name, other in ANOTHER_NAME.items() if other == module), module).lower()
        assert any(
            line.lower().startswith(package) and line.replace("'", '"').endswith(f'extra=="{extra}"') for line in lines
        ), (module, extra)


def test_texts_are_labelled_and_caches_read_without_any_extra(run: Path, cache: Path) -> None:
    for arguments, shown in (
        (("predict", run, "a great film"), "a great film"),
        (("info", cache), "fingerprint"),
        (("verify", cache), "no damage"),
        (("search", cache, "a great film", "-k", "2"), "rank"),
        (("search", cache, "--row", "1", "-k", "2"), "rank"),
    ):
        result = run_without(*arguments)
        assert (result.returncode, shown in result.stdout) == (0, True), (arguments, result)


def test_a_command_that_needs_more_says_what_to_install(
    run: Path, cache: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text,label\na film,good\n")
    for arguments, extra in (
        (("extract", table, "-o", tmp_path / "new.h5", "--model", tiny_bert), "tables"),
        (("predict", run, "--input", table, "-o", tmp_path / "out.csv"), "tables"),
        (("train-head", cache, "-o", tmp_path / "run"), "heads"),
        (("finetune", cache, "-o", tmp_path / "tuned"), "torch"),
        (("report", run), "heads"),
    ):
        result = run_without(*arguments)
        assert (result.returncode, result.stdout) == (1, ""), (arguments, result)
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
        assert f"pip install 'embedcache[{extra}]'" in result.stderr, result.stderr


def test_another_missing_module_is_a_fault() -> None:
    assert missing(ModuleNotFoundError("No module named 'nothing'", name="nothing")) is None
    assert missing(ImportError("pyarrow")) is None
    package, advice = missing(ModuleNotFoundError("", name="scipy.stats")) or ("", "")
    assert package == "scipy" and "embedcache[heads]" in advice
