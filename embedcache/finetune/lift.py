"""States of a lower layer, taken up to the one that is needed: each layer between is computed once."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedcache.encoder.token_rows import row_offsets
from embedcache.finetune.inputs import States, even_batches
from embedcache.finetune.top import Top, layers_of

if TYPE_CHECKING:
    from embedcache.encoder import Encoder


class Lifted:
    """States in a file without a name, ``values[begins[i]:][:lengths[i]]`` of row i. begins, lengths: int64 [N]."""

    def __init__(self, lengths: np.ndarray, dim: int) -> None:
        self.lengths, self._offsets = lengths, row_offsets(lengths)
        self.begins = self._offsets[:-1]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        total = max(1, int(self._offsets[-1]))
        self._file.truncate(total * dim * 2)
        self.values = np.memmap(self._file, np.float16, "r+", shape=(total, dim))

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [t], where the tokens of these rows are; offsets int64 [n + 1])."""
        lengths = self.lengths[rows]
        offsets = row_offsets(lengths)
        return np.arange(offsets[-1]) + np.repeat(self.begins[rows] - offsets[:-1], lengths), offsets

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values float16 [t, D], offsets int64 [n + 1])."""
        places, offsets = self.places(rows)
        return self.values[places], offsets


@torch.no_grad()
def lift(encoder: Encoder, states: States, stored: int, between: int) -> States:
    """The states of all rows ``between`` layers higher than those of the last ``stored`` layers; float16, as those."""
    top = Top(encoder.model, stored, first_alone=False, longest=1).eval()
    assert top.body is not None
    found: list[torch.Tensor] = []
    layers = layers_of(top.body)[1]
    # What the next layer reads, whatever the model does behind its last one.

    def keep(_: Any, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        found.append(_states(inputs, named))

    layers[between].register_forward_pre_hook(keep, with_kwargs=True)
    every = np.arange(len(states.lengths))
    lifted = Lifted(states.lengths, encoder.model.config.hidden_size)
    for places in even_batches(states.lengths, every):
        x, mask = states.batch(every[places])
        found.clear()
        top(x, mask)
        values = found[0].numpy()[np.arange(x.shape[1]) < states.lengths[places][:, None]]
        lifted.values[lifted.places(places)[0]] = values.astype(np.float16)
    return States(lifted, states.lengths)


def _states(inputs: tuple[object, ...], named: dict[str, object]) -> torch.Tensor:
    return next(one for one in (*inputs, *named.values()) if isinstance(one, torch.Tensor) and one.dim() == 3)
