"""The native encoder: ctypes binding of csrc/encoder/encoder.h. A batch runs on one thread.

A row's vectors depend on its token ids only, to the bit, so any rows can form a batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedcache.common.native_library import find_library, open_library
from embedcache.encoder.families import FAMILIES
from embedcache.encoder.folder import model_config
from embedcache.encoder.hardware import cpu_flags
from embedcache.encoder.poolings import POOLINGS, Pooling
from embedcache.encoder.token_rows import TokenRows
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from torch import Tensor

    from embedcache.encoder.blueprint import Affine, Blueprint, Layer

ABI_VERSION = 4
ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "relu": 2}
COMPUTE = {"float32": 0, "bfloat16": 1, "int8": 2}
PRODUCTS = ("qkv", "output", "up", "down")  # of a layer, in the order of their bits in _Layer.kept
TOKENS = -1  # instead of a pooling's number: the vectors of all tokens
_PATH = find_library(__file__, "_encoder_cpu")


class WeightPair(Structure):
    """A linear layer's or a LayerNorm's weight and bias."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        *((name, WeightPair) for name in ("query", "key", "value", "output", "up", "down", "norm1", "norm2")),
        ("distance_key", c_void_p),
        ("distance_query", c_void_p),
        ("kept", c_int32),
    ]


class _Spec(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("vocabulary", "positions", "width", "dim", "inner", "heads", "layers")),
        *((name, c_void_p) for name in ("word", "position", "token_type")),
        ("norm", WeightPair),
        ("projection", WeightPair),
        ("layer", POINTER(_Layer)),
        ("relative", c_void_p),
        ("bucket", c_void_p),
        ("buckets", c_int64),
        ("epsilon", c_float),
        ("activation", c_int32),
        ("compute", c_int32),
    ]


class _Output(Structure):
    _fields_ = [("layer", c_int32), ("pooling", c_int32), ("vectors", c_void_p)]


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled library, or None where it is missing or of another version."""
    library, _ = open_library(_PATH, "ec_encoder_abi_version", ABI_VERSION)
    if library is None:
        return None
    library.ec_encoder_backend.restype = library.ec_encoder_last_error.restype = c_char_p
    library.ec_encoder_create.restype = c_void_p
    library.ec_encoder_create.argtypes = [POINTER(_Spec)]
    library.ec_rotary_create.restype = c_void_p
    library.ec_rotary_create.argtypes = [c_void_p]
    library.ec_encoder_destroy.argtypes = [c_void_p]
    library.ec_encoder_run.argtypes = [c_void_p, c_void_p, c_void_p, c_int64, POINTER(_Output), c_int32]
    return library


def native_library() -> ctypes.CDLL:
    """The built library.

    Raises:
        EmbedcacheError: there is none of this version.
    """
    library = _library()
    if library is None:
        raise EmbedcacheError("the native encoder is not built: reinstall embedcache where there is a C++ compiler")
    return library


def backend(compute_dtype: str) -> str:
    """The code that computes in this dtype here, such as "cpu-avx512-bf16"; "" where the native encoder cannot run."""
    library = _library()
    if library is None or compute_dtype not in COMPUTE:
        return ""
    return str(library.ec_encoder_backend(COMPUTE[compute_dtype]).decode())


def may_be_native(compute_dtype: str, device: str, kernel: str | None) -> bool:
    """Whether the native encoder may compute this.

    In bfloat16 it uses AVX-512, or BF16 on ARM. Where the processor has AMX, torch is preferred, which uses it and is
    several times as fast. ``kernel`` is the runner asked for, or None.
    """
    better = compute_dtype == "bfloat16" and "amx_bf16" in cpu_flags()
    asked = kernel == "native" or (kernel is None and not better)
    return device == "cpu" and asked and bool(backend(compute_dtype))


def check_int8(folder: Path, kernel: str | None) -> str:
    """The device that computes the model in a folder in int8.

    Raises:
        EmbedcacheError: there is none here, or this family or kernel has no int8 products.
    """
    kind = str(model_config(folder).get("model_type"))
    if kind not in FAMILIES:
        why = f"{kind} models have no int8 products, only {', '.join(FAMILIES)} have"
    elif kernel not in (None, "native"):
        why = f"the kernel '{kernel}' has no int8 products, only native has"
    elif _library() is None:
        why = "the native encoder is not built (reinstall embedcache where there is a C++ compiler)"
    elif not backend("int8"):
        why = "this processor has no AVX2, or on ARM no dot products"
    else:
        return "cpu"
    raise EmbedcacheError(f"int8: {why}: use --dtype bfloat16 or float32")


class NativeEncoder:
    """A blueprint's weights, packed. ``run`` may be called from several threads at once.

    Raises:
        EmbedcacheError: this machine cannot run it (see ``backend``), a size is not supported, or memory is short.
    """

    kernel = "native"
    invariant = True
    causal = False
    batch_tokens: int | None = None
    _handle: int | None = None

    def __init__(self, blueprint: Blueprint, max_length: int, compute_dtype: str, kept: Sequence[str] = ()) -> None:
        self._library = native_library()
        self._alive: list[np.ndarray] = []  # arrays that the library reads as long as the encoder exists
        packed: list[np.ndarray] = []  # arrays that it copies, so they can go after ec_encoder_create
        layers, distances = (_Layer * len(blueprint.layers))(), blueprint.distances
        made: dict[int, _Layer] = {}  # shared weights have the same addresses: the library packs them once
        for number, layer in enumerate(blueprint.layers, 1):
            to = made.get(id(layer)) or made.setdefault(id(layer), self._layer(layer, packed))
            to.kept = sum(1 << bit for bit, name in enumerate(PRODUCTS) if f"{number} {name}" in kept)
            if distances:
                to.distance_key = pointer(distances.key[number - 1], packed)
                to.distance_query = pointer(distances.query[number - 1], packed)
            layers[number - 1] = to
        positions = max_length if blueprint.position is None else min(len(blueprint.position), max_length)
        vocabulary, width = blueprint.word.shape
        spec = _Spec(
            vocabulary=vocabulary,
            positions=positions,
            width=width,
            dim=len(blueprint.layers[0].query[1]),
            inner=len(blueprint.layers[0].up[1]),
            heads=blueprint.heads,
            layers=len(layers),
            word=pointer(blueprint.word, self._alive),
            position=pointer(blueprint.position, self._alive),
            token_type=pointer(blueprint.token_type, self._alive),
            norm=_pair(blueprint.norm, self._alive),
            projection=_pair(blueprint.projection, packed) if blueprint.projection else WeightPair(),
            layer=layers,
            relative=pointer(blueprint.relative, self._alive, positions),
            bucket=_bucket(distances.bucket, self._alive, positions) if distances else None,
            buckets=len(distances.key[0]) if distances else 0,
            epsilon=blueprint.epsilon,
            activation=ACTIVATIONS[blueprint.activation],
            compute=COMPUTE[compute_dtype],
        )
        self._dim = spec.dim
        self._keep(self._library.ec_encoder_create(spec))

    def _layer(self, layer: Layer, packed: list[np.ndarray]) -> _Layer:
        to = _Layer()
        for name in ("query", "key", "value", "output", "up", "down"):
            setattr(to, name, _pair(getattr(layer, name), packed))
        for name in ("norm1", "norm2"):
            setattr(to, name, _pair(getattr(layer, name), self._alive))
        return to

    def _keep(self, handle: int | None) -> None:
        self._handle = handle
        if not handle:
            raise EmbedcacheError(f"the native encoder cannot be created: {self._last_error()}")

    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """float32 [n, D] for each (pooling, layer); layers count from the embeddings, 0."""
        rows = TokenRows.of(ids)
        poolings = [POOLINGS.get(name) for name, _ in outputs]  # None: the tokens' vectors themselves
        codes = [TOKENS if one is None or one.native is None else one.native for one in poolings]
        found = self.run_codes(rows, list(zip(codes, (layer for _, layer in outputs), strict=True)))
        return [
            vectors if one is None or one.native is not None else _pool_tokens(vectors, rows.offsets, one)
            for one, vectors in zip(poolings, found, strict=True)
        ]

    def run_codes(self, rows: TokenRows, outputs: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """As ``run``, for (code, layer) pairs.

        Returns:
            float32 [n, D] for each pair; for TOKENS float32 [T, D], a vector for each of the T tokens.
        """
        flat, offsets = np.ascontiguousarray(rows.flat), np.ascontiguousarray(rows.offsets)
        sizes = [len(flat) if code == TOKENS else len(rows) for code, _ in outputs]
        vectors = [np.empty((size, self._dim), np.float32) for size in sizes]
        asked = (_Output * len(outputs))(
            *(_Output(layer, code, out.ctypes.data) for (code, layer), out in zip(outputs, vectors, strict=True))
        )
        code = self._library.ec_encoder_run(
            self._handle, flat.ctypes.data, offsets.ctypes.data, len(rows), asked, len(outputs)
        )
        if code:
            raise EmbedcacheError(f"the native encoder failed: {self._last_error()}")
        return vectors

    def _last_error(self) -> str:
        return str(self._library.ec_encoder_last_error().decode(errors="replace"))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.ec_encoder_destroy(self._handle)
            self._handle = None


def _pool_tokens(tokens: np.ndarray, offsets: np.ndarray, pooling: Pooling) -> np.ndarray:
    """Pool [T, D] to [n, D] row by row, so that a row's vector does not depend on the others of its batch."""
    import torch

    rows = [torch.from_numpy(tokens[begin:end])[None] for begin, end in pairwise(offsets.tolist())]
    pooled: np.ndarray = torch.cat([pooling.pool(row, None) for row in rows]).numpy()
    return pooled


def pointer(tensor: Tensor | np.ndarray | None, alive: list[np.ndarray], positions: int | None = None) -> int | None:
    """Address of the numbers as float32; ``alive`` keeps them. ``positions``: take that part of a bias by distance."""
    if tensor is None:
        return None
    numbers = tensor if isinstance(tensor, np.ndarray) else tensor.detach().float().cpu().numpy()
    if positions is not None:
        numbers = _within(numbers, positions)
    alive.append(np.ascontiguousarray(numbers, dtype=np.float32))
    return alive[-1].ctypes.data


def _bucket(bucket: Tensor | np.ndarray, alive: list[np.ndarray], positions: int) -> int:
    """Address of those that the distances of ``positions`` tokens have, int32 [2 * positions - 1]."""
    alive.append(np.ascontiguousarray(_within(np.asarray(bucket), positions), np.int32))
    return alive[-1].ctypes.data


def _within(numbers: np.ndarray, positions: int) -> np.ndarray:
    """[..., 2 M - 1], the distance 0 in the middle: those of the distances that ``positions`` tokens have."""
    middle = numbers.shape[-1] // 2
    return numbers[..., middle - positions + 1 : middle + positions]


def _pair(pair: Affine, alive: list[np.ndarray]) -> WeightPair:
    return WeightPair(pointer(pair[0], alive), pointer(pair[1], alive))
