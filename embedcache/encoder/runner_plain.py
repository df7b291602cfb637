"""The forward pass by transformers, with padding: for every architecture, and the oracle for the other runners."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from embedcache.encoder.poolings import POOLINGS, TOKEN_STATES
from embedcache.encoder.token_rows import TokenRows


class Copies:
    """A model for each batch that is computed at once: copies that share their weights, and nothing else.

    Modules may keep what the last batch made of them (rotary positions that depend on its length), so two batches
    must not share one. A model that cannot be copied computes one batch at a time.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._free = model, [model]
        self._returned, self._can_copy = threading.Condition(), True
        # Copies are made of one that computes nothing: a model that does may be halfway through changing what it keeps.
        if self._copy():
            self._model = self._free.pop()

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Lend one for one batch."""
        with self._returned:
            while not self._free and not self._copy():
                self._returned.wait()
            model = self._free.pop()
        try:
            yield model
        finally:
            with self._returned:
                self._free.append(model)
                self._returned.notify()

    def _copy(self) -> bool:
        if self._can_copy:
            try:
                self._free.append(copy.deepcopy(self._model, {id(one): one for one in self._model.parameters()}))
            except Exception:  # an architecture's own code may hold anything
                self._can_copy = False
        return self._can_copy


class Plain:
    """The plain runner (see ``runner``), for every model that ``AutoModel`` loads; it pads with ``pad_id``.

    Attributes:
        layers: the number of layers.
        pad_id: the token id of padding.
    """

    kernel = "plain"
    invariant = False
    causal = False
    batch_tokens: int | None = None

    def __init__(self, model: Any, pad_id: int, device: str) -> None:
        self._copies, self.pad_id, self._device = Copies(model), pad_id, device
        self.layers: int = model.config.num_hidden_layers

    @torch.inference_mode()
    def widths(self, ids: Sequence[int]) -> list[int]:
        """The width of each layer's vectors, from the embeddings on, found by encoding one row of token ids."""
        result = self._forward(*self.pad([ids]), inner=True)
        inner = result.hidden_states[: self.layers]
        return [int(states.shape[-1]) for states in (*inner, result.last_hidden_state)]

    @torch.inference_mode()
    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        input_ids, attention_mask = self.pad(ids)
        inner = any(layer < self.layers for _, layer in outputs)
        result = self._forward(input_ids, attention_mask, inner)
        pooled = []
        for pooling, layer in outputs:
            hidden = result.last_hidden_state if layer == self.layers else result.hidden_states[layer]
            if pooling == TOKEN_STATES:
                true = hidden[attention_mask[:, : hidden.shape[1]].bool()]
            else:
                true = POOLINGS[pooling].pool(hidden, attention_mask)
            pooled.append(true.float().cpu().numpy())
        return pooled

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, inner: bool) -> Any:
        with self._copies.one() as model:
            return model(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=inner, return_dict=True
            )

    def pad(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad rows of token ids to (input_ids, attention_mask): int64 [n, longest] on the model's device."""
        rows = TokenRows.of(ids)
        lengths = rows.lengths
        padded = np.full((len(rows), lengths.max()), self.pad_id, dtype=np.int64)
        mask = np.arange(padded.shape[1]) < lengths[:, None]
        padded[mask] = rows.flat
        return torch.from_numpy(padded).to(self._device), torch.from_numpy(mask.astype(np.int64)).to(self._device)
