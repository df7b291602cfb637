"""The vectors called model are sentence-transformers' of the same folder; what is not understood is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoder import Encoder
from embedcache.encoder.prescription import MODES, in_words, read_prescription
from embedcache.errors import EmbedcacheError
from tests.conftest import make_reviews
from tests.encoder.sentence_folders import NEW, NORMALIZE, TANH, dense, layer_norm, make_folder, write_json

TEXTS = ["superb", *(text for text, _ in make_reviews(6)), "", "A DULL Film " * 40, "映画 🍿", " it is  (long) "]
MODEL = [("model", -1)]
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
PROMPTS = {"prompts": {"query": "find this: ", "document": ""}, "default_prompt_name": "query"}
NN = "torch.nn.modules."


def load(folder: Path, dims: int | None = None, **options: Any) -> Encoder:
    """The encoder as extract loads it for a new cache."""
    says = read_prescription(folder, str(folder))
    assert says is not None
    settings: dict[str, Any] = {"max_length": says.max_length, "prompt": says.prompt, "lower_case": says.lower_case}
    settings |= {"model": says.about(dims), "dtype": "float32", "device": "cpu"}
    return Encoder.load(folder, **(settings | options))


def theirs(folder: Path, **options: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(TEXTS, batch_size=4, show_progress_bar=False, **options))


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    lengths = np.linalg.norm(found, axis=1), np.linalg.norm(wanted, axis=1)
    cosines = (found.astype(np.float64) * wanted).sum(1) / (lengths[0] * lengths[1])
    assert cosines.min() > 0.999999
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.ptp(wanted, axis=0).max() > 1e-3, "texts that all get the same would prove nothing"


FOLDERS: dict[str, tuple[Any, ...]] = {
    **{f"old {mode}": ({key: True, "pooling_mode_mean_tokens": mode == "mean"},) for mode, (key, _) in MODES.items()},
    "new, two modes in their order": ({"embedding_dimension": 32, "pooling_mode": ["lasttoken", "mean"]},),
    "old, two modes": ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True},),
    "no mode": ({"word_embedding_dimension": 32},),
    "dense": (MEAN, dense(32, 16)),
    "dense, activation not said": (MEAN, dense(32, 16, None)),
    **{
        f"dense, {name}": (MEAN, dense(32, 8, NN + name, bias=False))
        for name in ("linear.Identity", "activation.ReLU", "activation.GELU", "activation.Sigmoid", "activation.SiLU")
    },
    "residual": (MEAN, dense(32, 32, use_residual=True), dense(32, 12, use_residual=True)),
    "norm": (MEAN, layer_norm(32), ("Dropout", {"dropout": 0.3}, {}), NORMALIZE),
    "the whole chain": (MEAN, dense(32, 24), layer_norm(24), dense(24, 16, NN + "linear.Identity"), NORMALIZE),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_poolings_and_what_follows(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path, *FOLDERS[name])
    assert_same(load(folder).encode_texts(TEXTS, MODEL)[0], theirs(folder))


@pytest.mark.parametrize(
    "how",
    [
        {"inner": "0_Transformer"},
        {"spelling": NEW.replace(".x.", ".transformer.")},
        {"settings": {"max_seq_length": 20, "do_lower_case": False}},
        {"settings": {"do_lower_case": True}},
        {"config": PROMPTS},
        {"config": {"truncate_dim": 9, "similarity_fn_name": "dot", "prompts": {"passage": "passage: "}}},
        {"config": {**PROMPTS, "truncate_dim": 9}, "settings": {"max_seq_length": 17}, "inner": "0_Transformer"},
    ],
    ids=str,
)
def test_the_folders_other_settings(how: dict[str, Any], tiny_bert: Path, tmp_path: Path) -> None:
    """Over texts of which some are cut; in lower case although the tokenizer keeps cases."""
    folder = make_folder(tiny_bert, tmp_path, MEAN, NORMALIZE, **how)
    inner = folder / how.get("inner", "")
    tokenizer = json.loads((inner / "tokenizer.json").read_text())
    write_json(inner / "tokenizer.json", tokenizer | {"normalizer": {**tokenizer["normalizer"], "lowercase": False}})
    config = json.loads((inner / "tokenizer_config.json").read_text())
    write_json(inner / "tokenizer_config.json", config | {"model_max_length": 40})
    if "spelling" in how:  # classes of today lie in modules of their own
        modules = json.loads((folder / "modules.json").read_text())
        for module, place in zip(modules, ("base.modules.transformer", "sentence_transformer.modules.pooling",
                                           "base.modules.normalize"), strict=True):  # fmt: skip
            module["type"] = f"sentence_transformers.{place}.{module['type'].rpartition('.')[2]}"
        write_json(folder / "modules.json", modules)
    encoder = load(folder)
    assert encoder.max_length == how.get("settings", {}).get("max_seq_length", 40)
    assert_same(encoder.encode_texts(TEXTS, MODEL)[0], theirs(folder))


@pytest.mark.parametrize("family", ["roberta", "mpnet", "distilbert"])
@pytest.mark.parametrize("kernel", ["native", "plain"])
def test_families_and_kernels(family: str, kernel: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    both = {"embedding_dimension": 32, "pooling_mode": ["weightedmean", "cls", "lasttoken"]}
    folder = make_folder(tiny_models[family], tmp_path, both, dense(96, 16), NORMALIZE, settings={"max_seq_length": 40})
    from embedcache.encoder.runner_native import backend

    if kernel == "native" and not backend("float32"):
        pytest.skip("this processor has no AVX2")
    assert_same(load(folder, kernel=kernel).encode_texts(TEXTS, MODEL)[0], theirs(folder))


def test_the_same_bits_in_any_batch(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path, MEAN, dense(32, 16), layer_norm(16), NORMALIZE)
    encoder = load(folder)
    if not encoder.invariant:
        pytest.skip("this processor has no native kernel")
    (together,) = encoder.encode_texts(TEXTS, MODEL)
    alone = np.concatenate([encoder.encode_texts([text], MODEL)[0] for text in TEXTS])
    assert np.array_equal(together, alone)
    beside = encoder.encode_texts(TEXTS, [("cls", 1), *MODEL, ("mean", -1)])
    assert np.array_equal(beside[1], together) and beside[0].shape == (len(TEXTS), 32)


def test_cut_to_fewer_dimensions(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path, MEAN, dense(32, 24))
    found = load(folder, 10).encode_texts(TEXTS, MODEL)[0]
    assert_same(found, theirs(folder, truncate_dim=10, normalize_embeddings=True))
    with pytest.raises(EmbedcacheError, match=r"--dims 25: the vectors of .* are 24 wide"):
        load(folder, 25)


def test_half_precision_weights_of_a_dense(tiny_bert: Path, tmp_path: Path) -> None:
    """bfloat16, which NumPy does not have."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = make_folder(tiny_bert, tmp_path, MEAN, dense(32, 24))
    path = folder / "2_Dense" / "model.safetensors"
    save_file({name: weight.to(torch.bfloat16) for name, weight in load_file(path).items()}, path)
    assert_same(load(folder).encode_texts(TEXTS, MODEL)[0], theirs(folder))


def test_a_folder_that_says_nothing(tiny_bert: Path) -> None:
    assert read_prescription(tiny_bert, "it") is None


def change(folder: Path, path: str, **values: Any) -> None:
    there = json.loads((folder / path).read_text()) if (folder / path).exists() else {}
    write_json(folder / path, {**there, **values})


def edit_modules(folder: Path, number: int, **values: Any) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[number] |= values
    write_json(folder / "modules.json", modules)


REFUSED: dict[str, tuple[Any, str]] = {
    "a module of another kind": (
        lambda f: edit_modules(f, 2, type="sentence_transformers.models.LSTM"),
        "modules.json asks for sentence_transformers.models.LSTM, which is not supported",
    ),
    "the model's own code": (
        lambda f: edit_modules(f, 2, type="custom_st.Gate"),
        "modules.json asks for custom_st.Gate, which is not supported",
    ),
    "no pooling": (
        lambda f: edit_modules(f, 1, type="sentence_transformers.models.Normalize"),
        "lists Transformer, Normalize, Dense, Normalize",
    ),
    "a pooling that is none": (lambda f: change(f, "1_Pooling/config.json", pooling_mode="best"), "pooling 'best'"),
    "a prompt that is not pooled": (
        lambda f: (change(f, "1_Pooling/config.json", include_prompt=False),
                   change(f, "config_sentence_transformers.json", **PROMPTS)),
        "leaves the prompt's tokens out of the pooling",
    ),
    "pooling settings that are missing": (
        lambda f: (f / "1_Pooling" / "config.json").unlink(), "1_Pooling/config.json is missing",
    ),
    "an activation of the model's own": (
        lambda f: change(f, "2_Dense/config.json", activation_function="os.system"), "unknown activation os.system",
    ),
    "a Dense of tokens": (
        lambda f: change(f, "2_Dense/config.json", module_input_name="token_embeddings"),
        "2_Dense works on token_embeddings",
    ),
    "pickled weights": (
        lambda f: (f / "2_Dense" / "model.safetensors").rename(f / "2_Dense" / "pytorch_model.bin"),
        "2_Dense/model.safetensors has only pickled weights",
    ),
    "a setting of the Transformer": (
        lambda f: change(f, "sentence_bert_config.json", model_args={"attn_implementation": "eager"}),
        'sentence_bert_config.json has model_args={"attn_implementation": "eager"}, which is not supported',
    ),
    "another type of model": (
        lambda f: change(f, "config_sentence_transformers.json", model_type="SparseEncoder"), "is a SparseEncoder",
    ),
    "a default prompt that is none": (
        lambda f: change(f, "config_sentence_transformers.json", prompts={}, default_prompt_name="q"),
        "its default prompt 'q' is not among its prompts",
    ),
    "a cut to nothing": (
        lambda f: change(f, "config_sentence_transformers.json", truncate_dim=0), "truncate_dim is 0, not a positive",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_named(what: str, tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path, MEAN, dense(32, 16), NORMALIZE)
    spoil, said = REFUSED[what]
    spoil(folder)
    with pytest.raises(EmbedcacheError) as caught:
        read_prescription(folder, "it")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ("{", "modules.json: not a list of modules"),
        ('{"a": 1}', "modules.json: not a list of modules"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": "../x"}]', "leads out of the folder"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": "/etc"}]', "leads out of the folder"),
        ('[{"type": "sentence_transformers.models.WordEmbeddings", "path": ""}]', "starts with WordEmbeddings"),
    ],
)
def test_broken_lists_of_modules(modules: str, said: str, bert_copy: Path) -> None:
    (bert_copy / "modules.json").write_text(modules)
    with pytest.raises(EmbedcacheError, match=said):
        Encoder.load(bert_copy, device="cpu")


def test_weights_that_do_not_fit(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path, MEAN, dense(31, 16), NORMALIZE)
    with pytest.raises(EmbedcacheError, match="the weights of its dense do not fit its vectors"):
        load(folder)
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"not json")
    with pytest.raises(EmbedcacheError, match=r"2_Dense/model\.safetensors is damaged"):
        load(folder)


def test_a_folder_that_changed_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path, MEAN, dense(32, 16, TANH), NORMALIZE)
    about = load(folder).prescribed.about  # type: ignore[union-attr]
    assert in_words(about) == "mean, Dense to 16 (Tanh), unit length"
    change(folder, "2_Dense/config.json", activation_function=NN + "activation.ReLU")
    with pytest.raises(
        EmbedcacheError, match=r"says mean, Dense to 16 \(ReLU\), .*but these vectors were made differently"
    ):
        load(folder, model=about)
