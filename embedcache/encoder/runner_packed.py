"""The forward pass without any padding, in torch: the tokens of a batch are one array, [T, D].

All parts but attention work on single tokens, so only attention needs to know where a row begins. On a GPU of compute
capability 8.0 or more, in half precision, all rows go through one variable-length flash attention (torch 2.10 or
newer). Elsewhere, and with a bias by distance, rows of equal length go together through scaled_dot_product_attention
without a mask; batches hold rows of similar length, so these groups are few. Query, key and value are one matrix
product.

On a GPU nothing loops over lengths: the last layer's first tokens go through the same attention, poolings are segment
reductions, the work between two products is one kernel (``fused_triton``), and every batch has its own stream and
pinned memory (``gpu_lane``). The tests run all of it on a CPU, with stand-ins; docs/engine.md lists what has been run
on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedcache.encoder.batching import packed_gpu_tokens
from embedcache.encoder.blueprint import Affine, Blueprint, Layer
from embedcache.encoder.gpu_lane import Lane, Lanes
from embedcache.encoder.gpu_parts import ACTIVATIONS, flash_attention, fused_parts
from embedcache.encoder.hardware import cpu_computes_bfloat16
from embedcache.encoder.last_layer import Group, first_token_context
from embedcache.encoder.poolings import POOLINGS, TOKEN_STATES
from embedcache.encoder.token_rows import TokenRows, take_ragged


class Packed:
    """The packed runner (see ``runner``), for a blueprint on any device."""

    kernel = "packed"
    invariant = False  # a matrix product of another size may sum in another order
    causal = False

    def __init__(self, blueprint: Blueprint) -> None:
        self._device, self._dtype = blueprint.word.device, blueprint.word.dtype
        # A CPU without bfloat16 products multiplies the rounded numbers in float32: torch emulates them 4 times slower.
        slow = self._device.type == "cpu" and not (self._dtype == torch.bfloat16 and cpu_computes_bfloat16())
        self._blueprint = blueprint = _in_dtype(blueprint, torch.float32 if slow else self._dtype)
        # bfloat16 on a CPU: only the operands of matrix products are rounded and the rows between them stay float32,
        # which halves the error. On a GPU the memory traffic of these rows dominates, so all have the weights' dtype.
        self._between = torch.float32 if self._device.type == "cpu" else self._dtype
        self._activate = ACTIVATIONS[blueprint.activation]
        joined = {key: _join(layer) for key, layer in _different(blueprint.layers).items()}
        self._joined = [joined[id(layer)] for layer in blueprint.layers]
        self._flash, self._fused = flash_attention(blueprint), fused_parts(blueprint)
        self._all_at_once, self._lanes = _all_at_once(self._device), Lanes(self._device)
        self.batch_tokens = packed_gpu_tokens(blueprint.layers[0].up[0].shape[1]) if self._flash else None

    @property
    def parts(self) -> dict[str, str]:
        """Which code computes attention, and the work between the products."""
        return {"attention": "varlen" if self._flash else "groups", "between": "triton" if self._fused else "torch"}

    @torch.inference_mode()
    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """float32 [n, D] for each (pooling, layer); layer 0 is the input of the first layer."""
        with self._lanes.one() as lane:
            return self._run(_PackedRows(ids, lane, self._all_at_once), outputs, lane)

    def _run(self, rows: _PackedRows, outputs: Sequence[tuple[str, int]], lane: Lane) -> list[np.ndarray]:
        wanted, deepest = set(outputs), max(layer for _, layer in outputs)
        x = self._embed(rows)
        pooled = {output: rows.pool(x, output[0]) for output in wanted if output[1] == 0}
        biases = self._biases(rows)
        for number, layer in enumerate(self._blueprint.layers[:deepest], start=1):
            asked = [output for output in wanted if output[1] == number]
            if number == deepest and all(name in POOLINGS and POOLINGS[name].first_token for name, _ in asked):
                first = self._first_tokens(x, number, rows)
                pooled |= dict.fromkeys(asked, first)
            else:
                context = self._attend(self._linear(x, self._joined[number - 1]), rows, biases)
                x = self._after_attention(x, context, layer)
                pooled |= {output: rows.pool(x, output[0]) for output in asked}
        back, one = np.argsort(rows.order), [output for output in outputs if output[0] != TOKEN_STATES]
        found = {}
        if one:
            vectors = lane.download(torch.stack([pooled[output].float() for output in one]))
            found = dict(zip(one, vectors[:, back], strict=True))
        for output in wanted.difference(one):
            found[output] = take_ragged(lane.download(pooled[output].float()), rows.offsets, back)[0]
        return [found[output] for output in outputs]

    def _embed(self, rows: _PackedRows) -> Tensor:
        plan = self._blueprint
        x = functional.embedding(rows.ids, plan.word).to(self._between)
        if plan.token_type is not None:
            x = x + plan.token_type
        x = self._norm(x + functional.embedding(rows.positions, plan.position), plan.norm)
        return x if plan.projection is None else self._linear(x, plan.projection).to(self._between)

    def _attend(self, joined: Tensor, rows: _PackedRows, biases: list[Tensor | None]) -> Tensor:
        """The context of all tokens, [T, D], from their query, key and value, [T, 3 D]."""
        query, key, value = joined.unflatten(1, (3, self._blueprint.heads, -1)).unbind(1)
        if self._flash:
            context: Tensor = self._flash(query, key, value, rows.starts, rows.starts, rows.longest, rows.longest)
            return context.flatten(1)
        parts = []
        for group, bias in zip(rows.groups, biases, strict=True):
            q, k, v = (group.of(tokens).transpose(1, 2) for tokens in (query, key, value))
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            parts.append(mixed.transpose(1, 2).flatten(0, 1))
        return torch.cat(parts).flatten(1)

    def _biases(self, rows: _PackedRows) -> list[Tensor | None]:
        """The bias by distance for each group, [heads, length, length], or None."""
        relative = self._blueprint.relative
        if relative is None:
            return [None] * len(rows.groups)
        at = torch.arange(rows.longest, device=self._device)
        distance = at - at[:, None] + relative.shape[1] // 2
        longest = relative.to(self._blueprint.layers[0].key[0].dtype)[:, distance]
        return [longest[:, : group.length, : group.length] for group in rows.groups]

    def _first_tokens(self, x: Tensor, number: int, rows: _PackedRows) -> Tensor:
        first, layer = x.index_select(0, rows.first), self._blueprint.layers[number - 1]
        if self._flash:
            context = self._attend_first(x, first, self._joined[number - 1], rows)
        else:
            heads, relative = self._blueprint.heads, self._blueprint.relative
            context = first_token_context(x, first, rows.groups, layer, heads, relative)
        return self._after_attention(first, context, layer)

    def _attend_first(self, x: Tensor, first: Tensor, joined: Affine, rows: _PackedRows) -> Tensor:
        """The context of the first tokens, [n, D]: one query per row, keys and values of all its tokens, one kernel."""
        assert self._flash is not None
        (weight, bias), heads = joined, self._blueprint.heads
        width = len(bias) // 3
        key, value = self._linear(x, (weight[width:], bias[width:])).unflatten(1, (2, heads, -1)).unbind(1)
        query = self._linear(first, (weight[:width], bias[:width])).unflatten(1, (heads, -1))
        context: Tensor = self._flash(query, key, value, rows.alone, rows.starts, 1, rows.longest)
        return context.flatten(1)

    def _after_attention(self, x: Tensor, context: Tensor, layer: Layer) -> Tensor:
        x = self._add_norm(x, self._linear(context, layer.output), layer.norm1)
        if self._fused:
            up = self._fused.activate(functional.linear(x, layer.up[0]), layer.up[1])
        else:
            up = self._activate(self._linear(x, layer.up))
        return self._add_norm(x, self._linear(up, layer.down), layer.norm2)

    def _add_norm(self, x: Tensor, y: Tensor, weights: Affine) -> Tensor:
        return self._fused.add_norm(x, y, *weights) if self._fused else self._norm(x + y, weights)

    def _linear(self, x: Tensor, weights: Affine) -> Tensor:
        return functional.linear(x.to(self._dtype).to(weights[0].dtype), *weights)

    def _norm(self, x: Tensor, weights: Affine) -> Tensor:
        scale, shift = (part.to(self._between) for part in weights)
        return functional.layer_norm(x, scale.shape, scale, shift, self._blueprint.epsilon)


class _PackedRows:
    """The rows of a batch, the longest first, as one array of tokens.

    Attributes:
        order: int64 [n], the index in the batch of the row in each place.
        ids, positions: int32 [T], of each token.
        first: int32 [n], where each row's first token is.
        starts: int32 [n + 1], the same and T.
        offsets: int64 [n + 1], ``starts`` in this process's memory.
        alone: int32 [n + 1], 0 to n: the starts of rows of one token.
        longest: tokens of the longest row.
        groups: rows of equal length.
    """

    def __init__(self, ids: Sequence[Sequence[int]], lane: Lane, all_at_once: bool) -> None:
        """``all_at_once``: pool all rows at once, by segments, rather than group by group."""
        rows = TokenRows.of(ids)
        self.order = np.argsort(-rows.lengths, kind="stable")
        rows = rows.take(self.order)
        lengths, starts = rows.lengths, rows.offsets
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        arrays = (rows.flat, positions, starts, np.arange(len(starts)))
        there = lane.upload([np.ascontiguousarray(array, np.int32) for array in arrays])
        self.ids, self.positions, self.starts, self.alone = there
        self.offsets = starts
        self.first, self.longest, self._all_at_once = self.starts[:-1], int(lengths[0]), all_at_once
        begins = np.flatnonzero(np.diff(lengths, prepend=-1))
        sizes = np.diff(begins, append=len(lengths))
        self.groups = [
            Group(int(b), int(starts[b]), int(n), int(lengths[b])) for b, n in zip(begins, sizes, strict=True)
        ]

    def pool(self, x: Tensor, pooling: str) -> Tensor:
        """Pool [T, D] to [n, D]; rows of equal length go together, so there is no padding. Token states stay [T, D]."""
        if pooling == TOKEN_STATES:
            return x
        one = POOLINGS[pooling]
        if one.first_token:
            return x.index_select(0, self.first)
        if self._all_at_once and one.packed:
            return one.packed(x, self.starts.diff().long(), self.positions)
        return torch.cat([one.pool(group.of(x), None) for group in self.groups])


def _in_dtype(blueprint: Blueprint, dtype: torch.dtype) -> Blueprint:
    """The same blueprint with its matrices in ``dtype``; a matrix that already has it is not copied."""

    def affine(pair: Affine) -> Affine:
        return pair[0].to(dtype), pair[1].to(dtype)

    made = {
        key: Layer(*(affine(getattr(layer, part.name)) for part in fields(layer)))
        for key, layer in _different(blueprint.layers).items()
    }
    layers = [made[id(layer)] for layer in blueprint.layers]
    projection = None if blueprint.projection is None else affine(blueprint.projection)
    return replace(blueprint, layers=layers, projection=projection)


def _different(layers: Sequence[Layer]) -> dict[int, Layer]:
    """Each layer once, by its id: some share their weights."""
    return {id(layer): layer for layer in layers}


def _join(layer: Layer) -> Affine:
    """Query, key and value as one linear layer, [3 D, D] and [3 D]."""
    parts = (layer.query, layer.key, layer.value)
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])


def _all_at_once(device: torch.device) -> bool:
    """Whether to pool by segments. On a CPU groups are faster, and existing caches hold their sums."""
    return device.type == "cuda"
