"""What is read straight from the files is, to the bit, what transformers makes of them; all else is left to it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoder import Encoder
from embedcache.encoder.families import FAMILIES
from embedcache.encoder.load_without_torch import _read_blueprint, load_direct
from embedcache.encoder.read_model import read_blueprint
from embedcache.encoder.runner_native import backend
from tests.conftest import POLYGLOT, make_reviews, swap_first_two_tokens, write_tokenizer

DIRECT = {name: family.tokenizers for name, family in FAMILIES.items() if family.tokenizers}
BYTE_LEVEL = [name for name, tokenizers in DIRECT.items() if "RobertaTokenizer" in tokenizers.classes]
TEXTS = [text for text, _ in make_reviews(20)] + [*POLYGLOT, "", " ", "Ünïcödé CAFÉ naïve", "x" * 300, "long " * 200]
OLD = {"weight": "gamma", "bias": "beta"}
needs_native = pytest.mark.skipif(not backend("float32"), reason="this processor has no AVX2")


@pytest.fixture(params=list(DIRECT))
def folder(request: pytest.FixtureRequest, make_model: Callable[..., Any], tmp_path: Path) -> Path:
    """A family's tiny model, saved with the head of a masked language model's prefix and without."""
    save(make_model, request.param, tmp_path)
    return tmp_path


def save(make_model: Callable[..., Any], family: str, folder: Path) -> None:
    known, byte_level = FAMILIES[family], family in BYTE_LEVEL
    size = write_byte_level(folder) if byte_level else write_tokenizer(folder)
    special = {"pad_token_id": 1} if known.behind is not None else {}
    special |= {"embedding_size": 24} if known.projection else {}
    special |= {switch: True for switch in known.types.values() if switch}
    make_model(family, vocab_size=size, **special).save_pretrained(folder)
    if known.behind is not None and not byte_level:
        swap_first_two_tokens(folder / "tokenizer.json")


def write_byte_level(folder: Path) -> int:
    """RoBERTa's own kind of tokenizer, as its class saves it; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text for text, _ in make_reviews(200)], trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    RobertaTokenizer(vocab=model["vocab"], merges=merges).save_pretrained(folder)
    return len(model["vocab"])


@needs_native
@pytest.mark.parametrize("family", [name for name in DIRECT if name != "mpnet"])
def test_tokenizers_as_their_classes_save_them(make_model: Callable[..., Any], tmp_path: Path, family: str) -> None:
    from transformers import AutoTokenizer

    save(make_model, family, tmp_path)
    if family not in BYTE_LEVEL:
        edit(tmp_path / "tokenizer_config.json", lambda c: c.update(tokenizer_class=None, pad_token=None))
        edit(tmp_path / "tokenizer_config.json", lambda c: c.pop("cls_token"))
    direct = load_direct(tmp_path, 60, "float32")
    assert direct is not None
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert direct.tokenize(TEXTS).ids == [theirs(text, truncation=True, max_length=60)["input_ids"] for text in TEXTS]


def arrays(blueprint: Any) -> list[Any]:
    flat: list[Any] = []
    for value in dataclasses.astuple(blueprint):
        flat += arrays_of(value)
    return flat


def arrays_of(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in arrays_of(part)]
    return [value if isinstance(value, np.ndarray) or not hasattr(value, "numpy") else value.numpy()]


def test_the_weights_are_those_that_transformers_loads(folder: Path) -> None:
    from transformers import AutoModel

    config = json.loads((folder / "config.json").read_text())
    for length in (5, 66):
        direct = _read_blueprint(folder, config, FAMILIES[config["model_type"]], length)
        loaded = read_blueprint(AutoModel.from_pretrained(folder), length)
        assert direct is not None and loaded is not None
        for mine, theirs in zip(arrays(direct), arrays(loaded), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("buckets", [512])
def test_mpnets_distances_up_to_its_longest_text(make_model: Callable[..., Any], buckets: int) -> None:
    from embedcache.encoder.load_without_torch import _relative as direct
    from embedcache.encoder.read_model import _relative as loaded

    model = make_model("mpnet", pad_token_id=1)
    weight = model.encoder.relative_attention_bias.weight.detach()
    np.testing.assert_array_equal(direct(weight.numpy(), buckets), loaded(model, weight, buckets).numpy())


@needs_native
def test_vectors_are_the_same_to_the_bit(folder: Path) -> None:
    outputs = [("cls", -1), ("mean", 1)]
    encoder = Encoder.load(folder, max_length=60, dtype="float32", device="cpu")
    assert encoder._direct is not None and encoder.kernel == "native"
    full = encoder._load()
    tokens, wanted = encoder.tokenize(TEXTS), full.tokenize(TEXTS)
    assert tokens.ids == wanted.ids and tokens.truncated.tolist() == wanted.truncated.tolist()
    theirs = full.runner.run(wanted.ids, [("cls", 3), ("mean", 1)])
    for got, want in zip(encoder.encode_tokens(tokens, outputs), theirs, strict=True):
        np.testing.assert_array_equal(got, want)
    assert encoder._loaded is None
    assert (encoder.dim, encoder.layers) == (full.dim, full.layers)
    assert encoder.model.config.model_type and encoder.tokenizer.is_fast


@needs_native
def test_a_special_token_that_is_written_out_is_left_to_transformers(tiny_models: dict[str, Path]) -> None:
    texts = ["fine", "a [MASK] b", "[PAD] [CLS]", "brackets [ ] only", "fine too " * 50]
    for family in ("bert", "mpnet"):
        encoder = Encoder.load(tiny_models[family], max_length=20, dtype="float32", device="cpu")
        assert encoder._direct is not None
        tokens = encoder.tokenize(texts)
        assert encoder._loaded is not None
        wanted = encoder._all.tokenize(texts)
        assert tokens.ids == wanted.ids and tokens.truncated.tolist() == [False] * 4 + [True]
        mine = encoder.encode_tokens(tokens, [("cls", -1)])[0]
        theirs = [encoder._all.plain.run([row], [("cls", 2)])[0][0] for row in wanted.ids]
        np.testing.assert_allclose(mine, np.stack(theirs), atol=2e-5)


@needs_native
def test_nothing_heavy_is_imported(tiny_bert: Path) -> None:
    code = (
        "import sys; from embedcache.encoder import Encoder; "
        f"Encoder.load({str(tiny_bert)!r}, device='cpu', dtype='float32').encode_texts(['a film'], [('cls', -1)]); "
        "heavy = {'torch', 'transformers'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


CONFIG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "decoder": lambda c: c.update(is_decoder=True),
    "relative positions": lambda c: c.update(position_embedding_type="relative_key"),
    "own code": lambda c: c.update(auto_map={"AutoModel": "x.Y"}),
    "quantized": lambda c: c.update(quantization_config={"bits": 4}),
    "pruned": lambda c: c.update(pruned_heads={"0": [1]}),
    "unknown activation": lambda c: c.update(hidden_act="silu"),
    "more layers than weights": lambda c: c.update(num_hidden_layers=9),
    "another width": lambda c: c.update(hidden_size=16),
    "another family": lambda c: c.update(model_type="albert"),
    "no epsilon": lambda c: c.pop("layer_norm_eps"),
    "heads that do not divide": lambda c: c.update(num_attention_heads=5),
}
SETTINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another class": lambda c: c.update(tokenizer_class="XLNetTokenizer"),
    "another case": lambda c: c.update(tokenizer_class="BertTokenizer", do_lower_case=False),
    "accents": lambda c: c.update(tokenizer_class="BertTokenizer", strip_accents=True),
    "left": lambda c: c.update(truncation_side="left"),
    "never split": lambda c: c.update(never_split=["film"]),
    "more tokens": lambda c: c.update(additional_special_tokens=["[NEW]"]),
    "another cls": lambda c: c.update(cls_token="[SEP]"),
    "a token that is not there": lambda c: c.update(mask_token="<mask>"),
    "a setting of tomorrow": lambda c: c.update(shiny=True),
    "other added tokens": lambda c: c.update(added_tokens_decoder={"7": {"content": "[X]"}}),
}
PIPELINE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "normalizer": lambda c: c["normalizer"].update(clean_text=False),
    "another splitter": lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
    "another post-processor": lambda c: c.update(post_processor=None),
    "cls twice": lambda c: c["post_processor"]["single"].insert(0, c["post_processor"]["single"][0]),
    "long words": lambda c: c["model"].update(max_input_chars_per_word=200),
    "a token beyond the weights": lambda c: c["model"]["vocab"].update(zzz=9999),
    "no special flag": lambda c: c["added_tokens"][0].update(special=False),
}


@needs_native
@pytest.mark.parametrize(
    ("file", "change"),
    [
        *(pytest.param("config.json", change, id=name) for name, change in CONFIG.items()),
        *(pytest.param("tokenizer_config.json", change, id=name) for name, change in SETTINGS.items()),
        *(pytest.param("tokenizer.json", change, id=name) for name, change in PIPELINE.items()),
    ],
)
def test_whatever_is_unusual_is_left_to_transformers(bert_copy: Path, file: str, change: Callable[..., Any]) -> None:
    assert load_direct(bert_copy, 64, "float32") is not None
    edit(bert_copy / file, change)
    assert load_direct(bert_copy, 64, "float32") is None


def test_files_that_disagree_are_left_to_transformers(bert_copy: Path) -> None:
    for name, content in (("vocab.txt", "a\nb\n"), ("added_tokens.json", "{}"), ("tokenizer.json", "{")):
        kept = (bert_copy / name).read_bytes() if (bert_copy / name).exists() else None
        (bert_copy / name).write_text(content)
        assert load_direct(bert_copy, 64, "float32") is None
        (bert_copy / name).unlink()
        if kept is not None:
            (bert_copy / name).write_bytes(kept)
    (bert_copy / "special_tokens_map.json").write_text('{"cls_token": "[SEP]"}')
    assert load_direct(bert_copy, 64, "float32") is None
    assert load_direct(bert_copy, 5000, "float32") is None


@needs_native
def test_half_precision_and_old_names_of_weights(bert_copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(bert_copy / "model.safetensors")
    wanted = load_direct(bert_copy, 64, "float32")
    assert wanted is not None
    ids = wanted.tokenize(TEXTS).ids
    renamed = {
        re.sub("LayerNorm.(weight|bias)", lambda found: f"LayerNorm.{OLD[found[1]]}", f"bert.{name}"): value
        for name, value in weights.items()
    }
    save_file(renamed, bert_copy / "model.safetensors")
    direct = load_direct(bert_copy, 64, "float32")
    assert direct is not None
    np.testing.assert_array_equal(direct.runner.run(ids, [("cls", 2)])[0], wanted.runner.run(ids, [("cls", 2)])[0])
    save_file({name: value.astype(np.float16) for name, value in weights.items()}, bert_copy / "model.safetensors")
    half = load_direct(bert_copy, 64, "float32")
    encoder = Encoder.load(bert_copy, max_length=64, dtype="float32", device="cpu")
    assert half is not None
    np.testing.assert_array_equal(
        half.runner.run(ids, [("cls", 2)])[0], encoder._load().runner.run(ids, [("cls", 2)])[0]
    )
    save_file({name: value.astype(np.float64) for name, value in weights.items()}, bert_copy / "model.safetensors")
    assert load_direct(bert_copy, 64, "float32") is None
