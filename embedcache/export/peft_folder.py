"""A folder that PEFT's loaders open: LoRA's tensors and the classifier that computes our head; the base stays outside.

``AutoPeftModelForSequenceClassification`` finds the base by the name in adapter_config.json; ``PeftModel`` is given it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from embedcache.encoder.folder import find_folder
from embedcache.encoder.tuned import LORA_A, LORA_B, find_tuned
from embedcache.errors import EmbedcacheError
from embedcache.export.classifier_folder import CLASSIFIERS, make_classifier
from embedcache.export.model import TextModel

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

WHOLE = ("classifier",)  # PEFT keeps a module of this name whole, whatever it is told


def write_peft(part: Path, model: TextModel, encoder: Encoder, base: str | None) -> None:
    """adapter_config.json and adapter_model.safetensors.

    Args:
        part: the folder.
        model: encoder and head.
        encoder: the tuned one.
        base: where its base is now, if it has moved.

    Raises:
        EmbedcacheError: no LoRA was trained; the family's classifier cannot compute what this run does.
    """
    from peft import LoraConfig, get_peft_model

    tuned = find_tuned(encoder.source)
    if tuned is None or tuned.header.kind != "lora":
        trained = "no layers" if tuned is None else {"tensors": "whole layers"}.get(tuned.header.kind, "adapters")
        raise EmbedcacheError(
            f"--to peft is for runs of finetune --train lora, and this one trained {trained}: use another --to"
        )
    arrays = tuned.arrays()
    names = sorted(name.removesuffix(f".weight{LORA_A}") for name in arrays if name.endswith(LORA_A))
    rank = len(arrays[f"{names[0]}.weight{LORA_A}"])
    scale: dict[str, Any] = {"r": rank, "lora_alpha": tuned.header.scale * rank}  # PEFT declares it a whole number
    config = LoraConfig(
        task_type="SEQ_CLS", target_modules=names, **scale,
        modules_to_save=_kept(encoder), base_model_name_or_path=_base(base or tuned.base), inference_mode=True,
    )  # fmt: skip
    whole: Any = get_peft_model(make_classifier(model, encoder), config)
    inner = whole.base_model.model
    inner = getattr(inner, inner.base_model_prefix)
    with torch.no_grad():
        for name in names:
            layer = inner.get_submodule(name)
            layer.lora_A.default.weight.copy_(torch.from_numpy(arrays[f"{name}.weight{LORA_A}"]))
            layer.lora_B.default.weight.copy_(torch.from_numpy(arrays[f"{name}.weight{LORA_B}"]))
    whole.save_pretrained(part, safe_serialization=True, save_embedding_layers=False)


def _kept(encoder: Encoder) -> list[str]:
    """The modules that hold the head, each by the largest part that is new."""
    dense, last, _ = CLASSIFIERS[encoder.identity["architecture"]]
    return [*dict.fromkeys(WHOLE[0] if name.startswith(WHOLE) else name for name in (dense, last))]


def _base(source: str) -> str:
    """The folder in which the base's configuration is, or its name on the hub."""
    return str(find_folder(source, True)[0].resolve()) if Path(source).expanduser().is_dir() else source
