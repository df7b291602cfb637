"""The rotary half of what ``sanitized_encoder.py`` runs under a sanitizer, without torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from embedcache.encoder.rotary_blueprint import LINEARS, RotaryBlueprint, RotaryLayer
from embedcache.encoder.runner_native import TOKENS
from embedcache.encoder.runner_rotary import RotaryEncoder
from embedcache.encoder.token_rows import TokenRows

BEFORE, SUMS = ("before_attention", "before_glu"), ("sum_attention", "sum_glu")
ALL = (*BEFORE, "after_attention", "after_glu", "query_norm", "key_norm")
SHAPES = (  # dim, inner, heads, key_heads, head, norms, biases, rms, causal, windows of the layers, activation
    (32, 64, 2, 2, 16, BEFORE, False, False, False, (None, 8), "gelu"),
    (36, 22, 3, 1, 12, SUMS, True, False, False, (None,), "silu"),  # nothing is a multiple of a vector
    (64, 48, 4, 2, 32, ALL, False, True, True, (9, None), "gelu_tanh"),
    (32, 34, 1, 1, 64, BEFORE, True, True, False, (0, 600), "relu"),
)
LENGTHS = (1, 2, 64, 47, 3, 49, 31, 16, 48, 530)  # 48: a block of queries; 512: of keys
POSITIONS, VOCABULARY = 530, 50


def blueprint(
    dim: int, inner: int, heads: int, key_heads: int, head: int, norms: tuple[str, ...], biases: bool, rms: bool,
    causal: bool, windows: tuple[int | None, ...], activation: str,
) -> RotaryBlueprint:  # fmt: skip
    rng = np.random.default_rng(dim + head)

    def floats(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    def weights(*shape: int) -> tuple[np.ndarray, np.ndarray | None]:
        return floats(*shape), floats(shape[0]) if biases else None

    sizes = {"query": (heads * head, dim), "key": (key_heads * head, dim), "value": (key_heads * head, dim),
             "output": (dim, heads * head), "gate": (inner, dim), "up": (inner, dim), "down": (dim, inner)}  # fmt: skip
    layers = [
        RotaryLayer(
            {name: weights(*sizes[name]) for name in LINEARS},
            {name: weights(head if name in ("query_norm", "key_norm") else dim) for name in norms},
            window, floats(POSITIONS, head // 2), floats(POSITIONS, head // 2),
        )
        for window in windows
    ]  # fmt: skip
    return RotaryBlueprint(
        word=floats(VOCABULARY, dim), word_scale=2.0, token_type=floats(dim) if biases else None, norm=weights(dim),
        final_norm=None if norms is SUMS else weights(dim), layers=layers, heads=heads, key_heads=key_heads, head=head,
        scale=0.3, epsilon=1e-6, rms=rms, causal=causal, activation=activation,
    )  # fmt: skip


def check(dtype: str, few: bool) -> None:
    """Every shape in threads of its own: finite, and in every batch and for every wish the same.

    few: one shape and no row beyond a block of keys.
    """
    rng = np.random.default_rng(0)
    lengths = LENGTHS[:-1] if few else LENGTHS
    rows = [rng.integers(0, VOCABULARY, n).tolist() for n in lengths]
    ends = np.cumsum(lengths)
    for shape in SHAPES[2:3] if few else SHAPES:
        encoder, layers = RotaryEncoder(blueprint(*shape), dtype), len(shape[9])
        (tokens,) = encoder.run_codes(TokenRows.of(rows), [(TOKENS, layers)])
        assert np.isfinite(tokens).all() and len(tokens) == ends[-1]
        wishes = [[("cls", layers)], [("last", layers), ("mean", 0)], [("max", layers), ("cls", layers)]]
        batches = [rows, rows[:1], rows[2:4], rows[::-1]]
        for wish in wishes:
            with ThreadPoolExecutor(3) as pool:
                found = list(pool.map(encoder.run, batches, [wish] * len(batches)))
            for x, y in zip(found[0], found[-1], strict=True):
                assert np.isfinite(x).all() and (x == y[::-1]).all()
        assert (encoder.run(rows, wishes[0])[0] == tokens[ends - lengths]).all()
        assert (encoder.run(rows, wishes[1])[0] == tokens[ends - 1]).all()
