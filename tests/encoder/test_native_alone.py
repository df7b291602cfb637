"""The native encoder without torch, on every instruction set: against one layer in NumPy, in float64.

The tests beside this one compare whole families with transformers. This one also runs where torch is not, or is too
slow: under emulation of ARM (release/emulate.py).
"""

from __future__ import annotations

import math
import platform

import numpy as np
import pytest

from embedcache.encoder.blueprint import Affine, Blueprint, Layer
from embedcache.encoder.runner_native import NativeEncoder, backend

DIM, INNER, HEADS, WORDS, POSITIONS = 96, 160, 4, 50, 70
LENGTHS = (1, 2, 5, 13, 31, 64, 70)  # odd and even numbers of rows, alone and together
# The least cosine to float64, and how far an element may be off beside the largest.
CLOSE = {"float32": (1 - 1e-10, 1e-5), "bfloat16": (0.9999, 0.02), "int8": (0.999, 0.08)}
ISA = ("", "avx512vnni", "avx512", "avx2", "neondot", "neon", "plain")


def affine(rng: np.random.Generator, rows: int, columns: int) -> Affine:
    weight = rng.standard_normal((rows, columns)) / math.sqrt(columns)
    return weight.astype(np.float32), (0.1 * rng.standard_normal(rows)).astype(np.float32)


def norm(rng: np.random.Generator) -> Affine:
    return rng.uniform(0.5, 1.5, DIM).astype(np.float32), (0.1 * rng.standard_normal(DIM)).astype(np.float32)


def blueprint() -> Blueprint:
    rng = np.random.default_rng(0)
    attention = [affine(rng, DIM, DIM) for _ in range(4)]
    layer = Layer(*attention, norm(rng), affine(rng, INNER, DIM), affine(rng, DIM, INNER), norm(rng))
    word, position = (rng.standard_normal((n, DIM)).astype(np.float32) for n in (WORDS, POSITIONS))
    return Blueprint(word, position, None, norm(rng), None, [layer], HEADS, 1e-12, "gelu", None, None)


def rows_of_ids() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [[int(one) for one in rng.integers(0, WORDS, length)] for length in LENGTHS]


def layer_norm(x: np.ndarray, by: Affine) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * by[0] + by[1]


def reference(model: Blueprint, ids: list[int]) -> np.ndarray:
    """The tokens' vectors of one row, float64 [n, D]."""
    (layer,) = model.layers
    x = layer_norm(model.word[ids].astype(np.float64) + model.position[: len(ids)], model.norm)
    query, key, value = (
        (x @ weight.T.astype(np.float64) + bias).reshape(len(ids), HEADS, -1).transpose(1, 0, 2)
        for weight, bias in (layer.query, layer.key, layer.value)
    )
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(DIM / HEADS)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    context = (shares / shares.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), DIM)
    x = layer_norm(x + context @ layer.output[0].T.astype(np.float64) + layer.output[1], layer.norm1)
    inner = x @ layer.up[0].T.astype(np.float64) + layer.up[1]
    inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return layer_norm(x + inner @ layer.down[0].T.astype(np.float64) + layer.down[1], layer.norm2)


@pytest.fixture(params=ISA)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for an instruction set of this machine; "" is all that it has."""
    on_arm = platform.machine() in ("aarch64", "arm64")
    if request.param not in ("", "plain") and request.param.startswith("neon") != on_arm:
        pytest.skip("of other processors")
    monkeypatch.setenv("EMBEDCACHE_ISA", request.param)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", CLOSE)
def test_a_layer_is_that_of_float64_and_the_same_in_any_batch(dtype: str) -> None:
    if not backend(dtype):
        pytest.skip(f"there is no {dtype} with these instructions")
    model, ids = blueprint(), rows_of_ids()
    encoder = NativeEncoder(model, POSITIONS, dtype)
    outputs = [("tokens", 1), ("mean", 1)]
    tokens, means = encoder.run(ids, outputs)
    wide = tokens.astype(np.float64)
    expected = np.concatenate([reference(model, row) for row in ids])
    least, off = CLOSE[dtype]
    cosine = (wide * expected).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > least
    assert np.abs(tokens - expected).max() < off * np.abs(expected).max()
    alone = [encoder.run([row], outputs) for row in ids]
    assert np.concatenate([one for one, _ in alone]).tobytes() == tokens.tobytes()
    assert np.concatenate([one for _, one in alone]).tobytes() == means.tobytes()
