"""A folder that transformers' AutoModelForSequenceClassification opens: where its own classifier can compute our head.

Every family's classifier reads the first token's vector through one dense layer and an activation, then a linear layer.
Where the activation is a ReLU, a head of hidden units fits in, and a linear one as the difference of two halves. Where
it is tanh, a linear head passes through it at so small a scale that tanh is the identity to float32 rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from embedcache.errors import EmbedcacheError
from embedcache.export.model import TextModel

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

TANH, RELU = "tanh", "relu"
# model_type -> names of the dense layer and of the last one, and the activation between them.
CLASSIFIERS = {
    "bert": ("bert.pooler.dense", "classifier", TANH),
    "ernie": ("ernie.pooler.dense", "classifier", TANH),
    "roberta": ("classifier.dense", "classifier.out_proj", TANH),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", TANH),
    "camembert": ("classifier.dense", "classifier.out_proj", TANH),
    "mpnet": ("classifier.dense", "classifier.out_proj", TANH),
    "distilbert": ("pre_classifier", "classifier", RELU),
}
SMALL = 1e-4  # tanh(1e-4 x) is 1e-4 x to a part in 3e8 x^2
INSTEAD = "use --to sentence-transformers, torch or onnx"


def write_classifier(part: Path, model: TextModel, encoder: Encoder) -> None:
    """Weights and configuration. Raises EmbedcacheError as ``make_classifier``."""
    make_classifier(model, encoder).save_pretrained(part, safe_serialization=True)


def make_classifier(model: TextModel, encoder: Encoder) -> Any:
    """The family's own classifier, with the weights of encoder and head.

    Raises:
        EmbedcacheError: it cannot compute what this run does.
    """
    from transformers import AutoModelForSequenceClassification

    kind = encoder.identity["architecture"]
    linear = [module for module in model.head if isinstance(module, nn.Linear)]
    _check(kind, model, linear)
    config = encoder.model.config
    config.num_labels = linear[-1].out_features
    whole: Any = AutoModelForSequenceClassification.from_config(config)
    inner = getattr(whole, whole.base_model_prefix)
    missing = inner.load_state_dict(model.encoder.state_dict(), strict=False).missing_keys
    if [name for name in missing if "pooler" not in name]:
        raise EmbedcacheError(f"the weights of {encoder.source} do not fit transformers' classifier: {INSTEAD}")
    first, last, activation = CLASSIFIERS[kind]
    dense, out = _through(linear, encoder.dim, activation)
    _put(whole.get_submodule(first), *dense)
    _put(whole.get_submodule(last), *out)
    return whole.eval()


def _check(kind: str, model: TextModel, linear: list[nn.Linear]) -> None:
    if not model.reads_last:
        raise EmbedcacheError(f"this head reads an inner layer, and a {kind} classifier the last one: {INSTEAD}")
    if model.poolings != ["cls"] or len(model.after):
        raise EmbedcacheError(
            "transformers' classifiers read the first token's vector, and this head another one: train on --pooling "
            f"cls, or {INSTEAD}"
        )
    if kind not in CLASSIFIERS:
        raise EmbedcacheError(f"--to transformers is for {', '.join(CLASSIFIERS)}, not for {kind}: {INSTEAD}")
    first, width = linear[0], linear[0].in_features
    if len(linear) > 1 and CLASSIFIERS[kind][2] == TANH:
        raise EmbedcacheError(
            f"transformers' {kind} classifier has a tanh where this head has ReLUs: train with --hidden 0, or {INSTEAD}"
        )
    if len(linear) > 1 and first.out_features > width:
        raise EmbedcacheError(
            f"transformers' {kind} classifier has {width} hidden units, and this head {first.out_features}: train with "
            f"--hidden {width} or less, or {INSTEAD}"
        )
    if len(linear) == 1 and CLASSIFIERS[kind][2] == RELU and 2 * first.out_features > width:
        raise EmbedcacheError(f"{first.out_features} classes are too many for a {kind} classifier: {INSTEAD}")


def _through(
    linear: list[nn.Linear], width: int, activation: str
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(weight, bias) of the dense layer and of the last one."""
    w, b = (one.detach() for one in (linear[-1].weight, linear[-1].bias))
    if activation == TANH:
        return (SMALL * torch.eye(width), torch.zeros(width)), (w / SMALL, b)
    weight, bias, out = torch.zeros(width, width), torch.zeros(width), torch.zeros(len(w), width)
    if len(linear) > 1:
        hidden = linear[0].out_features
        weight[:hidden], bias[:hidden], out[:, :hidden] = linear[0].weight, linear[0].bias, w
        return (weight, bias), (out, b)
    n = len(w)  # z = relu(z) - relu(-z)
    weight[:n], weight[n : 2 * n] = w, -w
    out[:, :n], out[:, n : 2 * n] = torch.eye(n), -torch.eye(n)
    return (weight, bias), (out, b)


@torch.no_grad()
def _put(module: Any, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)
    module.bias.copy_(bias)
