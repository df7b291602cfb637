"""train_run: what the command does, with its JSON as a dataclass."""

from __future__ import annotations

from pathlib import Path

import pytest

import embedcache as ec
from tests.conftest import document

SAME = ("label", "kind", "heads", "kept", "engine", "pooling", "layer", "recipe", "split", "best", "notes")


def test_the_same_as_the_command(made: Path, tmp_path: Path) -> None:
    told: list[str] = []
    report = ec.train_run(made / "reviews.h5", tmp_path / "a", lr=[1e-3], hidden=[0], epochs=2, tell=told.append)
    options = ["--lr", "1e-3", "--hidden", "0", "--epochs", "2"]
    printed = document("train-head", made / "reviews.h5", "-o", tmp_path / "b", *options)
    said = report.to_dict()
    assert isinstance(report, ec.RunReport) and said.keys() == printed.keys()
    assert [Path(name).name for name in report.documents] == [Path(name).name for name in printed["documents"]] != []
    assert all(Path(name).is_file() for name in report.documents) and report.run == str(tmp_path / "a")
    assert {name: said[name] for name in SAME} == {name: printed[name] for name in SAME}


def test_a_run_without_its_documents(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: str) -> list[str]:
        raise OSError("no space\nleft")

    monkeypatch.setattr("embedcache.report.write_documents", fails)
    told: list[str] = []
    report = ec.train_run(made / "reviews.h5", tmp_path / "run", hidden=0, epochs=1, tell=told.append)
    assert report.documents == [] and ec.load_run(tmp_path / "run").classes == ["negative", "positive"]
    assert told[1:] == [f"{tmp_path / 'run'} is finished, but not its report and model card: no space left"]
