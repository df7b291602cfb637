"""Merge a PEFT adapter (LoRA) into the weights of its base model when the model is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedcache.encoder.adapter_files import ADAPTER, ADAPTER_WEIGHTS
from embedcache.encoder.folder import base_folder, read_json, tokenizer_files
from embedcache.errors import EmbedcacheError


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """Yield a folder that holds the base model's files only.

    Where transformers finds an adapter in the folder, it loads the base model that the adapter names instead.
    """
    base = base_folder(folder)
    if base != folder or not (folder / ADAPTER).is_file():
        yield base
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith("adapter_"):
                (Path(scratch) / path.name).symlink_to(path.resolve())
        yield Path(scratch)


def tokenizer_folder(folder: Path) -> Path:
    """The folder of the adapter's own tokenizer, or of its base's where the adapter has none."""
    return tokenizer_files(folder)[0].parent


def merge_adapter(model: Any, folder: Path, name: str) -> Any:
    """Merge the adapter in a folder into a model; a model without an adapter is returned as it is.

    Args:
        model: the base, as transformers loaded it.
        folder: where adapter_config.json may be.
        name: of the model, for messages.

    Raises:
        EmbedcacheError: peft is missing; the adapter is not LoRA, belongs to another base, or is damaged.
    """
    if not (folder / ADAPTER).is_file():
        return model
    kind = read_json(folder / ADAPTER).get("peft_type")
    if kind != "LORA":
        raise EmbedcacheError(
            f"{name}: its PEFT adapter is of the kind {kind}, but only LORA can be merged here: merge it yourself with "
            "merge_and_unload().save_pretrained(NEW_FOLDER) if PEFT supports that for this kind"
        )
    try:
        import peft
    except ImportError as error:
        raise EmbedcacheError(f'{name} holds a PEFT adapter: pip install "embedcache[peft]"') from error
    try:
        merged = _merge(peft, model, folder)
    except Exception as error:  # the libraries raise anything
        raise EmbedcacheError(
            f"{name}: its PEFT adapter does not fit its base, or is damaged: copy both again"
        ) from error
    if isinstance(merged, str):
        raise EmbedcacheError(
            f"{name}: its PEFT adapter does not fit its base: {merged} is missing, or has no counterpart in the base: "
            "copy both again"
        )
    return merged


def _merge(peft: Any, model: Any, folder: Path) -> Any:
    """The merged model, or the name of a weight that has no counterpart."""
    from safetensors.torch import load_file

    config = peft.PeftConfig.from_pretrained(str(folder))
    config.task_type, config.inference_mode, config.init_lora_weights = None, True, True
    names = {name for name, _ in model.named_modules()}
    adapted = peft.get_peft_model(model, config)
    weights = {_own_name(name, names): weight for name, weight in load_file(folder / ADAPTER_WEIGHTS).items()}
    result = peft.set_peft_model_state_dict(adapted, weights)
    if odd := [*result.unexpected_keys, *(name for name in result.missing_keys if "lora_" in name)]:
        return str(odd[0])
    return adapted.merge_and_unload()


def _own_name(weight: str, modules: set[str]) -> str:
    """A weight's name in the encoder alone; in an adapter trained with a head, the encoder is a submodule."""
    start = "base_model.model."
    path = weight.removeprefix(start)
    _, _, inner = path.partition(".")
    module = inner.partition(".lora_")[0]
    return start + inner if path.partition(".lora_")[0] not in modules and module in modules else weight
