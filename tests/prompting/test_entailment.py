"""Entailment: the probabilities of transformers' own pipeline for zero-shot classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.prompting.labels import read_labels
from embedcache.prompting.method import AskedPrompt, softmax
from embedcache.prompting.methods.entailment import Entailment
from tests.conftest import make_reviews

TEXTS = [text for text, _ in make_reviews(8)] + ["dull " * 200]
NAMES = ["good", "bad", "not a film"]


def entailment(model: Path, labels: Any = NAMES, **more: Any) -> Entailment:
    return Entailment(AskedPrompt(str(model), read_labels(labels), device="cpu", **more))


def test_the_probabilities_are_the_pipelines(tiny_nli: Path) -> None:
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(tiny_nli, model_max_length=128)
    theirs = pipeline("zero-shot-classification", str(tiny_nli), tokenizer=tokenizer, device="cpu")
    method = entailment(tiny_nli)
    scores, reading = method.score(TEXTS, None, lambda _: None)
    for text, ours in zip(TEXTS, softmax(scores), strict=True):
        found = theirs(text, NAMES, hypothesis_template="This example is {}.")
        assert np.abs([found["scores"][found["labels"].index(name)] for name in NAMES] - ours).max() < 1e-5
    assert reading.truncated == 1 and reading.max_length == 128 and reading.texts == 9


def test_several_descriptions_of_a_label(tiny_nli: Path) -> None:
    one, _ = entailment(tiny_nli).score(TEXTS, None, lambda _: None)
    two, _ = entailment(tiny_nli, {"yes": ["good", "bad"], "no": "not a film"}).score(TEXTS, None, lambda _: None)
    assert np.abs(two - np.stack([one[:, :2].mean(axis=1), one[:, 2]], axis=1)).max() < 1e-9


def test_a_row_does_not_depend_on_its_batch(tiny_nli: Path) -> None:
    method, done = entailment(tiny_nli), []
    together, _ = method.score(TEXTS, None, lambda rows: done.extend(rows.tolist()))
    alone = np.concatenate([method.score([text], None, lambda _: None)[0] for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-4 and sorted(done) == list(range(len(TEXTS)))


def test_refused(tiny_nli: Path, tiny_masked: Path) -> None:
    with pytest.raises(EmbedcacheError, match=r"names its outputs none: entailment needs a model of natural language"):
        entailment(tiny_masked)
    with pytest.raises(EmbedcacheError, match=r"has no \{label\}: entailment needs it once"):
        entailment(tiny_nli, template="Good.")
    with pytest.raises(EmbedcacheError, match=r"a hypothesis has 2.. tokens, and nli reads 128: shorten it"):
        entailment(tiny_nli, template="good " * 200 + "{label}")
