"""The native code of rotary families gives plain transformers' vectors, for every layer and pooling, in any batch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from embedcache.encoder import Encoder, runner
from embedcache.encoder.poolings import POOLINGS
from embedcache.encoder.read_rotary import read_rotary
from embedcache.encoder.rotary_families import ROTARY_FAMILIES
from embedcache.encoder.runner import choose_runner
from embedcache.encoder.runner_native import TOKENS, backend
from embedcache.encoder.runner_plain import Plain
from embedcache.encoder.runner_rotary import RotaryEncoder
from embedcache.encoder.token_rows import TokenRows
from embedcache.errors import EmbedcacheError, InputNote
from tests.conftest import write_tokenizer
from tests.encoder.rotary_kinds import CASES, make_rotary, some_rows

ROOT = Path(__file__).resolve().parents[2]
needs_native = pytest.mark.skipif(not backend("float32"), reason="this processor has no AVX2")
needs_bfloat16 = pytest.mark.skipif(not backend("bfloat16"), reason="this processor has no AVX512-BF16")
pytestmark = needs_native
# Shorter and longer than every window, than a block of queries (48), of tokens (192), and of keys (512).
LENGTHS = [5, 1, 17, 64, 2, 97, 530, 5]
ROWS = some_rows(LENGTHS)
MAX_LENGTH = 700
OFTEN = (
    "modernbert",
    "modernbert, odd sizes",
    "gte",
    "qwen3",
    "gemma3_text, both ways",
    "qwen2, local at the end",
    "mistral",
)
MOST = [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.slow) for kind in CASES]


@cache
def case(kind: str) -> tuple[Any, list[tuple[str, int]], list[np.ndarray]]:
    """(model, all outputs, what plain transformers gives for each row alone)."""
    model = make_rotary(kind)
    layers = model.config.num_hidden_layers
    outputs = [(pooling, layer) for layer in (layers, 0, 1) for pooling in POOLINGS]
    oracle = Plain(model, 0, "cpu")
    alone = [oracle.run([row], outputs) for row in ROWS]
    return model, outputs, [np.concatenate(vectors) for vectors in zip(*alone, strict=True)]


def native(model: Any, dtype: str = "float32", max_length: int = MAX_LENGTH) -> RotaryEncoder:
    blueprint = read_rotary(model, max_length)
    assert blueprint is not None
    return RotaryEncoder(blueprint, dtype)


def least_cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    both = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found.astype(np.float64) * wanted).sum(1) / both).min())


def test_every_family_has_a_case() -> None:
    assert {make_rotary(kind).config.model_type for kind in ROTARY_FAMILIES} == set(ROTARY_FAMILIES)


@pytest.mark.parametrize("isa", ["", pytest.param("avx512", marks=pytest.mark.slow), "avx2", "plain"])
@pytest.mark.parametrize("kind", MOST)
def test_vectors_are_those_of_transformers(kind: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_ISA", isa)
    model, outputs, wanted = case(kind)
    for got, want in zip(native(model).run(ROWS, outputs), wanted, strict=True):
        assert (got.dtype, got.shape) == (np.float32, want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5 * np.abs(want).max())
        assert least_cosine(got, want) > 0.999999


@needs_bfloat16
@pytest.mark.parametrize("kind", MOST)
def test_bfloat16_is_as_close_as_torch_in_bfloat16(kind: str) -> None:
    model, outputs, wanted = case(kind)
    found = native(model, "bfloat16").run(ROWS, outputs)
    rounded = make_rotary(kind).bfloat16()
    theirs = [Plain(rounded, 0, "cpu").run([row], outputs) for row in ROWS]
    for got, other, want in zip(found, zip(*theirs, strict=True), wanted, strict=True):
        ours, torchs = np.abs(got - want), np.abs(np.concatenate(other) - want)
        assert np.sqrt((ours**2).mean()) <= 1.1 * np.sqrt((torchs**2).mean()) + 1e-6


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("kind", ["modernbert", "gemma3_text, both ways", "qwen3"])
def test_a_rows_bits_depend_on_nothing_else(kind: str, dtype: str) -> None:
    """Not on its batch, nor on which other vectors are asked for: the last layer for one row of each text alone."""
    model, outputs, _ = case(kind)
    encoder, layers = native(model, dtype), model.config.num_hidden_layers
    together = dict(zip(outputs, encoder.run(ROWS, outputs), strict=True))
    (tokens,) = encoder.run_codes(TokenRows.of(ROWS), [(TOKENS, layers)])
    ends = np.cumsum(LENGTHS)
    np.testing.assert_array_equal(tokens[ends - 1], together["last", layers])
    np.testing.assert_array_equal(tokens[ends - LENGTHS], together["cls", layers])
    for pooling in ("cls", "last"):
        alone = [(pooling, layers)]
        np.testing.assert_array_equal(encoder.run(ROWS, alone)[0], together[pooling, layers])
        for i, row in enumerate(ROWS):
            np.testing.assert_array_equal(encoder.run([row], alone)[0][0], together[pooling, layers][i])
    both = encoder.run(ROWS[::-1], [("cls", layers), ("last", layers), ("mean", 1)])
    for (pooling, layer), vectors in zip([("cls", layers), ("last", layers), ("mean", 1)], both, strict=True):
        np.testing.assert_array_equal(vectors[::-1], together[pooling, layer])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_8192_tokens(kind: str) -> None:
    model = make_rotary(kind, max_position_embeddings=8192, num_hidden_layers=2)
    rows, outputs = some_rows([8192, 3, 8191]), [("mean", 2), ("cls", 2), ("last", 2)]
    wanted = [Plain(model, 0, "cpu").run([row], outputs) for row in rows]
    found = native(model, max_length=8192).run(rows, outputs)
    for got, want in zip(found, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(got, np.concatenate(want), rtol=1e-5, atol=2e-5 * np.abs(got).max())


def choose(model: Any, kernel: str | None = None, dtype: str = "float32") -> Any:
    return choose_runner(model, Plain(model, 0, "cpu"), 60, "cpu", kernel, dtype)[0]


def test_the_runner_is_chosen_by_itself() -> None:
    chosen = choose(make_rotary("qwen3"))
    assert (chosen.kernel, chosen.invariant, chosen.causal) == ("native", True, True)
    assert not choose(make_rotary("modernbert")).causal
    assert choose(make_rotary("modernbert"), "plain").kernel == "plain"
    with pytest.raises(EmbedcacheError, match="the kernel 'packed' cannot run this modernbert encoder"):
        choose(make_rotary("modernbert"), "packed")


def test_vectors_unlike_transformers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a version of transformers read a setting in another way than this code does."""
    model = make_rotary("qwen3")
    read = read_rotary(model, 60)
    assert read is not None
    read.layers[1].norms["before_glu"] = (read.layers[1].norms["before_glu"][0] * 1.5, None)
    monkeypatch.setattr(runner, "read_rotary", lambda *_: read)
    with pytest.warns(InputNote, match="native code for qwen3 gives other vectors"):
        assert choose(model).kernel == "plain"
    with pytest.warns(InputNote), pytest.raises(EmbedcacheError, match="the kernel 'native' cannot run"):
        choose(model, "native")


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("modernbert", {"hidden_activation": "tanh"}),
        ("modernbert", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("qwen3", {"is_causal": False}),
        ("gemma3_text", {"attn_logit_softcapping": 5.0}),
        ("gemma3_text, both ways", {"is_causal": False}),
    ],
)
def test_what_is_not_known_is_left_to_transformers(kind: str, changes: dict[str, Any]) -> None:
    assert read_rotary(make_rotary(kind, **changes), 60) is None


def other_epsilon(model: Any) -> None:
    model.layers[1].mlp_norm.eps = 1e-3


def adapter(model: Any) -> None:
    model.layers[1].adapter = torch.nn.Linear(64, 64)


def other_linear(model: Any) -> None:
    model.layers[1].mlp.Wo.__class__ = type("Quantized", (torch.nn.Linear,), {})


def two_dtypes(model: Any) -> None:
    model.layers[1].bfloat16()


def no_norm_there(model: Any) -> None:
    model.layers[1].mlp_norm = None


def subclass(model: Any) -> None:
    model.__class__ = type("ModernBertModel", (type(model),), {"__module__": "somewhere.else"})


@pytest.mark.parametrize("change", [other_epsilon, adapter, other_linear, two_dtypes, no_norm_there, subclass])
def test_what_was_changed_is_left_to_transformers(change: Any) -> None:
    model = make_rotary("modernbert")
    change(model)
    assert read_rotary(model, 60) is None


@pytest.mark.parametrize("kind", ["nomic_bert", "qwen3"])
def test_a_folder(kind: str, tmp_path: Path) -> None:
    """From its files, NomicBERT's in its authors' layout, which names Python code: transformers' own class reads it."""
    vocabulary = write_tokenizer(tmp_path, 128)
    make_rotary(kind, vocab_size=vocabulary, max_position_embeddings=128).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    if kind == "nomic_bert":
        assert any("attn.Wqkv" in name for name in load_file(tmp_path / "model.safetensors"))
        config["auto_map"] = {"AutoConfig": "own--code.Config", "AutoModel": "own--code.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    texts, outputs = ["a superb film", "dull " * 70], [("mean", -1), ("last", -1)]
    encoders = [Encoder.load(tmp_path, max_length=60, device="cpu", kernel=kernel) for kernel in (None, "plain")]
    assert [(one.kernel, one.compute_dtype) for one in encoders] == [("native", "float32"), ("plain", "float32")]
    assert bool(encoders[0].no_cls) == bool(encoders[1].no_cls) == (kind == "qwen3")
    for got, want in zip(*(one.encode_texts(texts, outputs) for one in encoders), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5 * np.abs(want).max())


def test_the_page_lists_the_families() -> None:
    lines = ["| family | `model_type` |", "| --- | --- |"]
    lines += [f"| {family.title} | `{name}` |" for name, family in ROTARY_FAMILIES.items()]
    table = "\n".join(lines)
    page = (ROOT / "docs" / "extraction.md").read_text("utf-8")
    assert f"<!-- rotary -->\n{table}\n<!-- end -->" in page, f"docs/extraction.md should have\n{table}"
