"""Which part of a transformers model is the encoder: all of it, an encoder-decoder's encoder, or a retriever's BERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedcache.errors import EmbedcacheError

SUCH_AS = "BERT, RoBERTa, MPNet or MiniLM"
ALONE = {  # encoder-decoders whose folder may hold the encoder only, and transformers' class for that
    "longt5": "LongT5EncoderModel", "mt5": "MT5EncoderModel", "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel", "umt5": "UMT5EncoderModel",
}  # fmt: skip
# NomicBERT's folders have its authors' names of settings, which transformers does not read: it takes its defaults.
NOMIC = {
    "n_embd": "hidden_size", "n_head": "num_attention_heads", "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers", "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta",
}  # fmt: skip
NOMIC_FIXED = {
    "activation_function": "swiglu", "mlp_fc1_bias": False, "mlp_fc2_bias": False, "num_experts": 0, "prenorm": False,
    "qkv_proj_bias": False, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_scaling_factor": None,
    "use_rms_norm": False,
}  # fmt: skip
RETRIEVERS = {"DPRContextEncoder": "ctx_encoder", "DPRQuestionEncoder": "question_encoder"}


def check_architecture(config: Any, name: str) -> None:
    """Refuse, by its configuration, a model that does not return vectors of a text's tokens.

    Args:
        config: of transformers.
        name: of the model, for messages.

    Raises:
        EmbedcacheError: it is such a model; the message says why.
    """
    kind, named = config.model_type, (getattr(config, "architectures", None) or [""])[0]
    if getattr(config, "quantization_config", None):
        raise EmbedcacheError(
            f"{name}: its weights are quantized (quantization_config in config.json), which is not supported: use the "
            "checkpoint that it was made from, with --dtype bfloat16 for less memory"
        )
    if kind == "nomic_bert":
        _check_nomic(config, name)
    if kind == "nystromformer":
        raise EmbedcacheError(
            f"{name} ({kind}) reads texts of exactly {config.segment_means_seq_length} tokens, padding included: "
            f"use an encoder such as {SUCH_AS}"
        )
    if kind == "canine":
        raise EmbedcacheError(f"{name} ({kind}) reads characters, not tokens: use an encoder such as {SUCH_AS}")
    if kind.startswith("siglip"):
        raise EmbedcacheError(
            f"{name} ({kind}) needs the same padding as in its training: use an encoder such as {SUCH_AS}"
        )
    if kind == "dpr" and named == "DPRReader":
        raise EmbedcacheError(f"{name} is a DPR reader, not an encoder: use DPR's question or context encoder")
    if hasattr(config, "vision_config") or hasattr(config, "audio_config"):
        raise EmbedcacheError(
            f"{name} ({kind}) reads images or sound as well as text, and its text part cannot be used alone: use an "
            f"encoder such as {SUCH_AS}"
        )
    if not all(isinstance(getattr(config, key, None), int) for key in ("hidden_size", "num_hidden_layers")):
        raise EmbedcacheError(f"{name} ({kind}) is not a plain text encoder: use one such as {SUCH_AS}")


def _check_nomic(config: Any, name: str) -> None:
    """Refuse a NomicBERT whose settings, in its authors' names, are not those that transformers computes with."""
    read = {**config.to_dict(), "rope_theta": (config.rope_parameters or {}).get("rope_theta")}
    expected = {own: read.get(theirs) for own, theirs in NOMIC.items()} | NOMIC_FIXED
    for key, value in expected.items():
        if key in read and read[key] != value and (read[key] or value):
            raise EmbedcacheError(
                f"{name} (nomic_bert): its config.json has {key} {read[key]}, but transformers computes with {value}: "
                "use a version of the model that is made for transformers, such as nomic-ai/nomic-embed-text-v1.5"
            )


def load_part(config: Any, folder: Path, options: dict[str, Any]) -> tuple[Any, list[str]]:
    """Load the encoder with ``from_pretrained``, which raises anything.

    Args:
        config: of transformers.
        folder: with the model's files.
        options: more arguments of ``from_pretrained``.

    Returns:
        (the encoder, the names of its weights that are missing in the folder).
    """
    import transformers

    named = (getattr(config, "architectures", None) or [""])[0]
    if config.model_type in ALONE:
        loader = getattr(transformers, ALONE[config.model_type])
    elif config.model_type == "dpr":
        loader = getattr(transformers, named if named in RETRIEVERS else "DPRQuestionEncoder")
    else:
        loader = transformers.AutoModel
    model, report = loader.from_pretrained(
        folder, config=config, use_safetensors=True, output_loading_info=True, **options
    )
    missing = sorted(report["missing_keys"])
    if config.model_type == "dpr":
        return getattr(model, RETRIEVERS[type(model).__name__]).bert_model, missing
    if config.model_type not in ALONE and getattr(config, "is_encoder_decoder", False):
        return model.get_encoder(), [key for key in missing if "decoder" not in key]
    return model, missing
