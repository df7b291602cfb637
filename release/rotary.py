"""Compare the native code of rotary encoders with transformers where torch cannot run: under emulation of ARM.

    PYTHONPATH=. python release/rotary.py write rotary.npz           # here, with torch
    PYTHONPATH=. python release/rotary.py check rotary.npz [KIND..]  # there, with NumPy alone

The file has tiny random models of every family (tests/encoder/rotary_kinds.py), the vectors that transformers computes
of each row alone in float32, and how far those of bfloat16 are off. The bounds are those of
tests/encoder/test_runner_rotary.py.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from embedcache.encoder.poolings import POOLINGS
from embedcache.encoder.rotary_blueprint import RotaryBlueprint, RotaryLayer
from embedcache.encoder.runner_native import backend
from embedcache.encoder.runner_rotary import RotaryEncoder
from tests.encoder.rotary_kinds import CASES, make_rotary, some_rows

LENGTHS = [5, 1, 17, 64, 2, 97, 200]  # longer than every window, than a block of queries (48), of tokens (192)
LONG = ("modernbert", "qwen3")  # these also get a row longer than a block of keys (512)
MAX_LENGTH = 700
CLASSES = {made.__name__: made for made in (RotaryBlueprint, RotaryLayer)}


def rows_of(kind: str) -> list[list[int]]:
    return some_rows([*LENGTHS, 530] if kind in LONG else LENGTHS)


def outputs_of(layers: int) -> list[tuple[str, int]]:
    return [(pooling, layer) for layer in (layers, 1) for pooling in POOLINGS]


def taken_apart(value: Any, arrays: dict[str, np.ndarray], at: str) -> Any:
    """``value`` as JSON; its arrays go to ``arrays``."""
    if hasattr(value, "detach"):
        arrays[at] = value.detach().float().numpy()
        return {"array": at}
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return {"class": type(value).__name__, "parts": taken_apart(parts, arrays, at)}
    if isinstance(value, dict):
        return {name: taken_apart(part, arrays, f"{at}/{name}") for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [taken_apart(part, arrays, f"{at}/{i}") for i, part in enumerate(value)]
    return value


def put_together(value: Any, arrays: Any) -> Any:
    """The inverse."""
    if isinstance(value, list):
        return [put_together(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "class" in value:
        return CLASSES[value["class"]](**put_together(value["parts"], arrays))
    return {name: put_together(part, arrays) for name, part in value.items()}


def write(path: str) -> None:
    """Needs torch and transformers."""
    from embedcache.encoder.read_rotary import read_rotary
    from embedcache.encoder.runner_plain import Plain

    arrays: dict[str, np.ndarray] = {}
    cases = {}
    for kind in CASES:
        model = make_rotary(kind)
        rows, outputs = rows_of(kind), outputs_of(model.config.num_hidden_layers)
        cases[kind] = taken_apart(read_rotary(model, MAX_LENGTH), arrays, kind)
        for name, plain in (
            ("exact", Plain(model, 0, "cpu")),
            ("rounded", Plain(make_rotary(kind).bfloat16(), 0, "cpu")),
        ):
            alone = [plain.run([row], outputs) for row in rows]
            arrays[f"{kind}/{name}"] = np.stack([np.concatenate(vectors) for vectors in zip(*alone, strict=True)])
    np.savez(path, cases=json.dumps(cases), **arrays)


def check(path: str, kinds: list[str]) -> None:
    """Ends with an AssertionError where a vector is off."""
    with np.load(path) as arrays:
        cases = json.loads(str(arrays["cases"]))
        for kind in kinds or cases:
            model, rows = put_together(cases[kind], arrays), rows_of(kind)
            outputs = outputs_of(len(model.layers))
            exact, rounded = arrays[f"{kind}/exact"], arrays[f"{kind}/rounded"]
            for dtype in filter(backend, ("float32", "bfloat16")):
                encoder = RotaryEncoder(model, dtype)
                found = np.stack(encoder.run(rows, outputs))
                for got, want, theirs in zip(found, exact, rounded, strict=True):
                    if dtype == "float32":
                        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5 * np.abs(want).max())
                    else:
                        ours, torchs = (np.sqrt(np.square(one - want).mean()) for one in (got, theirs))
                        assert ours <= 1.1 * torchs + 1e-6, (kind, ours, torchs)
                last = outputs[:1]
                alone = np.concatenate([encoder.run([row], last)[0] for row in rows])
                np.testing.assert_array_equal(alone, found[0])
                worst = np.abs(found - exact).max() / np.abs(exact).max()
                print(f"{kind}: {backend(dtype)}, {dtype} within {worst:.0e}; the same bits alone", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("write", "check"):
        sys.exit(f"usage: {sys.argv[0]} write|check FILE [KIND...]")
    write(sys.argv[2]) if sys.argv[1] == "write" else check(sys.argv[2], sys.argv[3:])
