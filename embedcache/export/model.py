"""The encoder, the pooling and the head as one torch module, and that module as a torch.export program."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from embedcache.common.outputs import Layer, parts_of
from embedcache.encoder.after_pooling_torch import after_pooling
from embedcache.encoder.load_with_transformers import quiet
from embedcache.encoder.poolings import MODEL, POOLINGS
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of

if TYPE_CHECKING:
    from embedcache.encoder import Encoder
    from embedcache.heads.head import TrainedHead


class TextModel(nn.Module):
    """Token ids to logits.

    Attributes:
        poolings: of each part of the vector, in their order.
        layers: which of the encoder's hidden states each part is read of; None is its last.
        may_be_empty: whether the tokenizer makes no token of an empty text, whose pooled vector is 0 then.
    """

    may_be_empty = False

    def __init__(
        self,
        encoder: Any,
        reads: Sequence[tuple[str, int | None]],
        after: nn.Sequential,
        head: nn.Sequential,
    ) -> None:
        """``reads``: (pooling, layer), joined. ``after``: what a prescribed vector goes through; may be empty."""
        super().__init__()
        self.encoder: Any = encoder
        self.after: nn.Sequential = after
        self.head: nn.Sequential = head
        self.poolings, self.layers = [name for name, _ in reads], [layer for _, layer in reads]

    @property
    def reads_last(self) -> bool:
        """Whether the encoder's last hidden state is all that is read."""
        return set(self.layers) == {None}

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """int64 [batch, sequence] each; returns float32 [batch, outputs]."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        result = self.encoder(**inputs, output_hidden_states=not self.reads_last, return_dict=True)
        hidden = [result.last_hidden_state if one is None else result.hidden_states[one] for one in self.layers]
        parts = zip(self.poolings, hidden, strict=True)
        pooled = torch.cat([POOLINGS[name].pool(states, attention_mask) for name, states in parts], dim=1)
        if self.may_be_empty:
            pooled = pooled.masked_fill(attention_mask.sum(1, keepdim=True) == 0, 0)
        logits: torch.Tensor = self.head(self.after(pooled))
        return logits


def make_model(encoder: Encoder, head: TrainedHead, pooling: str, layer: Layer, texts: Sequence[str]) -> TextModel:
    """Encoder and head; without the layers above those read, where the encoder is the same without them on the texts.

    In some architectures (ModernBERT) more follows the last layer; there all layers stay.
    """
    modules = list(head.to_torch())
    if kind_of(head.kind).has_classes:
        del modules[-1]  # logits, not log-probabilities
    parts = [(name, encoder.layer_number(one)) for name, one in parts_of(pooling, layer)]
    model, last = encoder.model, encoder.layers
    highest = max(one for _, one in parts)
    if highest < last and (short := _without_upper_layers(encoder, highest, texts)) is not None:
        model, last = short, highest
    prescribed = encoder.prescribed if pooling == MODEL else None
    after = nn.Sequential(*([] if prescribed is None else after_pooling(prescribed)))
    if prescribed is not None:
        parts = [(name, highest) for name in prescribed.pooling]
    reads = [(name, None if one == last else one) for name, one in parts]
    whole = TextModel(model, reads, after, nn.Sequential(*modules))
    whole.may_be_empty = not encoder.tokenize([""]).lengths[0]
    return whole.eval().requires_grad_(False)


def _without_upper_layers(encoder: Encoder, layer: int, texts: Sequence[str]) -> Any:
    """A copy of the encoder's model that ends after that layer, or None where that is not the same."""
    config = copy.deepcopy(encoder.model.config)
    ids, mask = encoder.pad(encoder.tokenize(texts).ids)
    inputs = {"input_ids": ids, "attention_mask": mask, "return_dict": True}
    try:
        config.num_hidden_layers = layer
        short = type(encoder.model)(config).eval().requires_grad_(False)
        missing = short.load_state_dict(encoder.model.state_dict(), strict=False).missing_keys
        with torch.inference_mode():
            wanted = encoder.model(**inputs, output_hidden_states=True).hidden_states[layer][mask.bool()]
            found = short(**inputs).last_hidden_state[mask.bool()]
    except Exception:  # a configuration that checks itself, a model that divides by its depth: whatever it raises
        return None
    return short if not missing and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5) else None


def input_names(encoder: Encoder) -> list[str]:
    """What the exported model reads: what the tokenizer gives and the encoder takes."""
    takes = inspect.signature(encoder.model.forward).parameters
    types = "token_type_ids" in encoder.tokenizer.model_input_names and "token_type_ids" in takes
    return ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]


def make_program(model: TextModel, encoder: Encoder, texts: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """(torch.export program, its dynamic shapes): any batch, sequences up to the encoder's max_length."""
    ids, mask = encoder.pad(encoder.tokenize(texts).ids)
    names = input_names(encoder)
    inputs = dict(zip(names, (ids, mask, torch.zeros_like(ids)), strict=False))
    batch, sequence = torch.export.Dim("batch", max=2**31 - 1), torch.export.Dim("sequence", max=encoder.max_length)
    shapes = {name: {0: batch, 1: sequence} for name in names}
    with torch.no_grad():
        return torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False), shapes


@contextmanager
def exporting(to: str, encoder: Encoder) -> Iterator[None]:
    """Keep the exporters' advice off the screen; what they raise becomes one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet():
            yield
    except (EmbedcacheError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None:  # a full disk and its like; transformers has OSErrors of its own without a number
            raise
        raise _refused(to, encoder, error) from error
    except Exception as error:  # tracers raise anything
        raise _refused(to, encoder, error) from error
    finally:
        logging.disable(before)


def _refused(to: str, encoder: Encoder, error: Exception) -> EmbedcacheError:
    reason = " ".join(str(error).split())[:200]
    return EmbedcacheError(
        f"the {encoder.identity['architecture']} encoder cannot be exported to {to} with torch {torch.__version__} "
        f"({type(error).__name__}: {reason}): try another --to, or a newer torch"
    )
