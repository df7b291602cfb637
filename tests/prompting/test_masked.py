"""Masked: the gap's probabilities beside plain transformers; calibration by its formula; one gap, one token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.prompting.labels import read_labels
from embedcache.prompting.method import AskedPrompt, softmax
from embedcache.prompting.methods.masked import Masked
from tests.conftest import make_reviews

WORDS = {"positive": ["great", "superb"], "negative": ["dull"]}
TEXTS = [text for text, _ in make_reviews(12)] + ["", "a [MASK] film", "good " * 200]


def masked(model: Path, **more: Any) -> Masked:
    return Masked(AskedPrompt(str(model), read_labels(more.pop("labels", WORDS)), device="cpu", **more))


def by_hand(model: Path, prompt: str) -> np.ndarray:
    """float64 [labels]: the words' mean probabilities in the gap, of one prompt alone."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, lm = AutoTokenizer.from_pretrained(model), AutoModelForMaskedLM.from_pretrained(model).eval()
    given = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        logits = lm(**given).logits[0, given["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
    chances = logits.double().softmax(-1).numpy()
    return np.array([np.mean([chances[tokenizer.convert_tokens_to_ids(w)] for w in some]) for some in WORDS.values()])


def test_the_probabilities_are_those_of_transformers(tiny_masked: Path) -> None:
    method = masked(tiny_masked, calibrate=False)
    scores, reading = method.score(TEXTS, None, lambda _: None)
    rows = np.stack([by_hand(tiny_masked, f"{text.replace('[MASK]', ' ')} It was [MASK].") for text in TEXTS[:-1]])
    assert np.abs(softmax(scores[:-1]) - rows / rows.sum(axis=1, keepdims=True)).max() < 1e-5
    cut = by_hand(tiny_masked, f"{'good ' * 122} It was [MASK].")  # 128 positions, 6 of them the template's
    assert np.abs(softmax(scores[-1:])[0] - cut / cut.sum()).max() < 1e-5
    assert reading.truncated == 1 and reading.longest == 206 and reading.lost == 206 - 128


def test_calibration_is_the_papers(tiny_masked: Path) -> None:
    plain, _ = masked(tiny_masked, calibrate=False).score(TEXTS, None, lambda _: None)
    free, _ = masked(tiny_masked, calibrate=False).score(["N/A", ""], None, lambda _: None)
    scores, _ = masked(tiny_masked).score(TEXTS, None, lambda _: None)
    weighted = softmax(plain) / softmax(free).mean(axis=0)
    assert np.abs(softmax(scores) - weighted / weighted.sum(axis=1, keepdims=True)).max() < 1e-9
    assert np.abs(softmax(scores) - softmax(plain)).max() > 1e-3


def test_a_row_does_not_depend_on_its_batch(tiny_masked: Path) -> None:
    method = masked(tiny_masked)
    together, _ = method.score(TEXTS, None, lambda _: None)
    alone = np.concatenate([method.score([text], None, lambda _: None)[0] for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-4


def test_the_template_may_begin_with_the_gap(tiny_masked: Path) -> None:
    method = masked(tiny_masked, template="[MASK] film: {text}", calibrate=False)
    scores, _ = method.score(["a [MASK] plot"], None, lambda _: None)
    found = by_hand(tiny_masked, "[MASK] film: a   plot")
    assert np.abs(softmax(scores)[0] - found / found.sum()).max() < 1e-5


def test_words_of_a_tokenizer_that_keeps_blanks(tmp_path: Path) -> None:
    """RoBERTa's: the word in the gap has the blank before it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *pre_tokenizers.ByteLevel.alphabet()]
    words = ["Ġgood", "Ġbad", "good", "bad"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*alphabet, *words, *_pieces(words)]))}
    bpe = Tokenizer(models.BPE(vocab, _merges(words), unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **named)
    from tokenizers import AddedToken

    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=80, pad_token_id=1)
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    method = masked(tmp_path, labels=["good", "bad"])
    assert method._words == [[vocab["Ġgood"]], [vocab["Ġbad"]]]
    (prompt,) = method.lm.tokenize([method.prompt("so so", "")])
    assert prompt["input_ids"].count(tokenizer.mask_token_id) == 1


def _pieces(words: list[str]) -> list[str]:
    return [word[:end] for word in words for end in range(2, len(word))]


def _merges(words: list[str]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word))))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"labels": {"fresh": "uncritical", "dull": "dull"}}, "splits 'uncritical' (u ##n ##c"),
        ({"labels": {"fresh": "very good", "dull": "dull"}}, "splits 'very good' (very good)"),
        ({"labels": {"good": "good", "x": "£"}}, "does not know '£'"),
        ({"labels": {"a": "good", "b": ["dull", "GOOD "]}}, "the same description"),
        ({"template": "{text} It was."}, "has no [MASK]: masked needs it once, as in '{text} It was [MASK].'"),
        ({"template": "It was [MASK]."}, "has no {text}"),
        ({"template": "{text} [MASK] [MASK]"}, "has [MASK] 2 times"),
        ({"template": "{text} " + "good " * 200 + "[MASK]"}, "the template alone has 203 tokens, and masked reads 128"),
        ({"max_length": 4}, "--max-length 4 leaves no room"),
    ],
)
def test_refused(tiny_masked: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(EmbedcacheError) as error:
        masked(tiny_masked, **more).score(["fine"], None, lambda _: None)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_a_mask_token(tiny_masked: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_masked, tmp_path / "maskless"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(EmbedcacheError, match="its tokenizer has no mask token, which masked needs"):
        masked(folder)


def test_examples_stand_before_the_text(reviews_cache: Path, tiny_masked: Path) -> None:
    """Of the nearest labelled rows; never the row itself, nor its copy, nor a row without a label."""
    from embedcache.prompting.examples import Examples

    with ec.open_cache(reviews_cache) as cache:
        examples = Examples(cache, "label", list(WORDS), 3)
        found = examples.of(np.arange(cache.rows))
        x = cache.embeddings("cls").astype(np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        codes, classes = cache.labels("label")
        for row, some in enumerate(found):
            texts = [cache.texts[i] for i in range(cache.rows)]
            near = [i for i in np.argsort(-x @ x[row], kind="stable") if texts[i] != texts[row] and codes[i] >= 0]
            near = [i for k, i in enumerate(near) if texts[i] not in [texts[j] for j in near[:k]]]
            assert [text for text, _ in some] == [texts[i] for i in near[:3]][::-1]
            assert [list(WORDS)[label] for _, label in some] == [classes[codes[i]] for i in near[:3]][::-1]
        method = masked(tiny_masked, cache=cache, examples=examples, calibrate=False)
        scores, reading = method.score([cache.texts[5]], [found[5]], lambda _: None)
        before = method._join(found[5])
        assert [before.count(f"It was {words[0]}. ") for words in WORDS.values()] == np.bincount(
            [label for _, label in found[5]], minlength=2
        ).tolist()
        assert len(method.lm.tokenize([before])[0]["input_ids"]) <= 64 + 2  # half of the positions
        chances = by_hand(tiny_masked, f"{before}{cache.texts[5]} It was [MASK].")
        assert not reading.truncated and np.abs(softmax(scores)[0] - chances / chances.sum()).max() < 1e-5
        free = [by_hand(tiny_masked, f"{before}{text} It was [MASK].") for text in ("N/A", "")]
        weighted = chances / np.mean([one / one.sum() for one in free], axis=0)
        calibrated = masked(tiny_masked, cache=cache, examples=examples)
        scores, _ = calibrated.score([cache.texts[5], cache.texts[6]], [found[5], found[6]], lambda _: None)
        assert np.abs(softmax(scores)[0] - weighted / weighted.sum()).max() < 1e-5 and calibrated.calibrated
