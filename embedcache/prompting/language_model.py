"""A model with its head, as transformers loads it: for masked and causal language models and classifiers of pairs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from embedcache.common.docstrings import keep_docstrings
from embedcache.common.machine import cap_loaded_threads
from embedcache.encoder.adapter import merge_adapter, tokenizer_folder, without_adapter
from embedcache.encoder.batching import MOST_TOKENS_AT_ONCE, default_batch_tokens, plan_batches
from embedcache.encoder.folder import (
    find_root,
    folder_identity,
    model_config,
    positions_of,
    transformer_folder,
)
from embedcache.encoder.hardware import resolve_device
from embedcache.encoder.load_with_transformers import dtype_option, quiet
from embedcache.errors import EmbedcacheError

keep_docstrings()
cap_loaded_threads()  # torch's

MOST_LOGITS = 1 << 26  # numbers of a batch's logits, 256 MB in float32
SHORTEST = 16  # tokens of which a prompt makes no sense


class LanguageModel:
    """A model and its tokenizer, frozen.

    Attributes:
        model, tokenizer: of transformers. name: of the folder, for people. source: where it is. device: where it
            computes. max_length: the most tokens of a row. identity: JSON of what it is, by content.
        batch_tokens: padded tokens of one batch.
    """

    def __init__(self, kind: str, source: str, device: str, max_length: int, trust_remote_code: bool) -> None:
        """Load one.

        Args:
            kind: The class of transformers, such as "AutoModelForMaskedLM".
            source: Folder or name on the hub.
            device: "auto", "cpu", "cuda" or "cuda:N".
            max_length: The most tokens of a row; fewer where the model has fewer positions.
            trust_remote_code: Whether Python code that comes with the model may run.

        Raises:
            EmbedcacheError: It is not found, cannot be loaded, or has no such head.
        """
        root, self.source = find_root(source, trust_remote_code)
        folder, self.name = transformer_folder(root), Path(self.source).name
        self.device = resolve_device(device)
        self.max_length = min(max_length, positions_of(folder) or max_length)
        if self.max_length < SHORTEST:
            raise EmbedcacheError(f"--max-length {max_length} leaves no room for a prompt: use {SHORTEST} or more")
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        self.identity = [
            kind, self.device, str(dtype),
            folder_identity(folder, self.max_length, str(dtype), trust_remote_code),
        ]  # fmt: skip
        with quiet():
            self.model, self.tokenizer = _load(kind, folder, self.name, dtype, trust_remote_code)
        self.model.to(self.device)
        self._takes = set(inspect.signature(self.model.forward).parameters)
        outputs = max(self.model.config.get_text_config().vocab_size, 1) if "LM" in kind else 1
        budget = MOST_TOKENS_AT_ONCE if self.device == "cpu" else default_batch_tokens(self.device)  # all cores at once
        self.batch_tokens = min(budget, max(1, MOST_LOGITS // outputs))

    def takes(self, argument: str) -> bool:
        """Whether the model's forward has an argument of this name."""
        return argument in self._takes

    def batches(self, features: Sequence[dict[str, list[int]]]) -> list[np.ndarray]:
        """Rows of like length together, within the token budget; int64 arrays of places."""
        return plan_batches(np.array([len(one["input_ids"]) for one in features]), self.batch_tokens)

    def pad(self, features: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Padded inputs [n, longest] of the model, on its device, padding behind."""
        longest = max(len(one["input_ids"]) for one in features)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        padded = {
            name: torch.tensor([one[name] + [fill.get(name, 0)] * (longest - len(one[name])) for one in features])
            for name in features[0]
            if name in self._takes and name != "attention_mask"
        }
        lengths = torch.tensor([len(one["input_ids"]) for one in features])
        padded["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        return {name: value.to(self.device) for name, value in padded.items()}

    def tokenize(self, texts: Sequence[str], special: bool = True) -> list[dict[str, list[int]]]:
        """What the model reads of each text, whole."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=special, truncation=False, verbose=False)
        return [{name: values[i] for name, values in found.items()} for i in range(len(texts))]


def _load(kind: str, folder: Path, name: str, dtype: torch.dtype, trust_remote_code: bool) -> tuple[Any, Any]:
    """(model, tokenizer); refuses one whose head is not in the file and would be random."""
    options = {"trust_remote_code": trust_remote_code, "local_files_only": not trust_remote_code}
    try:
        with without_adapter(folder) as base:
            tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder(folder), use_fast=True, **options)
            model, report = getattr(transformers, kind).from_pretrained(
                base, use_safetensors=True, output_loading_info=True, **dtype_option(dtype), **options
            )
    except EmbedcacheError:
        raise
    except Exception as error:  # a broken folder makes transformers raise anything
        architecture = model_config(folder).get("model_type")
        if "Unrecognized configuration class" in str(error):
            raise EmbedcacheError(
                f"{name} ({architecture}) has no {HEADS[kind]}, and transformers none for it: {ADVICE[kind]}"
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise EmbedcacheError(
            f"{name} cannot be loaded ({type(error).__name__}: {reason}): check or copy the model again"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise EmbedcacheError(
            f"{name} has no {HEADS[kind]}: its weights lack {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}; {ADVICE[kind]}"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise EmbedcacheError(f"{name}: its tokenizer has no fast version: add a tokenizer.json to the folder")
    return merge_adapter(model, folder, name).eval().requires_grad_(False), tokenizer


HEADS = {
    "AutoModelForMaskedLM": "masked-language-model head",
    "AutoModelForSequenceClassification": "classification head",
    "AutoModelForCausalLM": "causal-language-model head",
}
OTHERS = "or use --method similarity, for which any encoder will do"
ADVICE = {
    "AutoModelForMaskedLM": f"use a masked language model such as bert-base-uncased, {OTHERS}",
    "AutoModelForSequenceClassification": f"use a model trained on natural language inference, {OTHERS}",
    "AutoModelForCausalLM": f"use a causal language model, {OTHERS}",
}
