"""The forward pass for rows of any kind: the runner takes most of them, some need a way of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedcache.encoder.token_rows import TokenRows
from embedcache.encoder.token_vectors import beside_empty, rows_in_order
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.encoder.runner import Runner

Ids = Sequence[Sequence[int]]
Outputs = Sequence[tuple[str, int]]


class Forward:
    """Computes the vectors of any rows.

    1. A batch that is too large for a GPU's memory is halved and tried again.
    2. A row without tokens is 0 in every pooling.
    3. A row with the token that positions skip (a text with a literal "<pad>") goes by itself through ``plain``.
    4. Where padding would change a row's vectors, each row length has its own pass.
    5. All other rows go through the runner together.
    """

    def __init__(
        self,
        runner: Runner,
        plain: Callable[[], Runner],
        device: str,
        widths: Sequence[int],
        uncounted: int | None,
        sees_padding: bool,
    ) -> None:
        """Keep what the passes need.

        Args:
            runner: computes most rows.
            plain: returns the plain runner, which may have to be loaded first.
            device: "cpu", "cuda" or "cuda:N".
            widths: of each layer's vectors, from the embeddings on.
            uncounted: the token id of step 3, or None.
            sees_padding: whether step 4 applies.
        """
        self._runner, self._plain, self._device = runner, plain, device
        self._widths, self._uncounted, self._sees_padding = widths, uncounted, sees_padding

    def __call__(self, ids: Ids, outputs: Outputs) -> list[np.ndarray]:
        """Vectors of n rows, at least one: float32 [n, width] for each (pooling, layer), layers counted from 0.

        Raises:
            EmbedcacheError: a single row does not fit into the GPU's memory.
        """
        return self._once(ids, outputs) if self._device == "cpu" else self._once_or_halved(ids, outputs)

    def _once_or_halved(self, ids: Ids, outputs: Outputs) -> list[np.ndarray]:
        import torch

        try:
            return self._once(ids, outputs)
        except torch.cuda.OutOfMemoryError as error:
            if len(ids) == 1:
                raise EmbedcacheError(
                    f"one row of {len(ids[0])} tokens does not fit into the memory of {self._device}: use a smaller "
                    "--max-length, --dtype bfloat16 or --device cpu"
                ) from error
        # Outside the handler, which would keep the tensors of the failed pass alive.
        torch.cuda.empty_cache()
        half = len(ids) // 2
        parts = self._once_or_halved(ids[:half], outputs), self._once_or_halved(ids[half:], outputs)
        return [np.concatenate(pair) for pair in zip(*parts, strict=True)]

    def _once(self, ids: Ids, outputs: Outputs) -> list[np.ndarray]:
        rows = TokenRows.of(ids)
        if not rows.lengths.all():  # an empty text, where the tokenizer adds no special tokens
            return beside_empty(rows, outputs, self._widths, lambda some: self._once(some, outputs))
        uncounted = np.zeros(len(rows), bool) if self._uncounted is None else rows.count(self._uncounted) > 0
        if not uncounted.any():
            return self._by_length(rows, outputs) if self._sees_padding else self._runner.run(rows, outputs)
        # One by one, so that these rows do not depend on their batch either.
        odd, rest = np.flatnonzero(uncounted), np.flatnonzero(~uncounted)
        parts = [(one, self._plain().run(rows.take(one), outputs)) for one in odd[:, None]]
        if len(rest):
            parts.append((rest, self._runner.run(rows.take(rest), outputs)))
        return rows_in_order(parts, outputs, rows.lengths)

    def _by_length(self, rows: TokenRows, outputs: Outputs) -> list[np.ndarray]:
        groups = [np.flatnonzero(rows.lengths == length) for length in np.unique(rows.lengths)]
        parts = [(group, self._runner.run(rows.take(group), outputs)) for group in groups]
        return rows_in_order(parts, outputs, rows.lengths)
