"""What is trained: a model with its tokenizer as a folder has them, or a new one from a configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from embedcache.common.docstrings import keep_docstrings
from embedcache.common.machine import cap_loaded_threads
from embedcache.encoder.families import behind_id
from embedcache.encoder.folder import (
    ADAPTER,
    find_root,
    folder_identity,
    is_static,
    model_config,
    positions_of,
    read_json,
    transformer_folder,
)
from embedcache.encoder.kinds import ENCODER, kind_of
from embedcache.encoder.load_with_transformers import quiet
from embedcache.errors import EmbedcacheError
from embedcache.pretraining.tokenizer import train_tokenizer

keep_docstrings()
cap_loaded_threads()  # torch's

KIND = "AutoModelForMaskedLM"
DEFAULT_LENGTH = 256


@dataclass
class BaseModel:
    """A model before its training.

    Attributes:
        model, tokenizer: of transformers. max_length: the most tokens of a row.
        name: for people. identity: JSON of what it is, by content.
        root: the folder that was begun with, modules.json in it; None from scratch.
        notes: what to know, in words.
    """

    model: Any
    tokenizer: Any
    max_length: int
    name: str
    identity: object
    root: Path | None
    notes: list[str]


def from_base(base: str, max_length: int | None) -> BaseModel:
    """A model that exists.

    Raises:
        EmbedcacheError: It is not found, cannot be loaded, or is no encoder with a masked-language-model head.
    """
    root, source = find_root(base)
    folder, name = transformer_folder(root), Path(source).name
    if (folder / ADAPTER).is_file():
        raise EmbedcacheError(f"{name} is a PEFT adapter: merge it into its base first (merge_and_unload)")
    config = model_config(folder)
    kind = kind_of(config)
    if is_static(folder) or kind is not ENCODER:
        raise EmbedcacheError(
            f"{name} ({config.get('model_type')}) is {kind.name}, and adapt trains masked language models: use an "
            "encoder such as BERT, RoBERTa or MPNet"
        )
    length = _length(max_length, positions_of(folder), name)
    identity = folder_identity(folder, length, "float32", False)
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True)
            torch.manual_seed(0)  # of a head that is not in the file
            model, report = transformers.AutoModelForMaskedLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, local_files_only=True, dtype=torch.float32
            )
    except Exception as error:  # a broken folder makes transformers raise anything
        if "Unrecognized configuration class" in str(error):
            raise EmbedcacheError(
                f"{name} ({config.get('model_type')}) has no masked-language-model head in transformers: use an "
                "encoder such as BERT, RoBERTa or MPNet"
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise EmbedcacheError(f"{name} cannot be loaded ({type(error).__name__}: {reason}): copy it again") from error
    _check_tokenizer(tokenizer, name)
    missing = set(report["missing_keys"])
    body = sorted(key for key in missing if key.startswith(f"{model.base_model_prefix}."))
    if body:
        raise EmbedcacheError(f"{name}: its weights lack {body[0]}: copy the model again")
    notes = []
    if missing:
        notes.append(f"{name} has no masked-language-model head: a new one is trained, tied to its embeddings")
    return BaseModel(model, tokenizer, length, name, identity, root, notes)


def from_scratch(config: str, texts: Sequence[str], max_length: int | None, seed: int) -> BaseModel:
    """A new model with random weights, and a tokenizer trained on the texts.

    Args:
        config: A config.json, or a folder with one.
        texts: To train the tokenizer on.
        max_length: The most tokens of a row.
        seed: Of the weights.

    Raises:
        EmbedcacheError: There is no such configuration, or no encoder of its kind has a masked-language-model head.
    """
    path = Path(config).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise EmbedcacheError(f"--from-scratch {config}: no such file: name a config.json, or a folder with one")
    about = read_json(path)
    kind, name = str(about.get("model_type")), path.parent.name if path.name == "config.json" else path.name
    if kind_of(about) is not ENCODER:
        raise EmbedcacheError(f"{path} ({kind}) is {kind_of(about).name}: adapt trains encoders, such as BERT's")
    try:
        settings = transformers.AutoConfig.for_model(kind, **{k: v for k, v in about.items() if k != "model_type"})
        wanted = int(settings.vocab_size)
        positions = getattr(settings, "max_position_embeddings", None)
        behind = behind_id({**about, "pad_token_id": 1})  # as the tokenizer will have it
        length = _length(max_length, positions and positions - (0 if behind is None else behind + 1), name)
        tokenizer = train_tokenizer(texts, kind, wanted, length)
        settings.vocab_size = len(tokenizer)
        for token in ("pad", "bos", "eos", "cls", "sep", "mask"):
            if (number := getattr(tokenizer, f"{token}_token_id")) is not None and hasattr(
                settings, f"{token}_token_id"
            ):
                setattr(settings, f"{token}_token_id", number)
        torch.manual_seed(seed)
        with quiet():
            model = transformers.AutoModelForMaskedLM.from_config(settings)
    except EmbedcacheError:
        raise
    except Exception as error:  # settings that do not belong together make transformers raise anything
        reason = " ".join(str(error).split())[:200]
        raise EmbedcacheError(
            f"{path}: no masked language model can be made of it ({type(error).__name__}: {reason}): begin with the "
            "config.json of BERT or RoBERTa"
        ) from error
    notes = [f"a new {kind} of {model.num_parameters():,} parameters, with a tokenizer of {len(tokenizer):,} tokens"]
    return BaseModel(
        model.float(), tokenizer, length, name, ["scratch", json.dumps(about, sort_keys=True)], None, notes
    )


def _length(asked: int | None, positions: int | None, name: str) -> int:
    length = asked or min(DEFAULT_LENGTH, positions or DEFAULT_LENGTH)
    if positions is not None and length > positions:
        raise EmbedcacheError(
            f"--max-length {length} is more than the {positions} positions of {name}: use {positions}"
        )
    if length < 8:
        raise EmbedcacheError(f"--max-length {length}: use 8 tokens or more")
    return length


def _check_tokenizer(tokenizer: Any, name: str) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise EmbedcacheError(f"{name}: its tokenizer has no fast version, which shows the words: use another model")
    if tokenizer.mask_token is None or tokenizer.pad_token is None:
        raise EmbedcacheError(f"{name}: its tokenizer has no mask or no pad token: use a masked language model")
