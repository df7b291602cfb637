"""Vectors equal those of plain transformers row by row; what is no usable encoder gets one clear line."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoder import Encoder, identify
from embedcache.encoder.batching import plan_batches
from embedcache.encoder.families import FAMILIES
from embedcache.encoder.folder import positions_of
from embedcache.errors import EmbedcacheError
from tests.conftest import make_reviews

OUTPUTS = [("cls", -1), ("mean", -1), ("cls", 1), ("mean", -2), ("cls", 0)]
TEXTS = [text for text, _ in make_reviews(12)] + ["", "   ", "日本語のレビュー 🎬", "مراجعة فيلم رائع", "long " * 400]


def load(folder: Path, **options: Any) -> Encoder:
    return Encoder.load(folder, device="cpu", **{"max_length": 64, "dtype": "float32", **options})


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def one_by_one(folder: Path, texts: list[str], max_length: int) -> list[np.ndarray]:
    """The plain way: every text alone through AutoTokenizer and AutoModel, for each of OUTPUTS."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows: list[list[np.ndarray]] = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            result = model(**inputs, output_hidden_states=True)
        states = [(result.last_hidden_state if k == -1 else result.hidden_states[k])[0] for _, k in OUTPUTS]
        rows.append([(s[0] if p == "cls" else s.mean(0)).numpy() for s, (p, _) in zip(states, OUTPUTS, strict=True)])
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_equal_plain_transformers_row_by_row(tiny_models: dict[str, Path], family: str) -> None:
    encoder = load(tiny_models[family])
    assert (encoder.dim, encoder.layers, encoder.compute_dtype) == (32, 2, "float32")
    expected = one_by_one(tiny_models[family], TEXTS, 64)
    tokens = encoder.tokenize(TEXTS)
    together = encoder.encode(tokens.ids, OUTPUTS)
    planned = encoder.encode_texts(TEXTS, OUTPUTS)
    for want, *got in zip(expected, together, planned, strict=True):
        for vectors in got:
            assert vectors.dtype == np.float32
            assert vectors.shape == want.shape
            assert cosine(vectors, want).min() > 0.99999
            np.testing.assert_allclose(vectors, want, atol=1e-4)


@pytest.mark.parametrize("max_length", [3, 7, 64, 130 - 2])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_truncation_is_that_of_the_tokenizer_and_is_counted(
    tiny_models: dict[str, Path], family: str, max_length: int
) -> None:
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(tiny_models[family])
    tokens = load(tiny_models[family], max_length=max_length).tokenize(TEXTS)
    assert tokens.ids == [plain(text, truncation=True, max_length=max_length)["input_ids"] for text in TEXTS]
    assert tokens.truncated.tolist() == [len(plain(text)["input_ids"]) > max_length for text in TEXTS]
    assert tokens.lengths.tolist() == [len(row) for row in tokens.ids]


def test_truncation_on_the_left(bert_copy: Path) -> None:
    from transformers import AutoTokenizer

    settings = json.loads((bert_copy / "tokenizer_config.json").read_text())
    (bert_copy / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    plain = AutoTokenizer.from_pretrained(bert_copy)
    tokens = load(bert_copy, max_length=9).tokenize(TEXTS)
    assert tokens.ids == [plain(text, truncation=True, max_length=9)["input_ids"] for text in TEXTS]


def test_a_text_of_two_megabytes(tiny_bert: Path) -> None:
    tokens = load(tiny_bert).tokenize(["great film " * 200_000, "x" * 2_000_000])
    assert tokens.truncated.tolist() == [True, False]
    assert len(tokens.ids[0]) == 64


def test_no_rows(tiny_bert: Path) -> None:
    encoder = load(tiny_bert)
    assert encoder.tokenize([]).ids == []
    assert encoder.encode([], [("cls", -1)])[0].shape == (0, 32)
    assert encoder.encode_texts([], [("cls", -1)])[0].shape == (0, 32)


def test_unknown_pooling_and_layer(tiny_bert: Path) -> None:
    encoder = load(tiny_bert)
    with pytest.raises(EmbedcacheError, match="unknown pooling 'median': choose from cls, mean"):
        encoder.encode([[1, 2]], [("median", -1)])
    for layer in (3, -4):
        with pytest.raises(EmbedcacheError, match=f"no layer {layer}: .* has 2"):
            encoder.encode([[1, 2]], [("cls", layer)])


@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert"])
def test_rows_that_hold_the_pad_token(tiny_models: dict[str, Path], family: str) -> None:
    """RoBERTa and MPNet do not count such a token as a position."""
    encoder = load(tiny_models[family])
    assert encoder.kernel != "plain"
    ids = [[2, 9, 3], [2, 9, 1, 10, 1, 3], [2, 9, 10, 11, 3], [2, 1, 3]]
    for outputs in ([("cls", -1)], [("mean", 1), ("cls", -1)]):
        alone = [load(tiny_models[family], kernel="plain").encode([row], outputs) for row in ids]
        for got, want in zip(encoder.encode(ids, outputs), zip(*alone, strict=True), strict=True):
            np.testing.assert_allclose(got, np.concatenate(want), atol=1e-5)
        for got, want in zip(encoder.encode(ids[1:2], outputs), alone[1], strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)


def test_several_batches_at_once(tiny_bert: Path) -> None:
    """Vectors in the rows' order, ``tell`` in this thread and in the batches' order, an error as it is."""
    encoder = load(tiny_bert)
    tokens = encoder.tokenize(TEXTS)
    outputs = [("cls", -1), ("mean", 1)]
    expected = encoder.encode(tokens.ids, outputs)
    encoder.threads, forward, threads = 3, encoder._forward, set()
    together, ended, longest = threading.Barrier(3), threading.Semaphore(0), max(tokens.lengths)
    first_three = iter(range(3))

    def slow(ids: Any, outputs: Any) -> list[np.ndarray]:
        threads.add(threading.get_ident())
        if next(first_three, None) is not None:
            together.wait(20)  # each of the first three batches has a thread of its own
            if len(ids[0]) == longest:  # the first of them ends last
                assert ended.acquire(timeout=20) and ended.acquire(timeout=20)
        result = forward(ids, outputs)
        ended.release()
        return result

    encoder._forward = slow  # type: ignore[assignment]
    told: list[tuple[int, list[int]]] = []
    found = encoder.encode_tokens(
        tokens, outputs, batch_tokens=64, tell=lambda rows: told.append((threading.get_ident(), rows.tolist()))
    )
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert {thread for thread, _ in told} == {threading.get_ident()}
    assert threading.get_ident() not in threads
    assert len(threads) == 3
    assert [rows for _, rows in told] == [batch.tolist() for batch in plan_batches(tokens.lengths, 64)]

    def stop(rows: np.ndarray) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode_tokens(tokens, outputs, batch_tokens=64, tell=stop)
    with pytest.raises(EmbedcacheError, match="no layer 9"):
        encoder.encode_tokens(tokens, [("cls", 9)])


def test_half_precision_stays_close(tiny_bert: Path) -> None:
    exact = load(tiny_bert).encode_texts(TEXTS, [("cls", -1)])[0]
    encoder = load(tiny_bert, dtype="bfloat16")
    assert encoder.identity["compute_dtype"] == "bfloat16"
    assert cosine(encoder.encode_texts(TEXTS, [("cls", -1)])[0], exact).min() > 0.99


def test_loading_is_silent_and_changes_no_settings(
    tiny_bert: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging as settings

    before = settings.get_verbosity(), settings.is_progress_bar_enabled(), list(warnings.filters)
    with caplog.at_level(logging.WARNING):
        load(tiny_bert).encode_texts(TEXTS, [("cls", -1)])
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert (settings.get_verbosity(), settings.is_progress_bar_enabled(), list(warnings.filters)) == before


def test_loaded_and_not_loaded_give_one_identity(tiny_bert: Path) -> None:
    identity, source = identify(tiny_bert, max_length=64, device="cpu")
    encoder = load(tiny_bert, dtype="auto")
    assert (encoder.identity, encoder.source) == (identity, source)
    assert source == str(tiny_bert.resolve())
    assert identity["max_length"] == 64
    assert str(tiny_bert.parent) not in json.dumps(identity)


# What is no usable encoder. Each: how to spoil a copy of the tiny BERT, and what the line says.


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rename_weight(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file  # torch's are maps of the file

    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    weights["other"] = weights.pop(name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


SPOILT = [
    (lambda f: (f / "config.json").unlink(), r"no config\.json"),
    (lambda f: (f / "config.json").write_text("{"), r"config\.json: not JSON"),
    (lambda f: edit(f / "config.json", model_type="none-such"), r"cannot be loaded .*none-such"),
    (lambda f: edit(f / "config.json", hidden_size=64), r"cannot be loaded"),
    (lambda f: edit(f / "config.json", model_type="gpt2"), r"are incomplete for a gpt2 model"),
    (lambda f: (f / "config.json").write_text('{"model_type": "t5"}'), r"are incomplete for a t5 model"),
    (lambda f: (f / "config.json").write_text('{"model_type": "clip"}'), r"\(clip\) reads images or sound as well"),
    (lambda f: edit(f / "config.json", model_type="x", auto_map={"AutoConfig": "c.C"}), r"--trust-remote-code"),
    (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors"),
    (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"only pickled .*save_pretrained"),
    (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), r"cannot be loaded"),
    (rename_weight, r"are incomplete for a bert model, encoder\.layer\.1\.output\.dense\.weight missing"),
    (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), r"cannot be loaded"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT, ids=[message for _, message in SPOILT])
def test_a_spoilt_folder_gets_one_clear_line(bert_copy: Path, spoil: Any, message: str) -> None:
    spoil(bert_copy)
    with pytest.raises(EmbedcacheError, match=message) as error:
        load(bert_copy)
    assert "\n" not in str(error.value)
    assert str(bert_copy) in str(error.value)


def test_a_tokenizer_of_another_model(tiny_models: dict[str, Path], bert_copy: Path) -> None:
    tokenizer = json.loads((bert_copy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["onemore"] = 9999
    (bert_copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(EmbedcacheError, match="ids up to 9999"):
        load(bert_copy)
    tokenizer["post_processor"] = None
    (bert_copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(EmbedcacheError, match="ids up to 9999"):
        load(bert_copy)
    del tokenizer["model"]["vocab"]["onemore"]
    (bert_copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    encoder = load(bert_copy)
    with pytest.raises(EmbedcacheError, match=r"no cls vectors: the tokenizer of .* puts no CLS token before a text"):
        encoder.encode_texts(TEXTS, [("cls", -1)])


@pytest.mark.parametrize("family", FAMILIES)
def test_max_length_beyond_the_positions(tiny_models: dict[str, Path], family: str) -> None:
    positions = 512 if family == "bert" else 130 if FAMILIES[family].behind is None else 128
    assert positions_of(tiny_models[family]) == positions
    encoder = load(tiny_models[family], max_length=positions)
    encoder.encode_texts(["great " * 600], [("cls", -1)])
    with pytest.raises(EmbedcacheError, match=f"the {positions} positions of .*--max-length {positions}"):
        load(tiny_models[family], max_length=positions + 1)
    with pytest.raises(EmbedcacheError, match="max_length 2"):
        load(tiny_models[family], max_length=2)


def test_sharded_weights(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = tmp_path / "sharded"
    shutil.copytree(tiny_bert, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModel.from_pretrained(tiny_bert).save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    whole, parts = load(tiny_bert), load(folder)
    assert len(parts.identity["weights"]) > 1
    np.testing.assert_array_equal(*(e.encode_texts(TEXTS[:5], [("cls", -1)])[0] for e in (whole, parts)))
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(EmbedcacheError, match=r"model-0000.* is missing"):
        load(folder)


def test_plan_and_encode_agree_with_the_whole(tiny_bert: Path) -> None:
    """As extract drives it: tokenize, plan, encode batch by batch, scatter."""
    encoder = load(tiny_bert)
    tokens = encoder.tokenize(TEXTS)
    whole = encoder.encode(tokens.ids, [("cls", -1)])[0]
    batches = plan_batches(tokens.lengths, 128)
    assert len(batches) > 3
    for batch in batches:
        part = encoder.encode([tokens.ids[i] for i in batch], [("cls", -1)])[0]
        assert cosine(part, whole[batch]).min() > 0.99999
