"""The poolings, which turn the vectors of a text's tokens into one: a record each, from which everything else follows.

A record decides the choices and help of ``--pooling``, the table in docs/extraction.md, what every runner computes, the
lines in a run's model card, the Pooling module of an export, and the tests' cases.

Nothing here imports torch: the functions call methods of the tensors that they get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pooling:
    """One way to turn the vectors of a text's tokens into one.

    Attributes:
        help: what the vector is, for --help and the docs.
        pool: takes [n, L, D] of any float dtype and a mask [n, L] that is 0 at padding, or None where there is no
            padding; returns float32 [n, D].
        code: the same as lines of a model card, from ``hidden`` and ``inputs`` to ``vectors``.
        first_token: whether it is the first token's vector. Then the last layer is computed for that token only.
        native: its number in csrc/encoder/encoder.h; None: ``pool`` is called on the native encoder's token vectors.
        packed: as ``pool``, for all rows at once without padding: takes [T, D] of any float dtype, lengths int64 [n],
            each at least 1, and each token's place in its row, int [T]; returns float32 [n, D]. None: ``pool`` is
            called for each group of equal length.
        sentence_transformers: the setting that selects it in sentence-transformers' Pooling; None: there is none.
    """

    help: str
    pool: Callable[[Tensor, Tensor | None], Tensor]
    code: str
    first_token: bool = False
    native: int | None = None
    packed: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    sentence_transformers: str | None = None


def _cls(hidden: Tensor, mask: Tensor | None) -> Tensor:
    return hidden[:, 0].float()


def _mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden.float().mean(1)
    weight = mask.unsqueeze(-1).float()
    return (hidden.float() * weight).sum(1) / weight.sum(1)


def _max(hidden: Tensor, mask: Tensor | None) -> Tensor:
    hidden = hidden.float()
    return (hidden if mask is None else hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf"))).amax(1)


def _last(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden[:, -1].float()
    last = mask.cumsum(1).argmax(1)  # right for padding on either side
    return hidden.gather(1, last.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])).squeeze(1).float()


def _sqrt_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden.float().sum(1) / hidden.shape[1] ** 0.5
    weight = mask.unsqueeze(-1).float()
    return (hidden.float() * weight).sum(1) / weight.sum(1).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    hidden = hidden.float()
    mask = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.float()
    weight = (mask.cumsum(1) * mask).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1)


def _segments(tokens: Tensor, lengths: Tensor, how: str) -> Tensor:
    """Each row's "sum", "mean" or "max" in one kernel; ``unsafe`` skips a check of the lengths that would block."""
    import torch

    return torch.segment_reduce(tokens.float(), how, lengths=lengths, axis=0, unsafe=True)


def _packed_mean(tokens: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    return _segments(tokens, lengths, "mean")


def _packed_max(tokens: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    return _segments(tokens, lengths, "max")


def _packed_last(tokens: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    return tokens.index_select(0, lengths.cumsum(0) - 1).float()


def _packed_sqrt_mean(tokens: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    return _segments(tokens, lengths, "sum") / lengths[:, None].float().sqrt()


def _packed_weighted_mean(tokens: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
    weighted, n = tokens.float() * (places + 1)[:, None].float(), lengths[:, None].float()
    return _segments(weighted, lengths, "sum") / (n * (n + 1) / 2)


POOLINGS = {  # by the names that users give and caches keep
    "cls": Pooling(
        help="the first token's vector",
        pool=_cls,
        code="vectors = hidden[:, 0]",
        first_token=True,
        native=0,
        sentence_transformers="pooling_mode_cls_token",
    ),
    "mean": Pooling(
        help="the mean of all tokens' vectors",
        pool=_mean,
        code='mask = inputs["attention_mask"].unsqueeze(-1)\nvectors = (hidden * mask).sum(dim=1) / mask.sum(dim=1)',
        native=1,
        packed=_packed_mean,
        sentence_transformers="pooling_mode_mean_tokens",
    ),
    "max": Pooling(
        help="in each dimension the largest number of any token",
        pool=_max,
        code='mask = inputs["attention_mask"].unsqueeze(-1)\n'
        'vectors = hidden.masked_fill(mask == 0, float("-inf")).amax(dim=1)',
        native=2,
        packed=_packed_max,
        sentence_transformers="pooling_mode_max_tokens",
    ),
    "last": Pooling(
        help="the last token's vector",
        pool=_last,
        code='last = inputs["attention_mask"].cumsum(dim=1).argmax(dim=1)\n'
        "vectors = hidden[torch.arange(len(hidden)), last]",
        native=3,
        packed=_packed_last,
        sentence_transformers="pooling_mode_lasttoken",
    ),
    "sqrt_mean": Pooling(
        help="the sum of all tokens' vectors over the square root of their number",
        pool=_sqrt_mean,
        code='mask = inputs["attention_mask"].unsqueeze(-1)\n'
        "vectors = (hidden * mask).sum(dim=1) / mask.sum(dim=1).sqrt()",
        packed=_packed_sqrt_mean,
        sentence_transformers="pooling_mode_mean_sqrt_len_tokens",
    ),
    "weighted_mean": Pooling(
        help="the mean of all tokens' vectors, the k-th with weight k",
        pool=_weighted_mean,
        code='mask = inputs["attention_mask"]\nweight = (mask.cumsum(dim=1) * mask).unsqueeze(-1)\n'
        "vectors = (hidden * weight).sum(dim=1) / weight.sum(dim=1)",
        packed=_packed_weighted_mean,
        sentence_transformers="pooling_mode_weightedmean_tokens",
    ),
}
TOKEN_STATES = "tokens"  # no pooling: the vectors of all tokens, [T, D], one row's after another
MODEL = "model"  # the vector that the model's authors prescribe, made from these poolings: see ``prescription``


def find_pooling(name: str) -> Pooling:
    """The pooling of that name.

    Raises:
        EmbedcacheError: there is none; the message lists all poolings.
    """
    if name not in POOLINGS:
        raise EmbedcacheError(f"unknown pooling {name!r}: choose from {', '.join(POOLINGS)}")
    return POOLINGS[name]
