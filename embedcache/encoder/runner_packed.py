"""The forward pass without any padding, in torch: the tokens of a batch stand one after another, [T, D].

All parts but attention work on single tokens, so only attention sees where a row begins. On a GPU of compute
capability 8.0 or more, in half precision, all rows go through one variable-length flash attention (torch 2.10 and newer
has it). Elsewhere, and with a bias by distance, rows of equal length go together through scaled_dot_product_attention
without a mask: batches hold rows of like length, so these groups are few. Query, key and value are one matrix product.

The flash branch has been tested with a stand-in of the same interface, not yet on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedcache.encoder.blueprint import Affine, Blueprint, Layer
from embedcache.encoder.folder import cpu_computes_bfloat16
from embedcache.encoder.last_layer import Group, first_token_context
from embedcache.encoder.poolings import POOLINGS
from embedcache.encoder.token_rows import TokenRows

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


class Packed:
    """The runner (see ``runner``) for a blueprint on any device."""

    kernel = "packed"
    invariant = False  # a matrix product of another size may sum in another order

    def __init__(self, blueprint: Blueprint) -> None:
        self._device, self._dtype = blueprint.word.device, blueprint.word.dtype
        # A CPU without the instructions multiplies the rounded numbers in float32: torch's emulation is 4 times slower.
        slow = self._device.type == "cpu" and not (self._dtype == torch.bfloat16 and cpu_computes_bfloat16())
        self._blueprint = blueprint = _in_dtype(blueprint, torch.float32 if slow else self._dtype)
        # bfloat16 on a CPU: only what enters a matrix product is rounded, the rows between them stay float32, which
        # halves the error. On a GPU traffic to memory is what these rows cost, and all is of the weights' dtype.
        self._between = torch.float32 if self._device.type == "cpu" else self._dtype
        self._activate = ACTIVATIONS[blueprint.activation]
        self._joined = [_join(layer) for layer in blueprint.layers]
        self._flash = _flash_attention(blueprint)

    @torch.inference_mode()
    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """float32 [n, D] for each (pooling, layer); layer 0 is what enters the first layer."""
        rows = _PackedRows(ids, self._device)
        wanted, deepest = set(outputs), max(layer for _, layer in outputs)
        x = self._embed(rows)
        pooled = {output: rows.pool(x, output[0]) for output in wanted if output[1] == 0}
        biases = self._biases(rows)
        for number, layer in enumerate(self._blueprint.layers[:deepest], start=1):
            asked = [output for output in wanted if output[1] == number]
            if number == deepest and all(POOLINGS[name].first_token for name, _ in asked):
                first = self._first_tokens(x, layer, rows)
                pooled |= dict.fromkeys(asked, first)
            else:
                context = self._attend(self._linear(x, self._joined[number - 1]), rows, biases)
                x = self._after_attention(x, context, layer)
                pooled |= {output: rows.pool(x, output[0]) for output in asked}
        vectors = torch.stack([pooled[output].float() for output in outputs]).cpu().numpy()
        return list(vectors[:, np.argsort(rows.order)])

    def _embed(self, rows: _PackedRows) -> Tensor:
        plan = self._blueprint
        x = functional.embedding(rows.ids, plan.word).to(self._between)
        if plan.token_type is not None:
            x = x + plan.token_type
        x = self._norm(x + functional.embedding(rows.positions, plan.position), plan.norm)
        return x if plan.projection is None else self._linear(x, plan.projection).to(self._between)

    def _attend(self, joined: Tensor, rows: _PackedRows, biases: list[Tensor | None]) -> Tensor:
        """[T, D] from query, key and value of all tokens, [T, 3 D]."""
        query, key, value = joined.unflatten(1, (3, self._blueprint.heads, -1)).unbind(1)
        if self._flash:
            starts, longest = rows.starts, rows.groups[0].length
            return self._flash(query, key, value, starts, starts, longest, longest).flatten(1)
        parts = []
        for group, bias in zip(rows.groups, biases, strict=True):
            q, k, v = (group.of(tokens).transpose(1, 2) for tokens in (query, key, value))
            context = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            parts.append(context.transpose(1, 2).flatten(0, 1))
        return torch.cat(parts).flatten(1)

    def _biases(self, rows: _PackedRows) -> list[Tensor | None]:
        """The bias by distance for each group, [heads, length, length]."""
        relative = self._blueprint.relative
        if relative is None:
            return [None] * len(rows.groups)
        at = torch.arange(rows.groups[0].length, device=self._device)
        distance = at - at[:, None] + relative.shape[1] // 2
        longest = relative.to(self._blueprint.layers[0].key[0].dtype)[:, distance]
        return [longest[:, : group.length, : group.length] for group in rows.groups]

    def _first_tokens(self, x: Tensor, layer: Layer, rows: _PackedRows) -> Tensor:
        first = x[rows.first]
        context = first_token_context(x, first, rows.groups, layer, self._blueprint.heads, self._blueprint.relative)
        return self._after_attention(first, context, layer)

    def _after_attention(self, x: Tensor, context: Tensor, layer: Layer) -> Tensor:
        x = self._norm(x + self._linear(context, layer.output), layer.norm1)
        up = self._activate(self._linear(x, layer.up))
        return self._norm(x + self._linear(up, layer.down), layer.norm2)

    def _linear(self, x: Tensor, weights: Affine) -> Tensor:
        return functional.linear(x.to(self._dtype).to(weights[0].dtype), *weights)

    def _norm(self, x: Tensor, weights: Affine) -> Tensor:
        scale, shift = (part.to(self._between) for part in weights)
        return functional.layer_norm(x, scale.shape, scale, shift, self._blueprint.epsilon)


class _PackedRows:
    """Where the rows of a batch stand among its tokens, the longest first.

    Attributes:
        order: int64 [n], the row of the batch that stands in each place. ids, positions: int64 [T].
        first: int64 [n], each row's first token. starts: int32 [n + 1], the same and T. groups: rows of equal length.
    """

    def __init__(self, ids: Sequence[Sequence[int]], device: torch.device) -> None:
        rows = TokenRows.of(ids)
        self.order = np.argsort(-rows.lengths, kind="stable")
        rows = rows.take(self.order)
        lengths, starts = rows.lengths, rows.offsets
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        self.ids, self.positions = _upload(np.stack([rows.flat, positions]), device)
        self.first = _upload(starts[:-1], device)
        self.starts = _upload(starts.astype(np.int32), device)
        begins = np.flatnonzero(np.diff(lengths, prepend=-1))
        sizes = np.diff(begins, append=len(lengths))
        self.groups = [
            Group(int(b), int(starts[b]), int(n), int(lengths[b])) for b, n in zip(begins, sizes, strict=True)
        ]

    def pool(self, x: Tensor, pooling: str) -> Tensor:
        """[n, D] of [T, D]; rows of equal length together, so there is no padding."""
        if POOLINGS[pooling].first_token:
            return x[self.first]
        return torch.cat([POOLINGS[pooling].pool(group.of(x), None) for group in self.groups])


def _in_dtype(blueprint: Blueprint, dtype: torch.dtype) -> Blueprint:
    """The same with its matrices in that dtype; a matrix that already has it is not copied."""

    def affine(pair: Affine) -> Affine:
        return pair[0].to(dtype), pair[1].to(dtype)

    layers = [Layer(*(affine(getattr(layer, part.name)) for part in fields(layer))) for layer in blueprint.layers]
    projection = None if blueprint.projection is None else affine(blueprint.projection)
    return replace(blueprint, layers=layers, projection=projection)


def _join(layer: Layer) -> Affine:
    """One [3 D, D] and [3 D] for query, key and value."""
    parts = (layer.query, layer.key, layer.value)
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])


def _flash_attention(blueprint: Blueprint) -> Callable[..., Any] | None:
    """torch's variable-length attention, where device, dtype, shape and version have it."""
    word, width = blueprint.word, blueprint.layers[0].query[0].shape[0] // blueprint.heads
    half = word.dtype in (torch.bfloat16, torch.float16)
    if not (word.is_cuda and half and blueprint.relative is None and width % 8 == 0 and width <= 256):
        return None
    if torch.cuda.get_device_capability(word.device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _upload(array: np.ndarray, device: torch.device) -> Tensor:
    """From pinned memory to a GPU, so that the copy is queued like a kernel and no thread waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
