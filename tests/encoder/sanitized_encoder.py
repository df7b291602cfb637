"""What test_encoder_sanitizers.py runs under a sanitizer: ``sanitized_encoder.py LIBRARY``.

Without torch, which is not built with one.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np

from embedcache.encoder import runner_native
from embedcache.encoder.poolings import POOLINGS
from embedcache.encoder.token_rows import TokenRows
from tests.encoder import sanitized_rotary

SHAPES = (  # width, dim, heads, inner, layers, activation, what scores have of distances
    (32, 32, 2, 64, 2, "gelu", ""),
    (24, 36, 3, 100, 1, "gelu_tanh", "bias"),  # nothing is a multiple of a vector
    (128, 128, 2, 512, 2, "relu", "bias"),
    (80, 80, 40, 33 * 2, 2, "gelu", ""),  # more heads than a panel has columns
    (36, 36, 3, 64, 2, "gelu", "content"),
)
MIXED = ("int8", ("1 output", "1 up", "2 qkv"))
MODES = (("float32", ()), ("bfloat16", ()), ("int8", ()), ("int8", ("1 qkv", "1 down")), MIXED)
LENGTHS = (1, 2, 64, 17, 3, 33, 31, 16, 48, 49)
POSITIONS, VOCABULARY = 64, 50
OUTPUTS = ([("cls", 1)], [("mean", 0), ("cls", 1)], [(name, 1) for name in POOLINGS] + [("cls", 0), ("cls", 1)])


class Floats:
    """As much of a tensor as the binding asks for."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers, self.shape = numbers.astype(np.float32), numbers.shape

    def __len__(self) -> int:
        return len(self._numbers)

    def detach(self) -> Floats:
        return self

    float = cpu = detach

    def numpy(self) -> np.ndarray:
        return self._numbers


def blueprint(width: int, dim: int, heads: int, inner: int, layers: int, activation: str, distances: str):
    rng = np.random.default_rng(dim)

    def floats(*shape: int) -> Floats:
        return Floats(rng.standard_normal(shape) * 0.1)

    def affine(outputs: int, inputs: int) -> tuple[Floats, Floats]:
        return floats(outputs, inputs), floats(outputs)

    def layer():
        square = {name: affine(dim, dim) for name in ("query", "key", "value", "output")}
        norms = {name: (floats(dim), floats(dim)) for name in ("norm1", "norm2")}
        return SimpleNamespace(**square, **norms, up=affine(inner, dim), down=affine(dim, inner))

    return SimpleNamespace(
        word=floats(VOCABULARY, width), position=floats(POSITIONS, width), token_type=floats(width),
        norm=(floats(width), floats(width)), projection=affine(dim, width) if width != dim else None,
        layers=[layer() for _ in range(layers)], heads=heads, epsilon=1e-12, activation=activation,
        relative=floats(heads, 2 * POSITIONS - 1) if distances == "bias" else None,
        distances=SimpleNamespace(
            bucket=np.clip(np.arange(1 - POSITIONS, POSITIONS), -20, 19) + 20,
            key=[floats(40, dim) for _ in range(layers)], query=[floats(40, dim) for _ in range(layers)],
        ) if distances == "content" else None,
    )  # fmt: skip


def main() -> None:
    runner_native._PATH = sys.argv[1]
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, VOCABULARY, n).tolist() for n in LENGTHS]
    batches = [rows, rows[:1], rows[2:3], rows[3:6], rows[::-1]]
    # Threads share the same things in every case, and the thread sanitizer takes minutes for all of them. Without int8:
    # built with it (GCC 12), quantizing a row never ends; with no sanitizer, or with the others, it does.
    few = "tsan" in os.environ.get("LD_PRELOAD", "")
    for isa in ("",) if few else ("", "avx512vnni", "avx512", "avx2", "plain"):
        os.environ["EMBEDCACHE_ISA"] = isa
        for dtype in filter(runner_native.backend, ("float32", "bfloat16")):
            sanitized_rotary.check(dtype, few)
        for shape in SHAPES[1::3] if few else SHAPES:
            for dtype, kept in MODES[:2] if few else MODES:
                if not runner_native.backend(dtype):
                    continue
                encoder = runner_native.NativeEncoder(blueprint(*shape), POSITIONS, dtype, kept)
                offsets = np.cumsum([0, *LENGTHS])
                (tokens,) = encoder.run_codes(TokenRows.of(rows), [(runner_native.TOKENS, shape[4])])
                assert np.isfinite(tokens).all() and len(tokens) == offsets[-1]
                together = encoder.run(rows, [("cls", shape[4]), ("mean", shape[4])])
                assert (tokens[offsets[:-1]] == together[0]).all()
                for outputs in OUTPUTS[-1:] if few else OUTPUTS:
                    asked = [(pooling, layer * shape[4]) for pooling, layer in outputs]
                    with ThreadPoolExecutor(3) as pool:
                        found = list(pool.map(encoder.run, batches, [asked] * len(batches)))
                    for x, y in zip(found[0], found[-1], strict=True):
                        assert np.isfinite(x).all() and (x == y[::-1]).all()


main()
print("clean")
