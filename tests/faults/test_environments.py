"""The command line in odd environments: locales, encodings, thread counts, ``python -OO``, clocks, no shared memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_reviews, write_csv
from tests.faults.conftest import ROOT, Command

TEXT = "égalité 映画 👩"
YEAR = 31_556_952  # seconds
PLAIN = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "C": {**PLAIN, "LC_ALL": "C"},
    "EUC-JP": {**PLAIN, "LC_ALL": "ja_JP.EUC-JP"},
    "output in EUC-JP": {"PYTHONIOENCODING": "euc_jp"},
    "5,000 threads": {"OMP_NUM_THREADS": "5000", "RAYON_NUM_THREADS": "5000", "OPENBLAS_NUM_THREADS": "5000"},
    "-OO": {"PYTHONOPTIMIZE": "2"},
    "1950": {"FAKE_SECONDS": str((1950 - 2026) * YEAR)},
    "1970": {"FAKE_SECONDS": str(-int(time.time()) + 3600)},
    "2106": {"FAKE_SECONDS": str((2106 - 2026) * YEAR)},
}


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that moves a process's clock."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler, or no Linux, to move a process's clock")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def japanese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of locales with ja_JP.EUC-JP."""
    folder = tmp_path_factory.mktemp("locales")
    made = ["localedef", "-f", "EUC-JP", "-i", "ja_JP", str(folder / "ja_JP.EUC-JP")]
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/ja_JP").exists():
        pytest.skip("no sources of locales here")
    subprocess.run(made, capture_output=True, check=False)  # it warns, and says so by its status
    return folder


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    chosen = dict(ENVIRONMENTS[request.param])
    if "FAKE_SECONDS" in chosen:
        chosen["LD_PRELOAD"] = str(request.getfixturevalue("clock"))
    if request.param == "EUC-JP":
        chosen["LOCPATH"] = str(request.getfixturevalue("japanese"))
    return chosen


def run(environment: dict[str, str], *arguments: Any) -> tuple[str, str]:
    """stdout and stderr of a command that must succeed, soon."""
    code, stdout, stderr = Command(*arguments, environment=environment, errors="replace").finish(120)
    assert code == 0, stderr
    assert "Traceback" not in stderr and "WARNING" not in stderr and "libgomp" not in stderr
    return stdout, stderr


@pytest.mark.parametrize("environment", ENVIRONMENTS, indirect=True)
def test_a_text_finds_its_way(made: Path, environment: dict[str, str]) -> None:
    stdout, stderr = run(environment, "predict", made / "run", TEXT, "--json")
    assert json.loads(stdout)[0]["text"] == TEXT
    assert stderr.count("is lowered to") == (3 if "RAYON_NUM_THREADS" in environment else 0)
    stdout, _ = run(
        environment,
        "search",
        made / "reviews.h5",
        "映画は素晴らしかった。また見たい。",
        "--where",
        "film=world",
        "-k",
        "2",
    )
    assert "world" in stdout or "positive" in stdout


@pytest.mark.parametrize("environment", ["C", "5,000 threads", "-OO"], indirect=True)
def test_everything_works(made: Path, tmp_path: Path, tiny_bert: Path, environment: dict[str, str]) -> None:
    _walk(made, tmp_path, tiny_bert, environment)


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS, indirect=True)
def test_everything_works_everywhere(made: Path, tmp_path: Path, tiny_bert: Path, environment: dict[str, str]) -> None:
    cache, new = _walk(made, tmp_path, tiny_bert, environment)
    run(environment, "train-head", cache, "-o", tmp_path / "new-run", "--hidden", "0,8")
    run(environment, "report", new, "-o", tmp_path / "report.html")
    run(environment, "predict", new, "--input", made / "reviews.csv", "-o", tmp_path / "out.csv")
    run(environment, "audit", cache, "-o", tmp_path / "audit.csv")
    run(environment, "doctor")
    for target in ("torch", "onnx", "sentence-transformers"):
        export = "export", new, "--to", target, "-o", tmp_path / target
        if target == "onnx" and int(environment.get("FAKE_SECONDS", 0)) + time.time() < 0:
            code, _, stderr = Command(*export, environment=environment).finish(120)
            assert code == 1 and "the clock of this machine is before 1970" in stderr and stderr.count("\n") == 1
        else:
            run(environment, *export)


def _walk(made: Path, folder: Path, encoder: Path, environment: dict[str, str]) -> tuple[Path, Path]:
    cache, index = folder / "new.h5", folder / "new.index"
    run(environment, "extract", made / "reviews.csv", "-o", cache, "--model", encoder, "--keep", "film")
    run(environment, "index", cache, "-o", index, "--kind", "ivfpq")
    run(environment, "search", cache, TEXT, "--index", index, "-k", "3")
    return cache, made / "run"


def test_a_package_keeps_its_docstrings(tmp_path: Path) -> None:
    """One that reads them, as transformers does; ours go, as was asked for."""
    (tmp_path / "onnxscript.py").write_text('"""Needed."""')
    code = (
        "from embedcache.common import docstrings as ours; ours.keep_docstrings(); import onnxscript; "
        "raise SystemExit(not onnxscript.__doc__ or bool(ours.__doc__))"
    )
    subprocess.run(
        [sys.executable, "-OO", "-c", code], check=True, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    )


@pytest.mark.slow
def test_transformers_is_imported_without_docstrings() -> None:
    code = (
        "from embedcache.encoder import load_with_transformers as loading; from transformers import BertModel; "
        "raise SystemExit(not BertModel.__doc__ or bool(loading.__doc__))"
    )
    subprocess.run([sys.executable, "-OO", "-c", code], check=True)


@pytest.mark.parametrize("year", [2300, 9999])
def test_a_clock_beyond_pythons_time(made: Path, clock: Path, year: int) -> None:
    environment = {"LD_PRELOAD": str(clock), "FAKE_SECONDS": str((year - 2026) * YEAR)}
    code, stdout, stderr = Command("predict", made / "run", "dull", environment=environment).finish()
    assert (code, stdout) == (1, "")
    assert stderr.strip() == (
        "Error: this machine's clock is beyond the year 2262, where Python's time ends: set the clock"
    )


def test_an_argument_that_is_no_text(made: Path) -> None:
    code, stdout, stderr = Command("predict", made / "run", os.fsdecode(b"caf\xe9")).finish()
    assert (code, stdout) == (2, "")
    assert stderr.splitlines()[-1].startswith(r"Error: 'caf\xe9' is not UTF-8: write the argument in UTF-8")


def test_paths_keep_their_bytes(made: Path, tmp_path: Path) -> None:
    """Under LC_ALL=C a path is bytes that Python cannot decode, but must find."""
    shutil.copy(made / "reviews.h5", tmp_path / "映画.h5")
    stdout, _ = run(ENVIRONMENTS["C"], "search", tmp_path / "映画.h5", "映画", "-k", "1", "--json")
    assert json.loads(stdout)["query"] == "映画"


@pytest.mark.parametrize("rows", [40, 300])
def test_faiss_says_nothing(tmp_path: Path, tiny_bert: Path, rows: int) -> None:
    table = write_csv(tmp_path / "small.csv", make_reviews(rows))
    run({}, "extract", table, "-o", tmp_path / "c.h5", "--model", tiny_bert)
    stdout, stderr = run({}, "index", tmp_path / "c.h5", "--kind", "ivfpq")
    assert "clustering" not in stdout + stderr


def test_joblib_says_nothing_without_shared_memory(made: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no right to a mount namespace")
    line = f"mount -t tmpfs -o ro none /dev/shm && {sys.executable} -m embedcache audit {made / 'reviews.h5'}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", line], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "joblib" not in done.stderr and "Warning" not in done.stderr
