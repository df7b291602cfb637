"""The native encoder of rotary families: ctypes binding of csrc/encoder/rotary.h."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_void_p

import numpy as np

from embedcache.encoder.rotary_blueprint import LINEARS, NORMS, RotaryBlueprint, Weights
from embedcache.encoder.runner_native import ACTIVATIONS, COMPUTE, NativeEncoder, WeightPair, native_library, pointer

ROTARY_ACTIVATIONS = ACTIVATIONS | {"silu": 3}


class _Layer(Structure):
    _fields_ = [
        ("cosine", c_void_p),
        ("sine", c_void_p),
        ("window", c_int64),
        *((name, WeightPair) for name in LINEARS),
        *((name, WeightPair) for name in NORMS),
    ]


class _Spec(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("vocabulary", "positions", "dim", "inner", "heads", "key_heads", "head")),
        ("layers", c_int64),
        ("word", c_void_p),
        ("token_type", c_void_p),
        ("norm", WeightPair),
        ("final_norm", WeightPair),
        ("layer", POINTER(_Layer)),
        *((name, c_float) for name in ("word_scale", "scale", "epsilon")),
        *((name, c_int32) for name in ("rms", "causal", "activation", "compute")),
    ]


class RotaryEncoder(NativeEncoder):
    """A rotary blueprint's weights, packed. ``run`` may be called from several threads at once.

    Raises:
        EmbedcacheError: this machine cannot run it (see ``backend``), a size is not supported, or memory is short.
    """

    def __init__(self, blueprint: RotaryBlueprint, compute_dtype: str) -> None:
        self._library = native_library()
        self._alive: list[np.ndarray] = []  # arrays that the library reads as long as the encoder exists
        packed: list[np.ndarray] = []  # arrays that it copies, so they can go after ec_rotary_create
        layers = (_Layer * len(blueprint.layers))()
        for to, layer in zip(layers, blueprint.layers, strict=True):
            to.window = -1 if layer.window is None else layer.window
            to.cosine, to.sine = pointer(layer.cosine, self._alive), pointer(layer.sine, self._alive)
            for name, weights in layer.linears.items():
                setattr(to, name, _pair(weights, packed))
            for name, weights in layer.norms.items():
                setattr(to, name, _pair(weights, self._alive))
        vocabulary, dim = blueprint.word.shape
        spec = _Spec(
            vocabulary=vocabulary,
            positions=len(blueprint.layers[0].cosine),
            dim=dim,
            inner=blueprint.layers[0].linears["down"][0].shape[1],
            heads=blueprint.heads,
            key_heads=blueprint.key_heads,
            head=blueprint.head,
            layers=len(layers),
            word=pointer(blueprint.word, self._alive),
            token_type=pointer(blueprint.token_type, self._alive),
            norm=_pair(blueprint.norm, self._alive),
            final_norm=_pair(blueprint.final_norm, self._alive),
            layer=layers,
            word_scale=blueprint.word_scale,
            scale=blueprint.scale,
            epsilon=blueprint.epsilon,
            rms=blueprint.rms,
            causal=blueprint.causal,
            activation=ROTARY_ACTIVATIONS[blueprint.activation],
            compute=COMPUTE[compute_dtype],
        )
        self._dim, self.causal = dim, blueprint.causal
        self._keep(self._library.ec_rotary_create(byref(spec)))


def _pair(weights: Weights | None, alive: list[np.ndarray]) -> WeightPair:
    return WeightPair() if weights is None else WeightPair(pointer(weights[0], alive), pointer(weights[1], alive))
