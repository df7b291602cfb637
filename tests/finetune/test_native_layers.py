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
from embedcache.finetune import engine_native, native_layers
from embedcache.finetune.job import finetune
from embedcache.finetune.native_layers import NativeLayers
from embedcache.heads.engine import NativeUnavailableError
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from embedcache.runs.tables import read_leaderboard
from embedcache.runs.trainer import InterruptedTraining
from tests.conftest import fails
from tests.encoder.sentence_folders import NORMALIZE, make_folder
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
    """Its model's own vector is the mean of unit length."""
    folder = tmp_path_factory.mktemp("native")
    model = make_folder(tiny_bert, folder / "model", {"pooling_mode_mean_tokens": True}, NORMALIZE)
    return make_token_cache(folder, model, layers=2, n=120, pooling="cls,mean,model")


@pytest.fixture(scope="module")
def last_states(tmp_path_factory, tiny_bert) -> Path:
    """The same rows with the states of one layer: lifted from two they would have other bits on other threads."""
    return make_token_cache(tmp_path_factory.mktemp("last"), tiny_bert, layers=1, n=120)


@pytest.fixture(scope="module")
def probe(cache) -> Callable[..., Path]:
    """A run of a linear probe of that label: a head to start from that has no dropout either."""

    @functools.cache
    def trained(label: str, pooling: str = "cls") -> Path:
        run = cache.parent / f"heads-{label}-{pooling}"
        task = {"score": "regression"} if label == "score" else "auto"
        train_head(cache, run, label=label, task=task, hidden=0, lr=1e-2, epochs=3, group="film", pooling=pooling)
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


@pytest.mark.parametrize(
    ("label", "way", "pooling"),
    [
        pytest.param("label", "last", "cls", marks=pytest.mark.slow),
        ("tags", "last", "cls"),
        ("tags", "top:2", "cls"),
        pytest.param("label", "last", "mean", marks=pytest.mark.slow),
        ("label", "top:2", "model"),
    ],
)
def test_the_engines_take_the_same_steps(label: str, way: str, pooling: str, cache, probe, tmp_path) -> None:
    boards = []
    for engine in ENGINES:
        report = tune(
            *(cache, tmp_path / engine, probe(label, pooling)),
            **{"label": label, "engine": engine, "train": way, "label_smoothing": 0.1} | SAME,
        )
        assert report.engine.startswith(engine) and report.pooling == pooling
        boards.append(load_file(tmp_path / engine / FILE) | load_file(tmp_path / engine / "best.safetensors"))
    native, torch = boards
    # In whole layers torch's AdamW makes steps of what rounding leaves of the key bias's gradient, which is 0.
    assert native.keys() == {name for name in torch if not name.endswith("key.bias")}
    for name in native:
        array = torch[name]
        np.testing.assert_allclose(native[name], array, rtol=0, atol=2e-4, err_msg=name)  # the way travelled: 4e-3


@pytest.mark.parametrize("way", ["last", "top:2"])
def test_a_bank_is_what_each_is_alone_and_resumes(way: str, cache, last_states, probe, tmp_path, monkeypatch) -> None:
    cache = last_states if way == "last" else cache
    settings = {"lr": [3e-4, 1e-3], "seed": [0, 1], "epochs": 2, "engine": "native", "batch_size": 16, "train": way}
    tune(cache, tmp_path / "bank", probe("label"), threads=4, **settings)
    tune(cache, tmp_path / "alone", probe("label"), threads=1, **settings)
    whole = [(tmp_path / run / FILE).read_bytes() for run in ("bank", "alone")]
    assert whole[0] == whole[1]
    train, calls = NativeLayers.train, []

    def interrupted(self: NativeLayers, trials: Any, progress: Any) -> Any:
        calls.append(len(trials))
        states = train(self, trials, progress)
        if len(calls) == 2:
            states[-1].progress.status = "cancelled"
        return states

    monkeypatch.setattr(NativeLayers, "train", interrupted)
    with pytest.raises(InterruptedTraining, match="--resume continues"):
        tune(cache, tmp_path / "again", probe("label"), threads=1, **settings)
    assert not (tmp_path / "again").exists()
    report = tune(cache, tmp_path / "again", probe("label"), threads=1, resume=True, **settings)
    assert calls == [1] * 5 and report.heads == 4  # the first was whole
    assert (tmp_path / "again" / FILE).read_bytes() == whole[0]


def test_what_native_does_not_train(cache, probe, tmp_path, monkeypatch) -> None:
    def refused(*arguments: object) -> str:
        return fails("finetune", cache, "-o", tmp_path / "r", "--engine", "native", *arguments)

    for way in (("--train", "lora:last"), ("--train", "last,adapter:last"), ("--train", "full")):
        assert "the last layers themselves" in refused(*way)
    assert "without --accumulate" in refused("--train", "top:2", "--accumulate", "2")
    with pytest.raises(EmbedcacheError, match="use auto, native or torch"):
        finetune(cache, tmp_path / "r", engine="nix")

    def missing() -> None:
        raise NativeUnavailableError("the native engine of last layers is not built")

    monkeypatch.setattr(engine_native, "library", missing)
    assert "is not built" in refused("--from", probe("label"))
    report = tune(cache, tmp_path / "run", probe("label"), **SAME | {"epochs": 1})
    assert report.engine == "torch-cpu"


def test_trainings_share_a_call_as_there_is_memory_for(cache, probe, tmp_path, monkeypatch) -> None:
    train, calls = NativeLayers.train, []

    def counted(self: NativeLayers, trials: Any, progress: Any) -> Any:
        calls.append([(one.config.way.text, one.config.spec.lr) for one in trials])
        return train(self, trials, progress)

    monkeypatch.setattr(NativeLayers, "train", counted)
    settings = {"train": ["top:2", "last"], "lr": [1e-4, 1e-3], "epochs": 1, "threads": 4, "engine": "native"}
    tune(cache, tmp_path / "run", probe("label"), **settings)
    assert calls == [[("top:2", 1e-4), ("top:2", 1e-3)], [("last", 1e-4), ("last", 1e-3)]]
    calls.clear()
    monkeypatch.setattr(native_layers, "memory_free", lambda: 1000.0)
    tune(cache, tmp_path / "run", probe("label"), **settings)
    assert [len(one) for one in calls] == [1, 1, 1, 1]


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
