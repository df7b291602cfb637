"""All tokens' vectors, as the last layers read them: those of plain transformers, on every kernel, of any batch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedcache.encoder import Encoder
from embedcache.encoder.token_vectors import KeepStates, states_layer
from embedcache.errors import EmbedcacheError
from tests.encoder.tiny_kinds import write_kind

TEXTS = ["a great film", "", "the worst story of the year, slow and dull " * 9, "never", "so good", "[PAD] is odd"]


def load(folder, kernel=None, **options) -> Encoder:
    try:
        return Encoder.load(folder, device="cpu", dtype="float32", max_length=40, kernel=kernel, **options)
    except EmbedcacheError:
        if kernel != "native":
            raise
        pytest.skip("the native encoder is not built, or not for this processor")


@torch.inference_mode()
def from_transformers(encoder: Encoder, layer: int) -> list[np.ndarray]:
    """Each text alone, without padding; nothing of a text without a token."""
    ids = encoder.tokenize(TEXTS).ids
    model = encoder.model.float()
    run = [model(input_ids=torch.tensor([row]), output_hidden_states=True) if row else None for row in ids]
    width = model.config.hidden_size
    return [np.empty((0, width)) if one is None else one.hidden_states[layer][0].numpy() for one in run]


def kept(encoder: Encoder, outputs, layer: int, batch_tokens: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The vectors of the outputs, and each text's tokens' vectors."""
    found = {}

    def keep(texts, values, offsets):
        assert values.dtype == np.float32 and len(values) == offsets[-1]
        for i, text in enumerate(texts.tolist()):
            found[text] = values[offsets[i] : offsets[i + 1]].copy()

    tokens = encoder.tokenize(TEXTS)
    vectors = encoder.encode_tokens(tokens, outputs, batch_tokens=batch_tokens, states=KeepStates(layer, keep))
    assert [len(found[i]) for i in range(len(TEXTS))] == tokens.lengths.tolist()
    return vectors, [found[i] for i in range(len(TEXTS))]


@pytest.mark.parametrize("kernel", ["native", "packed", "plain"])
def test_they_are_what_transformers_shows(tiny_bert, kernel):
    encoder = load(tiny_bert, kernel)
    outputs = [("mean", -1), ("cls", -1), ("mean", 1)]
    tokens = encoder.tokenize(TEXTS)
    for layer in range(2):
        wanted = from_transformers(encoder, layer)
        for some in (outputs, [], [("cls", -1)]):
            vectors, found = kept(encoder, some, layer, 60)
            for mine, theirs in zip(found, wanted, strict=True):
                assert np.abs(mine - theirs).max() < 2e-5
            alone = encoder.encode_tokens(tokens, some, batch_tokens=60) if some else []
            assert all(map(np.array_equal, vectors, alone)) and len(vectors) == len(alone) == len(some)


def test_a_causal_model_and_a_text_without_a_token(tmp_path):
    encoder = load(write_kind(tmp_path, "GPT2"))
    assert encoder.tokenize([""]).lengths.tolist() == [0]
    wanted = from_transformers(encoder, 1)
    vectors, found = kept(encoder, [("last", -1)], states_layer(encoder, 1), 60)
    alone = encoder.encode_tokens(encoder.tokenize(TEXTS), [("last", -1)], batch_tokens=60)
    assert np.array_equal(vectors[0], alone[0])
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape and np.allclose(mine, theirs, atol=2e-5)


def test_rows_that_would_see_padding_go_by_their_length(tiny_bert):
    encoder = load(tiny_bert, "plain")
    wanted, encoder._forward._sees_padding = kept(encoder, [], 1, 1000)[1], True
    for mine, theirs in zip(kept(encoder, [], 1, 1000)[1], wanted, strict=True):
        assert np.allclose(mine, theirs, atol=2e-5)


def test_which_layer_the_last_ones_read(tiny_bert):
    encoder = load(tiny_bert)
    assert [states_layer(encoder, last) for last in (1, 2)] == [1, 0]
    for last in (0, 3, -1):
        with pytest.raises(EmbedcacheError, match=f"--tokens {last}: .* has 2 layers"):
            states_layer(encoder, last)
    with pytest.raises(EmbedcacheError, match=r"no token states of .*--chunk.* leave --tokens out"):
        states_layer(load(tiny_bert, chunk=True), 1)


def test_a_static_model_has_no_layers():
    static = SimpleNamespace(kernel="static", source="/models/static")
    with pytest.raises(EmbedcacheError, match=r"no token states of /models/static: it is a static model"):
        states_layer(static, 1)


def test_layers_that_join_tokens_give_no_states(tiny_bert, monkeypatch):
    encoder = load(tiny_bert, "plain")
    whole = encoder._runner.run
    monkeypatch.setattr(encoder._runner, "run", lambda ids, outputs: [whole(ids, outputs)[0][::2]])
    with pytest.raises(EmbedcacheError, match="its layers join tokens"):
        states_layer(encoder, 1)
