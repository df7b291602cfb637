"""finetune's job: a run that opens wherever a run opens, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from embedcache.cache import open_cache
from embedcache.encoder import Encoder, identify
from embedcache.encoder.tuned import FILE
from embedcache.errors import EmbedcacheError
from embedcache.finetune import trainer
from embedcache.finetune.inputs import States
from embedcache.finetune.job import finetune
from embedcache.finetune.outcome import gained_nothing
from embedcache.prediction.classifier import Classifier
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from embedcache.runs.tables import read_leaderboard
from tests.conftest import document, fails
from tests.finetune.token_caches import make_token_cache, write_states

FAST = {"epochs": 2, "lr": 1e-3, "group": "film", "early_stop": 0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_bert) -> Path:
    return make_token_cache(tmp_path_factory.mktemp("tuned"), tiny_bert, n=160)


@pytest.fixture(scope="module")
def heads(cache) -> Path:
    train_head(cache, cache.parent / "heads", hidden=0, lr=1e-2, epochs=3, group="film", pooling="cls")
    return cache.parent / "heads"


@pytest.fixture(scope="module")
def report(cache, heads):
    ways = ["last", "top:2"]
    return finetune(cache, cache.parent / "run", train=ways, from_run=heads, epochs=2, lr=1e-3, engine="torch")


def texts_of(cache: Path) -> list[str]:
    with open_cache(cache) as opened:
        return [str(text) for text in opened.texts]


def predicted_as_judged(run: Path, cache: Path, tolerance: float) -> None:
    """The run labels texts as its training judged the test rows."""
    stored = pq.read_table(run / "predictions.parquet")
    side = np.array(stored["side"].to_pylist())
    rows = np.flatnonzero(side == "test")
    texts = texts_of(cache)
    found = Classifier.load(run).predict_proba([texts[row] for row in rows])
    judged = np.stack([np.array(stored[f"p:{name}"].to_pylist(), float)[rows] for name in load_run(run).classes], 1)
    assert np.abs(found - judged).max() < tolerance


def test_the_report_says_what_was_trained(report) -> None:
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["trained"] == report.trained
    assert report.heads == 2 and report.engine == "torch-cpu" and report.start["name"] == "head-000"
    assert report.trained["layers"] == ([2] if report.trained["train"] == "last" else [1, 2])
    assert report.states["bytes"] > 0 and report.split["rule"] == "run"
    assert report.best["test_accuracy"] is not None and "vectors_logreg" in report.baselines


def test_a_run_whose_layers_were_trained_for_nothing_says_so(report, cache, heads, tmp_path) -> None:
    worse = finetune(cache, tmp_path / "run", train="last", from_run=heads, lr=1.0, head_lr=1.0, epochs=1)
    assert worse.best["val_loss"] > worse.start["val_loss"]
    for one in (report, worse):
        said = any("they were trained for nothing" in note for note in load_run(one.run).info["notes"])
        assert said == (one.best["val_loss"] >= one.start["val_loss"]) == any("for nothing" in n for n in one.notes)
    scores = ({"val_accuracy": 0.8}, {"val_accuracy": 0.9})
    assert gained_nothing(*scores, "accuracy") == [] != gained_nothing(*scores[::-1], "accuracy")
    assert gained_nothing(scores[0], {"val_accuracy": None}, "accuracy") == []


def test_a_run_stores_what_was_trained_alone(report, cache) -> None:
    run = load_run(report.run)
    tensors = load_file(run.path / FILE)
    assert {name.split(".")[2] for name in tensors} == {str(layer - 1) for layer in report.trained["layers"]}
    assert run.info["encoder"]["source"] == str(run.path.resolve()) and "tuned" in run.info["encoder"]["identity"]
    board = read_leaderboard(run)
    assert {row["train"] for row in board} == {"last", "top:2"} and {row["batch_size"] for row in board} == {32}
    assert not list(run.path.parent.glob(".run.tuning*"))
    predicted_as_judged(run.path, cache, 2e-3)  # float16 states


def test_its_encoder_has_an_identity_of_its_own(report, cache, tiny_bert, tmp_path) -> None:
    tuned, source = identify(report.run, dtype="float32", max_length=64)
    base, _ = identify(tiny_bert, dtype="float32", max_length=64)
    assert source == str(Path(report.run).resolve())
    assert {key: tuned[key] for key in base} == base and set(tuned) == {*base, "tuned"}
    texts = texts_of(cache)[:5]
    by_kernel = {
        kernel: Encoder.load(report.run, dtype="float32", max_length=64, kernel=kernel).encode_texts(
            texts, [("cls", -1)]
        )[0]
        for kernel in (None, "plain")
    }
    native = Encoder.load(report.run, dtype="float32", max_length=64).kernel
    assert native == "native"
    np.testing.assert_allclose(by_kernel[None], by_kernel["plain"], atol=2e-5)
    frozen = Encoder.load(tiny_bert, dtype="float32", max_length=64).encode_texts(texts, [("cls", -1)])[0]
    assert np.abs(frozen - by_kernel[None]).max() > 1e-2


def test_a_run_that_moved_and_a_base_that_changed(report, tiny_bert, tmp_path) -> None:
    moved = Path(shutil.copytree(report.run, tmp_path / "moved"))
    expected = Classifier.load(report.run).predict_proba(["a great film"])
    assert np.array_equal(Classifier.load(moved).predict_proba(["a great film"]), expected)
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    assert np.array_equal(Classifier.load(moved, model=base).predict_proba(["a great film"]), expected)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(EmbedcacheError, match="is not the one that was tuned: its config changed"):
        Classifier.load(moved, model=base)
    (moved / FILE).write_bytes(b"no tensors")
    with pytest.raises(EmbedcacheError, match=f"{FILE} is damaged"):
        load_run(moved)


def test_a_cache_of_the_frozen_encoder_is_refused(report, cache) -> None:
    assert "is a tuned run, which reads the vectors of its own encoder" in fails(
        "predict", report.run, cache, "-o", "x.csv"
    )


def test_bad_input(cache, heads, report, tmp_path) -> None:
    def refused(*arguments: object) -> str:
        return fails("finetune", cache, "-o", tmp_path / "r", *arguments)

    assert "has 2 layers" in refused("--train", "top:3")
    assert "no label column 'nix'" in refused("--label", "nix")
    assert "use auto or torch" in refused("--engine", "native", "--train", "lora:top:2")
    assert "its rows were split otherwise" in refused("--from", heads, "--split", "7")
    assert "it is a tuned run itself" in refused("--from", report.run)
    assert "finetune trains layers for one column" in refused("--label", "label,tags")
    assert "has no max vectors of the last layer, only cls, mean" in refused("--pooling", "max")
    assert not (tmp_path / "r").exists()


def test_states_of_too_few_layers_or_none(cache, tiny_bert, tmp_path) -> None:
    document("extract", cache.parent / "reviews.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert)
    assert "run extract" in fails("finetune", tmp_path / "c.h5", "-o", tmp_path / "r")
    write_states(tmp_path / "c.h5", tiny_bert, 1)
    message = fails("finetune", tmp_path / "c.h5", "-o", tmp_path / "r", "--train", "top:2")
    assert "has states of the last 1 layers: run extract --tokens 2" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "task", "score"),
    [("tags", "auto", "test_accuracy"), ("score", {"score": "regression"}, "test_r2")],
)
def test_lists_of_labels_and_numbers(cache, tmp_path, label, task, score) -> None:
    report = finetune(cache, tmp_path / "run", label=label, task=task, **FAST)
    assert report.best[score] is not None
    run = load_run(report.run)
    texts = texts_of(cache)[:20]
    found = Classifier.load(run.path).predict(texts)
    assert len(found) == 20
    if label == "score":
        stored = pq.read_table(run.path / "predictions.parquet").to_pylist()
        rows = [row for row in stored if row["side"] == "test"]
        texts = texts_of(cache)
        values = Classifier.load(run.path).predict([texts[row["row"]] for row in rows])
        expected = np.array([row["predicted"] for row in rows])
        np.testing.assert_allclose([one.label for one in values], expected, rtol=1e-2, atol=1e-2 * expected.std())


@pytest.mark.slow
def test_folds_train_the_best_again_on_all(cache, tmp_path) -> None:
    report = finetune(cache, tmp_path / "run", folds=2, seed=[0, 1], **FAST)
    run = load_run(report.run)
    assert len(run.info["heads"]) == 4 and len(report.split["folds"]) == 2
    predicted_as_judged(run.path, cache, 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["lora:last", "lora", "adapter:top:2", "adapter", "full"])
def test_other_ways(cache, tmp_path, way) -> None:
    how = {"rank": 2, "targets": ["query", "value"], "accumulate": 2, "gradient_checkpointing": True, **FAST}
    report = finetune(cache, tmp_path / "run", train=way, **how)
    with safe_open(Path(report.run) / FILE, "numpy") as file:
        names = list(file.keys())
    kinds = {"lora": "lora_", "adapter": "adapter", "full": "word_embeddings"}
    assert any(kinds[way.split(":")[0]] in name for name in names)
    predicted_as_judged(Path(report.run), cache, 2e-3 if ":" in way else 1e-5)


@pytest.mark.slow
def test_layers_between_the_stored_states_and_the_trained_ones_run_once(cache, tiny_bert, tmp_path) -> None:
    """From states of two layers, the last one learns what it learns from states of one, but for their rounding."""
    copy = tmp_path / "c.h5"
    shutil.copy(cache, copy)
    write_states(copy, tiny_bert, 1)
    losses = [
        load_run(finetune(one, tmp_path / name, pooling="mean", layer_dropout=0.0, **FAST).run).best.history[
            "train_loss"
        ]
        for one, name in ((cache, "two"), (copy, "one"))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_configurations_share_batches_and_learn_what_each_learns_alone(cache, heads, tmp_path, monkeypatch) -> None:
    """To the bit, whatever their ends."""
    read: list[int] = []

    def counted(self: States, rows: np.ndarray) -> Any:
        read.append(len(rows))
        return batch(self, rows)

    batch = States.batch
    monkeypatch.setattr(States, "batch", counted)
    sweep = {
        "from_run": heads,
        "train": "top:2",
        "lr": [1e-3, 3e-2],
        "epochs": [1, 2],
        "early_stop": 1,
        "batch_size": 64,
    }
    found, reads = [], []
    for beside in (4, 1):
        monkeypatch.setattr(trainer, "BESIDE", beside)
        run = load_run(finetune(cache, tmp_path / str(beside), engine="torch", **sweep).run)
        found.append((load_file(run.path / FILE), load_file(run.path / "heads.safetensors"),
                      (run.path / "history.csv").read_text()))  # fmt: skip
        reads.append(sum(read))
        read.clear()
    for mine, theirs in zip(*(one[:2] for one in found), strict=True):
        assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert found[0][2] == found[1][2] and len(set(found[0][2].splitlines())) > 4
    assert reads[0] < 0.6 * reads[1]


KILLED = """
import os, signal, sys
import embedcache.finetune.loop as loop
from embedcache.finetune.job import finetune
loop.SAVE_SECONDS = 0.0
cache, run, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
def progress(done, total, rows):
    if done >= at:
        os.kill(os.getpid(), signal.SIGKILL)
finetune(cache, run, train=["last", "top:2"], epochs=3, lr=1e-3, group="film", engine="torch", progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100, 700])
def test_a_killed_finetune_continues_to_the_same_bits(cache, tmp_path, rows) -> None:
    settings = {"train": ["last", "top:2"], "epochs": 3, "lr": 1e-3, "group": "film", "engine": "torch"}
    whole = load_run(finetune(cache, tmp_path / "whole", **settings).run)
    command = [sys.executable, "-c", KILLED, str(cache), str(tmp_path / "run"), str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert list((tmp_path / ".run.tuning").iterdir()) and not (tmp_path / "run").exists()
    report = finetune(cache, tmp_path / "run", resume=True, **settings)
    assert report.kept == (1 if rows == 700 else 0)
    found = load_run(report.run)
    for name, array in whole.best.weights.items():
        assert np.array_equal(array, found.best.weights[name])
    mine, theirs = load_file(found.path / FILE), load_file(whole.path / FILE)
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert (found.path / "history.csv").read_text() == (whole.path / "history.csv").read_text()
    assert not (tmp_path / ".run.tuning").exists()


@pytest.mark.slow
@pytest.mark.parametrize("torn", [True, False])
def test_an_interrupt_within_a_step_leaves_whole_checkpoints(cache, heads, tmp_path, monkeypatch, torn) -> None:
    """Ctrl-C may come between the weights' step and its being counted; of two side by side one is a step ahead then."""
    import torch

    settings = {"from_run": heads, "train": "top:2", "lr": [1e-3, 1e-2], "epochs": 2, "engine": "torch"}
    whole = load_run(finetune(cache, tmp_path / "whole", **settings).run)
    calls = 0

    def stops(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7 and not torn:
            raise KeyboardInterrupt
        step(self, *arguments)
        if calls == 7:
            raise KeyboardInterrupt

    step = torch.optim.AdamW.step
    with monkeypatch.context() as patch:
        patch.setattr("embedcache.finetune.loop.SAVE_SECONDS", 0.0)
        patch.setattr(torch.optim.AdamW, "step", stops)
        with pytest.raises(KeyboardInterrupt, match="with --resume continues"):
            finetune(cache, tmp_path / "run", **settings)
    assert len(list((tmp_path / ".run.tuning").iterdir())) == 2
    found = load_run(finetune(cache, tmp_path / "run", resume=True, **settings).run)
    mine, theirs = (load_file(run.path / "heads.safetensors") | load_file(run.path / FILE) for run in (found, whole))
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert (found.path / "history.csv").read_text() == (whole.path / "history.csv").read_text()


@pytest.mark.slow
def test_the_cards_code_gives_what_the_run_gives(cache, tiny_bert, tmp_path, monkeypatch, capsys) -> None:
    """The card's lines, in the run's folder, with the base where the reader has it."""
    from embedcache.report import write_documents

    heads = train_head(cache, tmp_path / "heads", hidden=0, lr=1e-2, epochs=2, group="film", pooling="mean")
    report = finetune(cache, tmp_path / "run", from_run=heads.run, epochs=1, lr=1e-3)
    write_documents(report.run)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "numbers of its layers 2 to 2 (last), which are in `tuned.safetensors`" in card and "frozen" not in card
    code = card.split("```python\n")[2].split("```")[0]
    monkeypatch.chdir(report.run)
    names: dict[str, object] = {}
    exec(code.replace(f'encoder = "{tiny_bert.name}"', f"encoder = {str(tiny_bert)!r}"), names)
    expected = Classifier.load(report.run).predict_proba(names["texts"])
    np.testing.assert_allclose(names["probabilities"].numpy(), expected, atol=1e-5)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_serve_searches_by_the_caches_encoder_and_predicts_by_the_tuned_one(report, cache) -> None:
    import asyncio

    from embedcache.search import Query
    from embedcache.serve.service import Search, Service

    texts = texts_of(cache)[:2]
    service = Service.open(cache, report.run)
    try:
        (found,) = asyncio.run(service.predict(texts)).values()
        expected = Classifier.load(report.run).predict(texts)
        assert [one.label for one in found] == [one.label for one in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
    finally:
        service.close()
    service = Service.open(cache, report.run)
    try:
        answer = asyncio.run(service.search(Search(Query((texts[0],)), 1)))
        assert answer.results[0].text == texts[0] and answer.results[0].score > 0.999
    finally:
        service.close()


def test_too_little_memory_is_refused_before_the_training(cache, heads, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("embedcache.common.machine.memory_free", lambda: 1e5)
    with pytest.raises(EmbedcacheError, match=r"--train last with --batch-size 32 may need about .* 100 kB are free"):
        finetune(cache, tmp_path / "run", from_run=heads)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_bfloat16_products_learn_what_float32_learns(cache, heads, tmp_path) -> None:
    settings = {"from_run": heads, "epochs": 2, "lr": 1e-3, "layer_dropout": 0.0}
    losses = []
    for compute in ("float32", "bfloat16"):
        report = finetune(cache, tmp_path / compute, compute=compute, **settings)
        losses.append(load_run(report.run).best.history["train_loss"])
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)
