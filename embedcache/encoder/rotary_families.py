"""Families with rotary positions and a gated feed-forward part that the native encoder computes: one record each.

A family is recognized by its class in transformers, which loads every model; ``read_rotary`` then finds the weights by
the names here. The records decide the table in docs/encoders.md and the tests. On a GPU, and with any setting that
``read_rotary`` does not know, transformers runs the model.

Nothing here imports torch or transformers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RotaryFamily:
    """Where a family's model has the parts of the layers in csrc/encoder/rotary.h.

    Attributes:
        title: its common name, for the docs.
        model: its class below ``transformers.models``.
        word: the token embedding.
        types: the embedding whose row 0 is added to every token, or None.
        norm: the norm of the embeddings, or None.
        final_norm: the norm of the last layer's output, or None.
        attention: the module of a layer that has ``is_causal``.
        linears: the linear layers, by their part in a layer; "qkv" and "gate_up" are several in one, in that order.
        norms: the norms, by their place in a layer. Where a layer has an ``Identity`` there, it has no norm.
        one_more: whether 1 is added to the norms' weights.
        window: 0 if local layers see keys up to ``sliding_window`` tokens away, 1 if up to one token less.
        all_local: whether ``sliding_window`` holds for every layer; otherwise ``layer_types`` says for which.
    """

    title: str
    model: str
    word: str
    attention: str
    linears: dict[str, str]
    norms: dict[str, str]
    types: str | None = None
    norm: str | None = None
    final_norm: str | None = None
    one_more: bool = False
    window: int = 1
    all_local: bool = False


_SEPARATE = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_BEFORE = {"before_attention": "input_layernorm", "before_glu": "post_attention_layernorm"}
_AROUND = {
    "before_attention": "input_layernorm", "after_attention": "post_attention_layernorm",
    "before_glu": "pre_feedforward_layernorm", "after_glu": "post_feedforward_layernorm",
}  # fmt: skip
_HEADS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}


def _decoder(
    title: str, model: str, norms: dict[str, str] = _BEFORE, *, one_more: bool = False, all_local: bool = False
) -> RotaryFamily:
    return RotaryFamily(
        title, model, "embed_tokens", "self_attn", _SEPARATE, norms, final_norm="norm", one_more=one_more,
        all_local=all_local,
    )  # fmt: skip


def _post_norm(title: str, model: str) -> RotaryFamily:
    norms = {"sum_attention": "post_attention_layernorm", "sum_glu": "post_mlp_layernorm"}
    return RotaryFamily(
        title, model, "embeddings.word_embeddings", "self_attn", _SEPARATE, norms,
        types="embeddings.token_type_embeddings", norm="embeddings.LayerNorm",
    )  # fmt: skip


ROTARY_FAMILIES = {
    "modernbert": RotaryFamily(
        title="ModernBERT (gte-modernbert, Ettin, mmBERT)",
        model="modernbert.modeling_modernbert.ModernBertModel",
        word="embeddings.tok_embeddings",
        norm="embeddings.norm",
        final_norm="final_norm",
        attention="attn",
        linears={"qkv": "attn.Wqkv", "output": "attn.Wo", "gate_up": "mlp.Wi", "down": "mlp.Wo"},
        norms={"before_attention": "attn_norm", "before_glu": "mlp_norm"},
        window=0,
    ),
    "nomic_bert": _post_norm("NomicBERT", "nomic_bert.modeling_nomic_bert.NomicBertModel"),
    "gte": _post_norm("GTE v1.5, GTE multilingual", "gte.modeling_gte.GteModel"),
    "eurobert": _decoder("EuroBERT", "eurobert.modeling_eurobert.EuroBertModel"),
    "qwen3": _decoder("Qwen3 (Qwen3-Embedding)", "qwen3.modeling_qwen3.Qwen3Model", _BEFORE | _HEADS),
    "gemma3_text": _decoder(
        "Gemma 3 (EmbeddingGemma)",
        "gemma3.modeling_gemma3.Gemma3TextModel",
        _AROUND | _HEADS,
        one_more=True,
    ),
    "qwen2": _decoder("Qwen2", "qwen2.modeling_qwen2.Qwen2Model"),
    "mistral": _decoder("Mistral (E5-Mistral)", "mistral.modeling_mistral.MistralModel", all_local=True),
    "llama": _decoder("Llama", "llama.modeling_llama.LlamaModel"),
}
