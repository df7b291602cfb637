"""Causal: log-likelihoods beside plain transformers; what prompts share is computed once, with one result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.errors import EmbedcacheError
from embedcache.prompting.fitting import fit
from embedcache.prompting.labels import read_labels
from embedcache.prompting.method import AskedPrompt, softmax
from embedcache.prompting.methods.causal import Causal
from tests.conftest import make_reviews
from tests.prompting.conftest import CHAT

LABELS = {"good": "a good film", "very bad indeed": "a bad film", "masterpiece": "masterpiece"}
TEXTS = [text for text, _ in make_reviews(9)] + ["", "never [MASK]"]
HEAD = "Which label does the text have?\n- good: a good film\n- very bad indeed: a bad film\n- masterpiece\n\n"


def causal(model: Path, **more: Any) -> Causal:
    return Causal(AskedPrompt(str(model), read_labels(more.pop("labels", LABELS)), device="cpu", **more))


def by_hand(model: Path, prompt: str, answers: list[str]) -> np.ndarray:
    """float64 [labels]: mean log-probability of each answer's tokens after the prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, lm = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    start, found = len(tokenizer(prompt)["input_ids"]), []
    for answer in answers:
        ids = tokenizer(prompt + answer, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logs = lm(ids).logits[0].double().log_softmax(-1)
        found.append(np.mean([float(logs[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])]))
    return np.array(found)


def test_the_scores_are_those_of_transformers(tiny_causal: Path) -> None:
    method = causal(tiny_causal, calibrate=False)
    scores, _ = method.score(TEXTS, None, lambda _: None)
    expected = [by_hand(tiny_causal, f"{HEAD}Text: {text}\nLabel:", [f" {name}" for name in LABELS]) for text in TEXTS]
    assert np.abs(softmax(scores) - softmax(np.array(expected))).max() < 1e-5
    assert np.abs(scores - np.array(expected)).max() < 1e-4


def test_what_is_shared_is_computed_once(tiny_causal: Path) -> None:
    method = causal(tiny_causal, calibrate=False)
    assert method.shares and len(method._common[0]) > 40
    forward, read = method.lm.model.forward, []
    method.lm.model.forward = lambda *args, **kw: (read.append(kw["input_ids"].numel()), forward(*args, **kw))[1]
    once, _ = method.score(TEXTS, None, lambda _: None)
    shared, method.shares = sum(read), False
    read.clear()
    each, _ = method.score(TEXTS, None, lambda _: None)
    assert np.abs(once - each).max() < 1e-4 and shared * 3 < sum(read)


def test_calibration(tiny_causal: Path) -> None:
    plain, _ = causal(tiny_causal, calibrate=False).score([*TEXTS, "N/A", "[MASK]", ""], None, lambda _: None)
    scores, _ = causal(tiny_causal).score(TEXTS, None, lambda _: None)
    weighted = softmax(plain[:-3]) / softmax(plain[-3:]).mean(axis=0)
    assert np.abs(softmax(scores) - weighted / weighted.sum(axis=1, keepdims=True)).max() < 1e-6


def test_a_chat_template_goes_around_the_prompt(tiny_causal: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_causal, tmp_path / "chat"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHAT}))
    method = causal(folder, calibrate=False)
    scores, _ = method.score(TEXTS[:3], None, lambda _: None)
    for text, ours in zip(TEXTS, scores, strict=False):
        expected = by_hand(tiny_causal, f"<|user|>{HEAD}Text: {text}\nLabel:\n<|assistant|>", list(LABELS))
        assert np.abs(ours - expected).max() < 1e-4
    assert "in its chat template" in method.notes[0]


def test_examples_and_long_texts(tiny_causal: Path) -> None:
    method = causal(tiny_causal, calibrate=False, max_length=200)
    examples = [[("a fine film", 0), ("never " * 90, 1)]]
    scores, reading = method.score(["story " * 200], examples, lambda _: None)
    before = method._join(examples[0])
    assert before.startswith("Text: a fine film\nLabel: good\n\nText: never never") and before.count("Label:") == 2
    assert before.endswith("Label: very bad indeed\n\n") and reading.truncated == 1
    (prompt,), _ = fit(method.lm, ["story " * 200], lambda _, text: method.prompt(text, before))
    said = method.lm.tokenizer.decode(prompt["input_ids"])
    assert said.startswith(f"{HEAD}{before}Text: story ") and said.endswith("\nLabel:") and said.count("story") > 5
    assert 197 <= len(prompt["input_ids"]) <= 200
    expected = by_hand(tiny_causal, said, [f" {name}" for name in LABELS])
    assert np.abs(scores[0] - expected).max() < 1e-4


@pytest.mark.slow
def test_a_recurrent_model_shares_nothing(tiny_causal: Path, tmp_path: Path) -> None:
    """Mamba has states where others have keys and values: padding would go into them."""
    from transformers import MambaConfig, MambaForCausalLM

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_causal / name, tmp_path)
    config = MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, state_size=4, pad_token_id=1)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    method = causal(tmp_path, calibrate=False)
    assert not method.shares
    scores, _ = method.score(TEXTS[:2], None, lambda _: None)
    expected = [by_hand(tmp_path, f"{HEAD}Text: {text}\nLabel:", [f" {name}" for name in LABELS]) for text in TEXTS[:2]]
    assert np.abs(scores - np.array(expected)).max() < 1e-4


def test_refused(tiny_causal: Path, tiny_masked: Path) -> None:
    with pytest.raises(EmbedcacheError, match="is an encoder, not a causal model"):
        causal(tiny_masked)
    with pytest.raises(EmbedcacheError, match=r"--template 'Label:' has no \{text\}: causal needs it once"):
        causal(tiny_causal, template="Label:")
    with pytest.raises(EmbedcacheError, match=r"the template alone has \d+ tokens, and causal reads 32"):
        causal(tiny_causal, max_length=32).score(["fine"], None, lambda _: None)
