"""Rows that would see their batch's padding are found when a model is loaded, whatever its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoder import Encoder
from embedcache.encoder.row_check import sees_padding
from embedcache.errors import EmbedcacheError
from tests.conftest import make_reviews, write_tokenizer

TEXTS = [text for text, _ in make_reviews(9)]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "max_position_embeddings": 64, "initializer_range": 0.2}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "FNet": ({}, True),
    "ConvBert": ({"embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3}, True),
    "MobileBert": ({"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32}, True),
    "Albert": ({"embedding_size": 16, "inner_group_num": 2}, False),
    "RoFormer": ({"embedding_size": 32}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_what_it_is_alone(kind: str, tmp_path: Path) -> None:
    import torch
    import transformers

    more, sees = KINDS[kind]
    settings = {**SIZES, "vocab_size": write_tokenizer(tmp_path, 64), "pad_token_id": 0, **more}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    torch.nn.init.normal_(model.get_input_embeddings().weight)  # the pad token's too, as in trained models
    model.save_pretrained(tmp_path)
    encoder = Encoder.load(tmp_path, max_length=64, dtype="float32", device="cpu")
    assert encoder.kernel == "plain" and encoder.sees_padding == sees
    outputs = [("cls", -1), ("mean", 1)]
    together = encoder.encode_texts(TEXTS, outputs)
    alone = [encoder.encode_texts([text], outputs) for text in TEXTS]
    for k, found in enumerate(together):
        wanted = np.concatenate([one[k] for one in alone])
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_rows_that_see_each_other_are_refused() -> None:
    class Tokens:
        ids = ([1, 2, 3], [1, 2, 3, 4, 5])

    def run(ids: Any, outputs: Any) -> list[np.ndarray]:
        return [np.full((len(ids), 4), float(len(ids))) for _ in outputs]

    with pytest.raises(EmbedcacheError, match="it: a text's vector depends on the other texts"):
        sees_padding(run, lambda texts: Tokens, 2, "float32", "it")
