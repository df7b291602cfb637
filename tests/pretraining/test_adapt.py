"""adapt: what is held out, which words are masked, the perplexity by its definition, resumed training, the folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.pretraining import training
from embedcache.pretraining.batches import LengthBatches, WholeWords, make_rows
from embedcache.pretraining.corpus import read_corpus
from tests.conftest import document, fails, invoke, make_reviews, write_csv
from tests.prompting.conftest import save_bert

QUICK: dict[str, Any] = {"lr": 2e-3, "epochs": 2, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base") / "tiny", "BertForMaskedLM")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [*make_reviews(160), ("", "x"), ("  ", "x"), make_reviews(1)[0]]
    return write_csv(tmp_path_factory.mktemp("texts") / "reviews.csv", rows)


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_a_text_stays_held_out(tmp_path: Path) -> None:
    reviews = make_reviews(400)
    some = read_corpus([write_csv(tmp_path / "some.csv", reviews[:300])], "text")
    more = read_corpus([write_csv(tmp_path / "a.csv", reviews[::-1]), tmp_path / "some.csv"], "text")
    assert set(some.held_out) <= set(more.held_out) and set(some.train) <= set(more.train)
    assert not set(more.train) & set(more.held_out) and more.repeated == 300 and more.rows == 700
    assert 8 <= len(more.held_out) <= 40 and len(more.train) + len(more.held_out) == 400


def test_whole_words_are_masked(base: Path) -> None:
    """And nothing else: no special token, no padding; a part of a word never without the rest of it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    said = ["unbelievable, terrible film!"] * 40 + ["xyz dull"] * 40
    rows = make_rows(tokenizer, said, 64)
    batches = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    collate = WholeWords(tokenizer, 0.3, seed=1)
    masked = words = 0
    for number, some in enumerate(batches):
        made = collate([(number, some)])
        for i, row in enumerate(some):
            number = np.cumsum(row.begins)
            chosen = made["labels"][i, : len(row.ids)].numpy() != -100
            assert not (chosen & row.special).any() and (made["labels"][i, len(row.ids) :] == -100).all()
            for word in range(1, number.max() + 1):
                parts = chosen[(number == word) & ~row.special]
                assert parts.all() or not parts.any()
                masked, words = masked + bool(parts.all()), words + 1
            shown = made["input_ids"][i, : len(row.ids)].numpy()
            assert (shown[chosen] == tokenizer.mask_token_id).all() and (shown[~chosen] == row.ids[~chosen]).all()
            assert (made["labels"][i, : len(row.ids)].numpy()[chosen] == row.ids[chosen]).all()
    assert words == 40 * 5 + 40 * 2 and abs(masked / words - 0.3) < 0.1  # "," and "!" are words of their own


def test_long_texts_are_several_rows(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = make_rows(tokenizer, ["good film " * 30, "dull", ""], 16)
    whole = [token for row in rows for token in row.ids[~row.special].tolist()]
    assert whole == tokenizer("good film " * 30 + "dull", add_special_tokens=False)["input_ids"]
    assert max(len(row.ids) for row in rows) == 16
    batches = LengthBatches(rows, 2, epochs=3, seed=0)
    found = [[id(row) for i in range(e, e + 3) for row in batches[i][1]] for e in (0, 3, 6)]
    assert len(batches) == 9 and all(sorted(one) == sorted(map(id, rows)) for one in found) and found[0] != found[1]


def test_the_perplexity_is_by_its_definition(base: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from embedcache.encoder.batching import plan_batches

    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForMaskedLM.from_pretrained(base)
    rows = make_rows(tokenizer, [text for text, _ in make_reviews(30)], 64)
    collate, losses = WholeWords(tokenizer, 0.15, seed=0), []
    for number, batch in enumerate(plan_batches(np.array([len(row.ids) for row in rows]), training.EVAL_TOKENS)):
        made = collate([(number, [rows[i] for i in batch.tolist()])])
        for i in range(len(batch)):  # each row alone, without padding
            n = int(made["attention_mask"][i].sum())
            with torch.no_grad():
                logs = model.eval()(made["input_ids"][i : i + 1, :n]).logits[0].double().log_softmax(-1)
            labels = made["labels"][i, :n]
            losses += [-float(logs[k, labels[k]]) for k in range(n) if labels[k] != -100]
    model.train()
    found = training.perplexity(model, tokenizer, rows, 0.15)
    assert found == pytest.approx(np.exp(np.mean(losses)), rel=1e-5) and model.training
    assert found == training.perplexity(model, tokenizer, rows, 0.15)


def test_an_ordinary_model_folder_comes_out(base: Path, texts: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    before = weights(base)
    asked = ["--lr", "2e-3", "--epochs", 3, "--batch-size", 16, "--device", "cpu"]
    report = document("adapt", texts, "-o", tmp_path / "out", "--model", base, *asked)
    assert report["perplexity_after"] < 0.8 * report["perplexity_before"]
    assert report["texts"] + report["held_out"] == 160 and report["rows"] == 163 and report["steps"] == 3 * 10
    assert any("1 of 163 rows repeat a text" in note for note in report["notes"])
    model, tokenizer = (one.from_pretrained(tmp_path / "out") for one in (AutoModelForMaskedLM, AutoTokenizer))
    held = read_corpus([texts], "text").held_out
    again = training.perplexity(model, tokenizer, make_rows(tokenizer, held, 128), 0.15)
    assert again == pytest.approx(report["perplexity_after"], rel=1e-6)
    extracted = document("extract", texts, "-o", tmp_path / "c.h5", "--model", tmp_path / "out", "--max-length", 128)
    assert extracted["rows"] == 163 and not list(tmp_path.glob(".out*adapt"))
    assert all((before[name] == value).all() for name, value in weights(base).items())


@pytest.mark.parametrize("kind", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_from_scratch(kind: str, texts: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": kind, **sizes, "vocab_size": 420, "max_position_embeddings": 66}
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = ec.adapt(texts, tmp_path / "out", from_scratch=tmp_path / "config.json", **QUICK)
    assert report.perplexity_after < report.perplexity_before < 2 * 420
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    said = "A wonderful film never dull"
    assert tokenizer.decode(tokenizer(said)["input_ids"], skip_special_tokens=True).replace(" ", "").lower() == (
        said.replace(" ", "").lower()
    )
    assert {"bert": "[MASK]", "roberta": "<mask>"}[kind] == tokenizer.mask_token
    made = json.loads((tmp_path / "out" / "config.json").read_text())
    assert made["vocab_size"] == len(tokenizer) <= 420 and made["pad_token_id"] == tokenizer.pad_token_id
    extract = ["extract", texts, "-o", tmp_path / "c.h5", "--model", tmp_path / "out", "--max-length", 64]
    assert document(*extract)["encoded"] == 162


@pytest.mark.slow
def test_the_pooling_of_the_base_is_kept(base: Path, texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sentences"
    shutil.copytree(base, folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    report = ec.adapt(texts, tmp_path / "out", model=folder, **{**QUICK, "epochs": 1})
    assert any("the pooling of sentences are kept" in note for note in report.notes)
    made = document("extract", texts, "-o", tmp_path / "c.h5", "--model", tmp_path / "out")
    assert made["encoder"]["model"]["pooling"] == ["mean"] and made["encoder"]["identity"]["max_length"] == 40


def test_interrupted_training_continues_to_the_same_weights(
    base: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FEWEST_STEPS", 3)
    quick = {**QUICK, "batch_size": 32}  # five steps an epoch
    whole = ec.adapt(texts, tmp_path / "whole", model=base, **quick)

    def stop(done: int, total: int, rows: int) -> None:
        if done == 8:  # in the second epoch; saved are 6
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="6 of 10 steps are saved; the same command with --resume continues"):
        ec.adapt(texts, tmp_path / "out", model=base, progress=stop, **quick)
    kept = tmp_path / ".out.adapt"
    (kept / "checkpoint-9").mkdir()  # as a kill leaves it
    shutil.copy(kept / "checkpoint-6" / "model.safetensors", kept / "checkpoint-9")
    with pytest.raises(EmbedcacheError, match="had other texts, another model or other options"):
        ec.adapt(texts, tmp_path / "out", model=base, resume=True, **{**quick, "lr": 1e-3})
    resumed = ec.adapt(texts, tmp_path / "out", model=base, resume=True, **quick)
    assert resumed.resumed == 6 and not kept.exists()
    assert resumed.perplexity_before == whole.perplexity_before
    ours, theirs = weights(tmp_path / "out"), weights(tmp_path / "whole")
    assert all((ours[name] == value).all() for name, value in theirs.items()) and set(ours) == set(theirs)


@pytest.mark.slow
def test_without_resume_it_begins_anew(base: Path, texts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / ".out.adapt" / "checkpoint-3").mkdir(parents=True)
    ec.adapt(texts, tmp_path / "out", model=base, tell=said.append, **{**QUICK, "epochs": 1})
    assert any("is discarded: --resume would continue it" in line for line in said)
    shutil.rmtree(tmp_path / "out")
    ec.adapt(texts, tmp_path / "out", model=base, tell=said.append, resume=True, **{**QUICK, "epochs": 1})
    assert "there is nothing to resume: this begins anew" in said


def test_refused_in_one_line(base: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ["adapt", texts, "-o", tmp_path / "out", "--model", base]
    few = write_csv(tmp_path / "few.csv", make_reviews(20))
    assert "20 different texts, and adapt needs 50 or more" in fails("adapt", few, "-o", tmp_path / "out")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    assert "exists already, and nothing was changed" in fails("adapt", texts, "-o", tmp_path / "there")
    for kind in ("gpt2", "t5"):
        folder = Path(shutil.copytree(base, tmp_path / kind))
        config = json.loads((folder / "config.json").read_text())
        del config["architectures"]
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
        line = fails("adapt", texts, "-o", tmp_path / "out", "--model", folder)
        assert f"{kind} ({kind}) is an" in line.replace("a causal", "an") and "masked language models" in line
    assert "no such file: name a config.json" in fails(*ask[:4], "--from-scratch", tmp_path / "nowhere.json")
    assert invoke(*ask, "--from-scratch", base).exit_code == 2 and invoke(*ask, "--mask", 1).exit_code == 2
    assert "more than the 128 positions of tiny" in fails(*ask, "--max-length", 512)
    monkeypatch.setattr("embedcache.pretraining.place.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
    assert "training needs" in (line := fails(*ask)) and "0 MB are free" in line
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "adapt needs accelerate, which is not installed: pip install 'embedcache[train]'" in fails(*ask)


def test_a_full_disk_is_called_that(base: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("safetensors: I/O error")

    monkeypatch.setattr(training, "train", full)
    with pytest.raises(RuntimeError, match="I/O error"):  # the disk is not full: it stays what it is
        ec.adapt(texts, tmp_path / "out", model=base, **QUICK)
    monkeypatch.setattr("embedcache.pretraining.place.is_full", lambda _: True)
    with pytest.raises(EmbedcacheError, match="no space left on its disk: make room; the same command with --resume"):
        ec.adapt(texts, tmp_path / "out", model=base, **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_training_continues_to_the_same_weights(base: Path, texts: Path, tmp_path: Path) -> None:
    """By SIGKILL, at moments that differ: also while a checkpoint is written."""
    options = ["--model", str(base), "--epochs", "30", "--batch-size", "16", "--lr", "1e-3", "--device", "cpu"]
    command = [sys.executable, "-m", "embedcache", "adapt", str(texts), *options, "--resume", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    kills, kept = 0, tmp_path / ".out.adapt"
    for seconds in (0.0, 0.3, 1.1):
        started = subprocess.Popen([*command, str(tmp_path / "out")], env=environment, stderr=subprocess.DEVNULL)
        known = {path.name for path in kept.glob("checkpoint-*")}
        while started.poll() is None and {path.name for path in kept.glob("checkpoint-*")} <= known:
            time.sleep(0.005)
        time.sleep(seconds)
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
            kills += 1
        started.wait()
    subprocess.run([*command, str(tmp_path / "out")], check=True, env=environment, capture_output=True)
    ours, theirs = weights(tmp_path / "out"), weights(tmp_path / "whole")
    assert kills >= 2 and all((ours[name] == value).all() for name, value in theirs.items())
