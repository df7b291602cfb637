"""Read an encoder straight from its files, without torch and transformers, which take seconds to import.

Only for folders where the result is certain to equal that of transformers to the bit: a known family with nothing
unusual in its configuration, float32 or float16 weights, a tokenizer that ``tokenizer_file`` reads.
``load_with_transformers`` reads all others, and tokenizes texts that may hold a written-out special token, such as
"[MASK]".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.encoder.adapter_files import ADAPTER
from embedcache.encoder.at_once import cpu_threads
from embedcache.encoder.blueprint import Affine, Blueprint, assemble, plain_config
from embedcache.encoder.families import FAMILIES, Family
from embedcache.encoder.folder import read_json, weight_files
from embedcache.encoder.runner_native import NativeEncoder
from embedcache.encoder.tokenizer import TextTokenizer
from embedcache.encoder.tokenizer_file import read_tokenizer
from embedcache.encoder.tuned import Tuned


class Direct:
    """A native encoder and its tokenizer.

    Attributes:
        runner: the native encoder.
        tokenize: texts to ``Tokens``.
        dim: D, the width of the vectors.
        layers: the number of layers.
        widths: of each layer's vectors, from the embeddings on.
        first: whether the tokenizer puts a token before the text.
        threads: the number of batches to compute at once.
        uncounted: the token id whose rows only ``runner_plain`` can compute, see ``Blueprint``; or None.
    """

    def __init__(
        self, blueprint: Blueprint, backend: Any, max_length: int, compute_dtype: str, kept: Sequence[str] = ()
    ) -> None:
        self.runner = NativeEncoder(blueprint, max_length, compute_dtype, kept)
        unknown = getattr(backend.model, "unk_token", None)
        self.tokenize = TextTokenizer(backend, max_length, unknown=unknown and backend.token_to_id(unknown))
        self.dim, self.layers = len(blueprint.layers[0].query[1]), len(blueprint.layers)
        self.widths, self.first = [self.dim] * (self.layers + 1), True
        self.uncounted, self.threads = blueprint.uncounted, cpu_threads()
        self._marks = {token.content[0] for token in backend.get_added_tokens_decoder().values()}

    def certain(self, text: Any) -> bool:
        """Whether its tokens are certain to be those of transformers: no special token can start in the text."""
        return isinstance(text, str) and not any(mark in text for mark in self._marks)


def load_direct(
    folder: Path, max_length: int, compute_dtype: str, tuned: Tuned | None = None, kept: Sequence[str] = ()
) -> Direct | None:
    """The encoder in a folder; None where transformers must load it, or must explain what is wrong with the folder.

    Args:
        folder: with the encoder's files.
        max_length: the most tokens of a text.
        compute_dtype: the dtype to compute in.
        tuned: what is laid over its weights; bottlenecks have no place in a blueprint.
        kept: with int8, the products that stay in bfloat16.
    """
    with suppress(Exception):  # loading with transformers gives better messages for a damaged folder
        if (folder / ADAPTER).is_file() or (tuned and tuned.header.kind == "adapter"):
            return None
        config = read_json(folder / "config.json")
        family = FAMILIES.get(config["model_type"])
        if family is None or family.tokenizers is None or "auto_map" in config or config.get("quantization_config"):
            return None
        backend = read_tokenizer(folder, family.tokenizers)
        blueprint = backend and _read_blueprint(folder, config, family, max_length, tuned)
        if blueprint and max(backend.get_vocab().values()) < len(blueprint.word):
            return Direct(blueprint, backend, max_length, compute_dtype, kept)
    return None


def _read_blueprint(
    folder: Path, config: dict[str, Any], family: Family, max_length: int, tuned: Tuned | None = None
) -> Blueprint | None:
    def setting(name: str, *default: Any) -> Any:
        key = family.keys.get(name, name)
        return config.get(key, *default) if default else config[key]

    if not plain_config(config.get) or config.get("pruned_heads"):
        return None
    with _Weights(folder, family.prefix or config["model_type"]) as weights:
        weights.put(tuned)
        blueprint = assemble(
            family,
            setting,
            weights,
            epsilon=setting("layer_norm_eps") if family.epsilon is None else family.epsilon,
            uncounted=family.behind_id(setting),
            relative=lambda weight: _relative(weight, max_length),
        )
    width, first = setting("hidden_size"), blueprint.layers[0]
    fits = first.query[0].shape == (width, width) and width % blueprint.heads == 0
    return blueprint if fits and len(blueprint.position) >= max_length else None


class _Weights:
    """The tensors in a folder's safetensors files as float32 arrays, by module name. ``over``: used instead of them."""

    def __init__(self, folder: Path, prefix: str) -> None:
        from safetensors import safe_open

        self.over: dict[str, np.ndarray] = {}
        self._files = [safe_open(path, framework="numpy") for path in weight_files(folder)]
        self._place = {self._plain(name, prefix): (file, name) for file in self._files for name in file.keys()}  # noqa: SIM118

    @staticmethod
    def _plain(name: str, prefix: str) -> str:
        name = name.removeprefix(f"{prefix}.")
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):  # LayerNorm's names in old checkpoints
            name = name.removesuffix(old) + new if name.endswith(f"LayerNorm{old}") else name
        return name

    def has(self, module: str) -> bool:
        return f"{module}.weight" in self._place

    def table(self, module: str) -> np.ndarray:
        return self._read(f"{module}.weight")

    def affine(self, module: str) -> Affine:
        return self._read(f"{module}.weight"), self._read(f"{module}.bias")

    def put(self, tuned: Tuned | None) -> None:
        """Raises KeyError where the folder has no such weights."""
        self.over = {} if tuned is None else tuned.over(self)
        if unknown := self.over.keys() - self._place.keys():
            raise KeyError(min(unknown))

    def __getitem__(self, name: str) -> np.ndarray:
        """One of the folder's own."""
        return self._read(name)

    def _read(self, name: str) -> np.ndarray:
        if name in self.over:
            return self.over[name]
        file, stored = self._place[name]
        array = file.get_tensor(stored)
        if array.dtype not in (np.float32, np.float16):
            raise TypeError(f"{name} is {array.dtype}")
        return np.asarray(array, dtype=np.float32)

    def __enter__(self) -> _Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()
        self._place.clear()


def _relative(weight: np.ndarray, max_length: int) -> np.ndarray:
    """MPNet's bias by distance, float32 [heads, 2 * max_length - 1]; its buckets are T5's (Raffel et al., 2020)."""
    if len(weight) != 32:
        raise ValueError("not 32 buckets")
    distance = np.arange(1 - max_length, max_length)
    # 16 buckets per side: 8 for one distance each, then 8 on a logarithmic scale up to 128.
    near, far = 8, np.abs(distance)
    with np.errstate(divide="ignore"):
        scaled = np.log(far.astype(np.float32) / np.float32(near)) / np.float32(math.log(128 / near)) * np.float32(8)
    logarithmic = np.minimum(near + np.where(far < near, 0, scaled).astype(np.int64), 15)
    bucket = np.where(distance > 0, 16, 0) + np.where(far < near, far, logarithmic)
    return np.ascontiguousarray(weight[bucket].T)
