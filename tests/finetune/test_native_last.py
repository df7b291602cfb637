"""finetune by either engine: the same steps, runs that say who trained them, resume, and what native does not train."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedcache.encoder.tuned import FILE
from embedcache.errors import EmbedcacheError
from embedcache.finetune import engine_native
from embedcache.finetune.job import finetune
from embedcache.finetune.native_last import NativeLast
from embedcache.heads.engine import NativeUnavailableError
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from embedcache.runs.tables import read_leaderboard
from embedcache.runs.trainer import InterruptedTraining
from tests.conftest import fails
from tests.finetune.token_caches import make_token_cache

try:
    engine_native.library()
except NativeUnavailableError as missing:
    pytest.skip(str(missing), allow_module_level=True)

ENGINES = ("native", "torch")
# One batch an epoch, no dropout: neither the order of the rows nor random numbers differ.
SAME = {"batch_size": 4096, "layer_dropout": 0.0, "epochs": 4, "lr": 1e-3, "head_lr": 1e-2, "early_stop": 0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_bert) -> Path:
    return make_token_cache(tmp_path_factory.mktemp("native"), tiny_bert, layers=1, n=120)


@pytest.fixture(scope="module")
def probe(cache) -> Callable[[str], Path]:
    """A run of a linear probe of that label: a head to start from that has no dropout either."""

    @functools.cache
    def trained(label: str) -> Path:
        run = cache.parent / f"heads-{label}"
        task = {"score": "regression"} if label == "score" else "auto"
        train_head(cache, run, label=label, task=task, hidden=0, lr=1e-2, epochs=3, group="film", pooling="cls")
        return run

    return trained


def tune(cache: Path, run: Path, start: Path, **settings: Any) -> Any:
    return finetune(cache, run, from_run=start, **settings)


class TestBothEngines:
    """What holds for each."""

    @pytest.fixture(params=ENGINES)
    def engine(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_a_run_stores_the_last_layer_alone(self, engine, cache, probe, tmp_path) -> None:
        report = tune(cache, tmp_path / "run", probe("label"), engine=engine, **SAME)
        assert report.engine.split("-")[0] == engine and report.trained["layers"] == [2]
        tensors = load_file(tmp_path / "run" / FILE)
        assert {name.split(".")[2] for name in tensors} == {"1"}
        assert not any("key.bias" in name for name in tensors)
        assert report.best["test_accuracy"] is not None and report.best["epochs_run"] == 4

    @pytest.mark.slow
    def test_a_rate_too_high_diverges_and_spoils_no_other(self, engine, cache, probe, tmp_path) -> None:
        settings = SAME | {"lr": [1e-3, 1e30], "batch_size": 16}
        report = tune(cache, tmp_path / "run", probe("label"), engine=engine, **settings)
        board = read_leaderboard(load_run(tmp_path / "run"))
        assert [(row["lr"], row["status"]) for row in board] == [(1e-3, "ok"), (1e30, "diverged")]
        assert report.best["test_accuracy"] is not None


@pytest.mark.parametrize("label", [pytest.param("label", marks=pytest.mark.slow), "tags"])
def test_the_engines_take_the_same_steps(label: str, cache, probe, tmp_path) -> None:
    boards = []
    for engine in ENGINES:
        tune(cache, tmp_path / engine, probe(label), label=label, engine=engine, label_smoothing=0.1, **SAME)
        boards.append(load_file(tmp_path / engine / FILE) | load_file(tmp_path / engine / "best.safetensors"))
    native, torch = boards
    assert native.keys() == torch.keys()
    for name, array in torch.items():
        np.testing.assert_allclose(native[name], array, rtol=0, atol=2e-4, err_msg=name)  # the way travelled: 4e-3


def test_a_bank_is_what_each_is_alone_and_resumes(cache, probe, tmp_path, monkeypatch) -> None:
    settings = {"lr": [3e-4, 1e-3], "seed": [0, 1], "epochs": 2, "engine": "native", "batch_size": 16}
    tune(cache, tmp_path / "bank", probe("label"), threads=4, **settings)
    tune(cache, tmp_path / "alone", probe("label"), threads=1, **settings)
    whole = [(tmp_path / run / FILE).read_bytes() for run in ("bank", "alone")]
    assert whole[0] == whole[1]
    train, calls = NativeLast.train, []

    def interrupted(self: NativeLast, trials: Any, progress: Any) -> Any:
        calls.append(len(trials))
        states = train(self, trials, progress)
        if len(calls) == 2:
            states[-1].progress.status = "cancelled"
        return states

    monkeypatch.setattr(NativeLast, "train", interrupted)
    with pytest.raises(InterruptedTraining, match="--resume continues"):
        tune(cache, tmp_path / "again", probe("label"), threads=1, **settings)
    assert not (tmp_path / "again").exists()
    report = tune(cache, tmp_path / "again", probe("label"), threads=1, resume=True, **settings)
    assert calls == [1] * 5 and report.heads == 4  # the first was whole
    assert (tmp_path / "again" / FILE).read_bytes() == whole[0]


def test_what_native_does_not_train(cache, probe, tmp_path, monkeypatch) -> None:
    def refused(*arguments: object) -> str:
        return fails("finetune", cache, "-o", tmp_path / "r", "--engine", "native", *arguments)

    for way in (("--train", "lora:last"), ("--train", "last,adapter:last"), ("--pooling", "mean")):
        assert "for the first token alone" in refused(*way)
    with pytest.raises(EmbedcacheError, match="use auto, native or torch"):
        finetune(cache, tmp_path / "r", engine="nix")

    def missing() -> None:
        raise NativeUnavailableError("the native engine of last layers is not built")

    monkeypatch.setattr(engine_native, "library", missing)
    assert "is not built" in refused("--from", probe("label"))
    report = tune(cache, tmp_path / "run", probe("label"), **SAME | {"epochs": 1})
    assert report.engine == "torch-cpu"


@pytest.mark.slow
def test_regression_comes_back_in_its_own_unit(cache, probe, tmp_path) -> None:
    settings = SAME | {"epochs": 30, "batch_size": 16, "lr": 1e-4}
    found = {
        engine: tune(
            cache,
            tmp_path / engine,
            probe("score"),
            label="score",
            task={"score": "regression"},
            engine=engine,
            **settings,
        ).best["test_r2"]
        for engine in ENGINES
    }
    assert abs(found["native"] - found["torch"]) < 0.2, found
