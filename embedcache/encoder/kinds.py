"""What sort of model a config.json describes, and which vector is stored where its folder prescribes none.

Nothing here imports torch or transformers. This is a guess from the configuration: loading a model tests whether its
tokens see those after them (see ``row_check``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelKind:
    """A sort of model.

    Attributes:
        name: in words, for messages.
        pooling: what ``auto`` stores in addition to the prescribed vector, or alone where there is none.
        why: what that pooling is, in words, for a note about a folder that prescribes nothing.
    """

    name: str
    pooling: str
    why: str


ENCODER = ModelKind("an encoder", "cls", "the first token's vector")
CAUSAL = ModelKind("a causal model", "last", "the last token's vector, the only one that has seen the whole text")
BIDIRECTIONAL = ModelKind("a decoder that looks both ways", "mean", "the mean of all tokens' vectors")
ENCODER_DECODER = ModelKind("an encoder-decoder", "mean", "the mean of its encoder's vectors; the decoder is not used")
STATIC = ModelKind("a static model", "mean", "the mean of its tokens' vectors")
STATIC_TYPE = "static"  # ``folder.model_config`` sets it: a static model has no config.json, or one that does not say

# Encoder-decoders by model_type. sentence-transformers uses the encoder of the first group, but the decoder's states of
# the second, whose prescribed vectors are therefore refused.
THEIR_ENCODER = frozenset(
    "blenderbot blenderbot-small longt5 m2m_100 marian mt5 pegasus pegasus_x prophetnet switch_transformers t5 "
    "umt5".split()
)
THEIR_DECODER = frozenset("bart bigbird_pegasus fsmt led mbart mvp nllb-moe plbart seamless_m4t".split())
# Decoders by model_type: transformers has a head for causal language modelling for them, and none for masked.
CAUSAL_TYPES = frozenset(
    "apertus arcee bamba biogpt bitnet bloom codegen cohere cohere2 ctrl dbrx deepseek_v2 deepseek_v3 ernie4_5 exaone4 "
    "falcon falcon_h1 falcon_mamba gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj "
    "granite granitemoe helium hunyuan_v1_dense jamba lfm2 llama mamba mamba2 minimax mistral mixtral mpt nemotron "
    "olmo olmo2 olmo3 olmoe openai-gpt opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next "
    "recurrent_gemma rwkv seed_oss smollm3 stablelm starcoder2 xglm zamba zamba2".split()
)
ALSO_CAUSAL = frozenset(("clip_text_model",))  # a text tower, whose last token is the text's vector
OWN_POSITIONS = dict.fromkeys(("ctrl", "gpt2", "gpt_bigcode", "gptj", "codegen", "openai-gpt"), "n_positions")


def kind_of(config: dict[str, Any]) -> ModelKind:
    """The sort of model that a config.json describes."""
    kind = str(config.get("model_type"))
    if kind == STATIC_TYPE:
        return STATIC
    named = config.get("architectures")
    head = str(named[0]) if isinstance(named, list) and named else ""
    if kind in THEIR_ENCODER | THEIR_DECODER or config.get("is_encoder_decoder") is True:
        return ENCODER_DECODER
    decoder = kind in CAUSAL_TYPES | ALSO_CAUSAL or config.get("is_decoder") is True or head.endswith("ForCausalLM")
    if not decoder:
        return ENCODER
    return BIDIRECTIONAL if looks_both_ways(config) else CAUSAL


def looks_both_ways(config: dict[str, Any]) -> bool:
    """Whether a decoder's authors made its attention bidirectional, by its config.json."""
    return config.get("use_bidirectional_attention") is True or config.get("is_causal") is False
