"""DeBERTa's disentangled attention (He et al., 2021): scores that depend on distances by what is at both ends.

    s_ij = (q_i . k_j + q_i . Kr_d + k_j . Qr_d) / sqrt(3 d_head),    d = bucket of j - i

Kr and Qr are the layer's own key and query matrices on the embeddings of the buckets: the same for every text, so they
are multiplied once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embedcache.encoder.blueprint import Affine, Blueprint, Distances


def with_distances(blueprint: Blueprint, embedding: Tensor, norm: Affine, config: Any, max_length: int) -> Blueprint:
    """The blueprint of a DeBERTa with what it multiplies queries and keys by, in float32.

    Args:
        blueprint: of the rest.
        embedding: of the buckets, [B, D], from the farthest key behind the query to the farthest before it.
        norm: its LayerNorm.
        config: of the model.
        max_length: the most tokens of a row.
    """
    table = functional.layer_norm(
        embedding.float(), embedding.shape[1:], norm[0].float(), norm[1].float(), blueprint.epsilon
    ).flip(0)  # so that the key's place ascends

    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    # As DisentangledSelfAttention counts: from the key to the query.
    buckets, most = (getattr(config, name, -1) for name in ("position_buckets", "max_relative_positions"))
    most = most if most > 0 else config.max_position_embeddings
    span = buckets if buckets > 0 else most
    distance = torch.arange(max_length - 1, -max_length, -1)
    if buckets > 0:
        distance = make_log_bucket_position(distance, span, most).long()
    row = (distance + span).clamp(0, 2 * span - 1)
    key, query = (
        [functional.linear(table, weight.float(), bias.float()) for weight, bias in pairs]
        for pairs in ([layer.key for layer in blueprint.layers], [layer.query for layer in blueprint.layers])
    )
    return replace(blueprint, distances=Distances((len(embedding) - 1 - row).int(), key, query))
