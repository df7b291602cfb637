"""embedcache.toml: defaults that the command line beats, and one line for every slip in the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from embedcache.cli import main
from tests.audit.rows import make_rows
from tests.conftest import make_cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a cache of 60 rows in it."""
    texts, x, labels = make_rows(60)
    make_cache(tmp_path / "c.h5", texts, x, {"label": labels, "other": labels[::-1]})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMBEDCACHE_CONFIG", raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def audited(*arguments: str) -> dict:
    result = run(*arguments, "audit", "c.h5", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refuses(folder: Path, toml: str, *words: str, named: bool = False) -> None:
    """Whatever command runs."""
    path = folder / ("named.toml" if named else "embedcache.toml")
    path.write_text(toml, encoding="utf-8")
    result = run(*(["--config", str(path)] if named else []), "info", "c.h5")
    assert result.exit_code == 2 and result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ") and path.name in line, line
    for word in words:
        assert word in line


def test_defaults_of_this_folder(folder: Path) -> None:
    assert audited()["label"] == "label"
    (folder / "embedcache.toml").write_text('[audit]\nlabel = "other"\nseed = [3, 4]\nfolds = 4\nnear = 0.95\n')
    found = audited()
    assert (found["label"], found["seeds"], found["folds"], found["near"]) == ("other", [3, 4], 4, 0.95)


def test_the_command_line_comes_first_then_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "embedcache.toml").write_text("[audit]\nfolds = 4\n")
    monkeypatch.setenv("EMBEDCACHE_AUDIT_FOLDS", "3")
    assert audited()["folds"] == 3
    result = run("audit", "c.h5", "--json", "--folds", "2")
    assert json.loads(result.stdout)["folds"] == 2


def test_a_named_file_takes_the_place_of_this_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "embedcache.toml").write_text("[audit]\nfolds = 4\n")
    (folder / "mine.toml").write_text("[audit]\ntop = 2\n")
    assert (audited()["folds"], audited("--config", "mine.toml")["folds"]) == (4, 5)
    monkeypatch.setenv("EMBEDCACHE_CONFIG", str(folder / "mine.toml"))
    assert audited()["folds"] == 5


def test_values_as_the_command_line_has_them(folder: Path) -> None:
    (folder / "embedcache.toml").write_text(
        '[train-head]\nlr = [1e-3, 0.01]\nhidden = 0\nstandardize = false\nepochs = 2\nseed = "0,1"\nval = 0.2\n'
    )
    result = run("train-head", "c.h5", "-o", "run", "--label", "label", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["heads"] == 4
    settings = json.loads((folder / "run" / "run.json").read_text("utf-8"))["settings"]
    assert (settings["lr"], settings["standardize"], settings["epochs"]) == ([0.001, 0.01], False, 2)


def test_several_values_of_an_option_that_may_be_repeated(folder: Path) -> None:
    (folder / "embedcache.toml").write_text('[search]\nwhere = ["label=good", "other=bad"]\nk = 3\n')
    result = run("search", "c.h5", "--row", "0", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["results"]
    assert len(found) == 3 and all(one["labels"] == {"label": "good", "other": "bad"} for one in found)


def test_the_help_shows_what_holds(folder: Path) -> None:
    plain = run("audit", "--help").stdout
    assert "[default: label, or the only one]" in " ".join(plain.split())
    (folder / "embedcache.toml").write_text(
        '[audit]\nlabel = "other"\n[train-head]\nlr = [1e-4, 1e-3]\nstandardize = false\n'
    )
    shown = " ".join(run("audit", "--help").stdout.split())
    assert "The label column. [default: other]" in shown and "or the only one" not in shown
    shown = " ".join(run("train-head", "--help").stdout.split())
    assert "[default: 0.0001,0.001]" in shown and "[default: no-standardize]" in shown
    (folder / "embedcache.toml").unlink()
    assert run("audit", "--help").stdout == plain


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[audti]\nfolds = 3", ["[audti]", "unknown table", "[audit]"]),
        ("folds = 3", ["folds", "unknown table"]),
        ("[audit]\nfold = 3", ["[audit] fold:", "no such option", "folds"]),
        ("[audit]\ncache = 'c.h5'", ["[audit] cache:", "no such option"]),
        ("[audit]\nfolds = 'many'", ["[audit] folds:", "'many' is not an integer"]),
        ("[audit]\nfolds = 2.5", ["[audit] folds:", "'2.5'"]),
        ("[audit]\nfolds = true", ["[audit] folds:", "a text, a number or a list"]),
        ("[audit]\nfolds = []", ["[audit] folds:", "a text, a number or a list"]),
        ("[audit]\nfolds = {a = 1}", ["[audit] folds:", "a text, a number or a list"]),
        ("[audit]\nseed = [0, 0]", ["[audit] seed:", "given twice"]),
        ("[audit]\npooling = 'median'", ["[audit] pooling:", "median"]),
        ("[audit]\njson = 1", ["[audit] json = 1", "true or false"]),
        ("[extract]\nmax-length = 0", ["[extract] max-length:"]),
        ("[audit\nfolds = 3", ["not TOML", "line 1"]),
        ("[extract]\ntrust-remote-code = true", ["trust-remote-code", "cannot be set in a file"]),
        ("[predict]\ntrust_remote_code = false", ["trust_remote_code", "cannot be set in a file"]),
        ("[serve]\ntoken = 'x'", ["token", "EMBEDCACHE_TOKEN"]),
        ("[serve]\nhost = '0.0.0.0'", ["host", "cannot be set in a file", "--config"]),
        ("[extract]\nray = '10.0.0.1:6379'", ["ray", "cannot be set in a file", "--config"]),
    ],
)
def test_slips(folder: Path, toml: str, words: list[str]) -> None:
    refuses(folder, toml, *words)


def test_a_named_file_may_name_a_cluster_but_never_trust(folder: Path) -> None:
    refuses(folder, "[extract]\ntrust-remote-code = true", "cannot be set in a file", named=True)
    (folder / "named.toml").write_text("[extract]\nray = 'local'\n")
    assert run("--config", "named.toml", "info", "c.h5").exit_code == 0


def test_files_that_cannot_be_read(folder: Path) -> None:
    for name in ("none.toml", "."):
        result = run("--config", name, "info", "c.h5")
        assert result.exit_code == 2 and f"cannot read {name}" in result.stderr
    (folder / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert "not TOML" in run("--config", "bytes.toml", "info", "c.h5").stderr
    result = run("--config", "none.toml", "--version")
    assert result.exit_code == 0


def test_the_help_of_all_is_there_with_a_broken_file(folder: Path) -> None:
    (folder / "embedcache.toml").write_text("[[[")
    assert run("--help").exit_code == 0


def test_a_config_costs_no_heavy_package(folder: Path) -> None:
    (folder / "embedcache.toml").write_text("[audit]\nfolds = 3\n")
    code = "import sys\nfrom embedcache.cli import main\ntry: main(['audit', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'numpy', 'torch', 'h5py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
