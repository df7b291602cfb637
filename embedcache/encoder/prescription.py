"""The vector that a model's authors prescribe, read from a sentence-transformers folder.

``SentenceTransformer(folder).encode(texts)`` returns it: poolings of the last layer, concatenated, then the steps that
modules.json lists after them. The files are read as the current sentence-transformers reads them, with the names that
every version since 0.2 has used. An unknown part is named and refused: leaving it out would give another vector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcache.encoder.file_hashes import weights_sha256
from embedcache.encoder.folder import (
    STATIC,
    is_static,
    is_theirs,
    model_config,
    positions_of,
    read_json,
    read_modules,
    transformer_folder,
)
from embedcache.encoder.kinds import THEIR_DECODER
from embedcache.errors import EmbedcacheError

MODES = {  # sentence-transformers' poolings, in the order in which older versions concatenate them
    "cls": ("pooling_mode_cls_token", "cls"),
    "max": ("pooling_mode_max_tokens", "max"),
    "mean": ("pooling_mode_mean_tokens", "mean"),
    "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", "sqrt_mean"),
    "weightedmean": ("pooling_mode_weightedmean_tokens", "weighted_mean"),
    "lasttoken": ("pooling_mode_lasttoken", "last"),
}
SETTINGS = (  # the file of the Transformer's settings; older versions had a class and a name per architecture
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)  # fmt: skip
USUAL = {  # settings that have no effect at these values
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "tokenizer_name_or_path": None,
}
HARMLESS = frozenset(("max_seq_length", "do_lower_case", "unpad_inputs", "query_length", "document_length"))
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")
CONFIG = "config_sentence_transformers.json"
ANY_LENGTH = 1 << 20  # max_length of a static model, which has no limit
ANOTHER = "store other vectors with --pooling, such as cls or mean"


@dataclass(frozen=True)
class Prescription:
    """What a folder prescribes.

    Attributes:
        pooling: names of ``POOLINGS``; their vectors are concatenated.
        steps: what follows, in order, as JSON: {"step": "dense", "weights": sha256, "out": width, "activation": name,
            "residual": bool}, {"step": "layer_norm", "weights": sha256}, {"step": "normalize"} or {"step": "cut",
            "dims": N}.
        files: the file of each step's weights, or None.
        prompts: by name.
        prompt: the one put before every text; "" for none.
        max_length: the most tokens of a text; None: no limit.
        lower_case: whether texts are lowercased first.
        matryoshka: the widths to which the vectors may be cut; () where the folder declares none, None for any.
        read: the names of the files that this was read from.
    """

    pooling: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]
    files: tuple[Path | None, ...]
    prompts: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    max_length: int | None = None
    lower_case: bool = False
    matryoshka: tuple[int, ...] | None = ()
    read: tuple[str, ...] = ()

    def about(self, dims: int | None = None) -> dict[str, Any]:
        """What a cache records. ``dims``: cut the vectors to this width, then normalize them; None: do not."""
        if dims is None:
            return {"pooling": list(self.pooling), "steps": list(self.steps)}
        uncut = [step for step in self.steps if step["step"] != "cut"]
        return {
            "pooling": list(self.pooling),
            "steps": [*uncut, {"step": "cut", "dims": dims}, {"step": "normalize"}],
            "dims": dims,
        }


def in_words(about: Mapping[str, Any]) -> str:
    """``Prescription.about`` in words, such as "mean, Dense to 512 (Tanh), unit length"."""
    names = {"layer_norm": "LayerNorm", "normalize": "unit length"}
    words = ["+".join(map(str, about["pooling"]))]
    for step in about["steps"]:
        kind = step.get("step")
        if kind == "dense":
            words.append(f"Dense to {step.get('out')} ({step.get('activation')})")
        elif kind == "cut":
            words.append(f"the first {step.get('dims')} dimensions")
        else:
            words.append(names.get(str(kind), str(kind)))
    return ", ".join(words)


def read_prompts(root: Path) -> tuple[dict[str, str], str]:
    """(prompts by name, the default prompt's text) of a folder; ({}, "") where it has none."""
    path, config = root / CONFIG, _settings(root)
    prompts = {str(name): text or "" for name, text in (config.get("prompts") or {}).items()}
    default = config.get("default_prompt_name")
    if not all(isinstance(text, str) for text in prompts.values()):
        raise EmbedcacheError(f"{path}: a prompt is not a text: copy the model again")
    if default is not None and default not in {"query": "", "document": "", **prompts}:
        raise EmbedcacheError(f"{path}: its default prompt {default!r} is not among its prompts: copy the model again")
    return prompts, prompts.get(default, "") if isinstance(default, str) else ""


def read_prescription(root: Path, name: str) -> Prescription | None:
    """Read what a model's folder prescribes; None where there is no modules.json.

    Args:
        root: the folder that may hold modules.json.
        name: of the model, for messages.

    Raises:
        EmbedcacheError: a part is not supported (the message names it), or a file is missing or damaged.
    """
    modules = read_modules(root)
    if not modules:
        return None
    kinds = [_kind(module, name) for module in modules]
    heads = 1 if kinds[0] == STATIC else 2  # a table of token vectors includes its pooling
    if kinds[:heads] not in ([STATIC], ["Transformer", "Pooling"]):
        raise EmbedcacheError(f"{name}: modules.json lists {', '.join(kinds)}, which is not supported: {ANOTHER}")
    config = _settings(root)
    if config.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise EmbedcacheError(f"{name} is a {config['model_type']}, which has no single vector per text: {ANOTHER}")
    prompts, prompt = read_prompts(root)
    steps: list[dict[str, Any]] = []
    files: list[Path | None] = []
    for module, kind in zip(modules[heads:], kinds[heads:], strict=True):
        if kind != "Dropout":
            step, weights = _step(kind, root / module["path"], name)
            steps.append(step)
            files.append(weights)
    truncate = config.get("truncate_dim")
    if truncate is not None:
        steps.append({"step": "cut", "dims": _whole(truncate, root / CONFIG, "truncate_dim")})
        files.append(None)
    max_length, lower_case, settings = _transformer(root, name)
    used = ["modules.json", *(f"{one['path']}/config.json" for one in modules[1:heads]), *settings]
    return Prescription(
        ("mean",) if heads == 1 else _pooling(root / modules[1]["path"], name, prompts),
        tuple(steps),
        tuple(files),
        prompts,
        prompt,
        max_length,
        lower_case,
        None if truncate is not None else _matryoshka(root),
        tuple(used + ([CONFIG] if config else [])),
    )


def _settings(root: Path) -> dict[str, Any]:
    """The settings of the whole model; {} where there are none."""
    return read_json(root / CONFIG) if (root / CONFIG).is_file() else {}


def _kind(module: Mapping[str, Any], name: str) -> str:
    kind = str(module["type"]).rpartition(".")[2]
    known = (STATIC, "Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
    if not is_theirs(module["type"]) or kind not in known:
        raise EmbedcacheError(f"{name}: modules.json asks for {module['type']}, which is not supported: {ANOTHER}")
    return kind


def _pooling(folder: Path, name: str, prompts: Mapping[str, str]) -> tuple[str, ...]:
    config = _config(folder, name)
    joined = config.get("pooling_mode")
    if joined is None:
        joined = [mode for mode, (key, _) in MODES.items() if config.get(key)] or ["mean"]
    modes = [joined] if isinstance(joined, str) else joined
    if not isinstance(modes, list) or not modes or not all(mode in MODES for mode in modes):
        raise EmbedcacheError(f"{name}: {folder.name}/config.json has the unknown pooling {joined!r}: {ANOTHER}")
    if config.get("include_prompt", True) is not True and any(prompts.values()):
        raise EmbedcacheError(
            f"{name}: {folder.name}/config.json leaves the prompt's tokens out of the pooling (include_prompt), which "
            f"is not supported: {ANOTHER}"
        )
    return tuple(MODES[mode][1] for mode in modes)


def _config(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise EmbedcacheError(f"{name}: {folder.name}/config.json is missing: copy the model again, or {ANOTHER}")
    return read_json(folder / "config.json")


def _step(kind: str, folder: Path, name: str) -> tuple[dict[str, Any], Path | None]:
    """One module after the pooling, and the file of its weights or None."""
    path = folder / "config.json"
    config = {} if kind == "Normalize" and not path.is_file() else _config(folder, name)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise EmbedcacheError(f"{name}: {folder.name} works on {config[key]}, which is not supported: {ANOTHER}")
    if kind == "Normalize":
        return {"step": "normalize"}, None
    weights = folder / "model.safetensors"
    if not weights.is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        has = "has only pickled weights, which are not loaded because they can run code" if pickled else "is missing"
        again = "save the model again with SentenceTransformer.save" if pickled else "copy the model again"
        raise EmbedcacheError(f"{name}: {folder.name}/model.safetensors {has}: {again}, or {ANOTHER}")
    if kind == "LayerNorm":
        return {"step": "layer_norm", "weights": weights_sha256(weights)}, weights
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    short = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or short not in ACTIVATIONS:
        raise EmbedcacheError(f"{name}: {folder.name} has the unknown activation {activation}: {ANOTHER}")
    out = _whole(config.get("out_features"), path, "out_features")
    about = {"step": "dense", "weights": weights_sha256(weights), "out": out, "activation": short}
    return about | {"residual": config.get("use_residual", False) is True}, weights


def _transformer(root: Path, name: str) -> tuple[int | None, bool, list[str]]:
    """(the most tokens, whether texts are lowercased, the settings file if any) by the Transformer's own settings."""
    folder = transformer_folder(root)
    if is_static(folder):
        cut = read_json(folder / "tokenizer.json").get("truncation") or {}
        return int(cut.get("max_length", ANY_LENGTH)), False, []
    kind = model_config(folder).get("model_type")
    if kind in THEIR_DECODER:
        raise EmbedcacheError(
            f"{name} ({kind}): sentence-transformers pools the states of its decoder, which is not supported; to store "
            "those of its encoder use --pooling mean"
        )
    file = next((file for file in SETTINGS if (folder / file).is_file()), None)
    config = read_json(folder / file) if file else {}
    for key, value in config.items():
        if key not in HARMLESS and value and value != USUAL.get(key):
            raise EmbedcacheError(f"{name}: {file} has {key}={json.dumps(value)}, which is not supported: {ANOTHER}")
    longest = [config["max_seq_length"]] if config.get("max_seq_length") is not None else []
    tokenizer = folder / "tokenizer_config.json"
    if not longest and tokenizer.is_file():
        longest = [read_json(tokenizer).get("model_max_length")]
    positions = positions_of(folder)
    found = [int(one) for one in [*longest, positions] if isinstance(one, (int, float)) and 0 < one < 1 << 31]
    return min(found, default=None), config.get("do_lower_case") is True, [file] if file else []


def _matryoshka(root: Path) -> tuple[int, ...]:
    """The widths that the configuration declares."""
    declared = model_config(transformer_folder(root)).get("matryoshka_dimensions")
    return tuple(one for one in declared if isinstance(one, int)) if isinstance(declared, list) else ()


def _whole(value: Any, path: Path, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise EmbedcacheError(f"{path}: {key} is {value!r}, not a positive whole number: copy the model again")
    return value
