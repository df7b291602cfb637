"""The encoder families whose every part is known: one record each, from which everything else follows.

A family is recognized by ``model_type`` in config.json. Its record says where its weights are, how it counts positions
and which tokenizers it has. The record decides which code computes it (see ``runner``), whether it is read without
torch, the automatic dtype, the table in docs/extraction.md and the tests. transformers runs the models of all other
families.

Nothing here imports torch or transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Names:
    """Names of the modules in a family's layers.

    Attributes:
        layers: the list of layers.
        attention: query, key, value and output of one layer.
        norm1: the LayerNorm after attention.
        up, down: the feed-forward part.
        norm2: the LayerNorm after the feed-forward part.
    """

    layers: str
    attention: tuple[str, str, str, str]
    norm1: str
    up: str
    down: str
    norm2: str


@dataclass(frozen=True)
class Tokenizers:
    """Tokenizer classes that transformers builds from settings alone, so tokenizer.json holds all of them.

    Attributes:
        classes: names without "Fast", the default first.
        special: the default token of each special role.
    """

    classes: tuple[str, ...]
    special: dict[str, str]


_BERT = Names(
    layers="encoder.layer",
    attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    norm1="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm2="output.LayerNorm",
)
_WORDPIECE = {
    "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip
_BYTE_LEVEL = {
    "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family of encoders: BERT's layers (post-LayerNorm), and where it differs from BERT.

    Attributes:
        title: its common name, for the docs.
        model: its class below ``transformers.models``.
        prefix: of the weights' names where a model was saved with its head; "" stands for the model_type.
        names: of the modules in its layers.
        keys: settings of config.json that have another name than BERT's, by BERT's name.
        epsilon: of every LayerNorm, where the family's code fixes it; None: ``layer_norm_eps``.
        behind: positions begin after this token id, or after the one in this setting; None: at 0.
        types: embeddings whose row 0 is added to every token, and the setting that switches each on ("": always on).
        projection: the linear layer from the embeddings' width to D, in models where the two differ.
        groups: of layers that share one's weights: the setting with their number, and that layer's name in a group;
            ``names.layers`` is the list of groups. None: each layer has its own weights.
        positions: whether a position's embedding is added to every token.
        relative: the embedding of the bias by distance that is added to the attention scores, or None.
        distances: the embedding of the distances that queries and keys are multiplied by, and its LayerNorm (see
            ``disentangled``); or None.
        settings: of config.json, with the value that each must have; a list's in any order.
        tokenizers: the classes with which it can be read without torch; None: transformers always reads it.
        bfloat16: whether ``--dtype auto`` may choose bfloat16 on a CPU. True only where measured vectors stayed close
            to float32's.
    """

    title: str
    model: str
    prefix: str = ""
    names: Names = _BERT
    keys: dict[str, str] = field(default_factory=dict)
    epsilon: float | None = None
    behind: int | str | None = None
    types: dict[str, str] = field(default_factory=lambda: {"embeddings.token_type_embeddings": ""})
    projection: str | None = None
    groups: tuple[str, str] | None = None
    positions: bool = True
    relative: str | None = None
    distances: tuple[str, str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizers: Tokenizers | None = None
    bfloat16: bool = False

    def behind_id(self, setting: Callable[..., Any]) -> int | None:
        """The token id after which positions begin, by ``setting(name)``; None: they begin at 0."""
        return setting(self.behind) if isinstance(self.behind, str) else self.behind

    def layer_names(self, setting: Callable[..., Any]) -> list[str]:
        """The name of every layer's module, by ``setting(name)``; layers that share their weights have one name."""
        count = setting("num_hidden_layers")
        if self.groups is None:
            return [f"{self.names.layers}.{i}" for i in range(count)]
        per_group = count / setting(self.groups[0])  # as transformers divides, where it does not come out even, too
        return [f"{self.names.layers}.{int(i / per_group)}.{self.groups[1]}" for i in range(count)]


FAMILIES = {
    "bert": Family(
        title="BERT (MiniLM, LegalBERT ...)",
        model="bert.modeling_bert.BertModel",
        tokenizers=Tokenizers(("BertTokenizer",), _WORDPIECE),
        bfloat16=True,
    ),
    "roberta": Family(
        title="RoBERTa",
        model="roberta.modeling_roberta.RobertaModel",
        behind="pad_token_id",
        tokenizers=Tokenizers(("RobertaTokenizer",), _BYTE_LEVEL),
        bfloat16=True,
    ),
    "xlm-roberta": Family(
        title="XLM-R",
        model="xlm_roberta.modeling_xlm_roberta.XLMRobertaModel",
        prefix="roberta",
        behind="pad_token_id",
        bfloat16=True,
    ),
    "camembert": Family(
        title="CamemBERT",
        model="camembert.modeling_camembert.CamembertModel",
        prefix="roberta",
        behind="pad_token_id",
        bfloat16=True,
    ),
    # Not in bfloat16: with all-mpnet-base-v2, 3 of 640 texts had a cosine to float32 below 0.9999 (the worst 0.9993).
    "mpnet": Family(
        title="MPNet",
        model="mpnet.modeling_mpnet.MPNetModel",
        names=Names(
            layers="encoder.layer",
            attention=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
            norm1="attention.LayerNorm",
            up="intermediate.dense",
            down="output.dense",
            norm2="output.LayerNorm",
        ),
        behind=1,
        types={},
        relative="encoder.relative_attention_bias",
        tokenizers=Tokenizers(("MPNetTokenizer",), _BYTE_LEVEL | {"unk_token": "[UNK]"}),
    ),
    "distilbert": Family(
        title="DistilBERT",
        model="distilbert.modeling_distilbert.DistilBertModel",
        names=Names(
            layers="transformer.layer",
            attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
            norm1="sa_layer_norm",
            up="ffn.lin1",
            down="ffn.lin2",
            norm2="output_layer_norm",
        ),
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        epsilon=1e-12,
        types={},
        tokenizers=Tokenizers(("DistilBertTokenizer", "BertTokenizer"), _WORDPIECE),
        bfloat16=True,
    ),
    "electra": Family(
        title="ELECTRA",
        model="electra.modeling_electra.ElectraModel",
        projection="embeddings_project",
        tokenizers=Tokenizers(("ElectraTokenizer", "BertTokenizer"), _WORDPIECE),
        bfloat16=True,
    ),
    "ernie": Family(
        title="ERNIE 1 to 3",
        model="ernie.modeling_ernie.ErnieModel",
        types={"embeddings.token_type_embeddings": "", "embeddings.task_type_embeddings": "use_task_id"},
        tokenizers=Tokenizers(("BertTokenizer",), _WORDPIECE),
    ),
    "albert": Family(
        title="ALBERT",
        model="albert.modeling_albert.AlbertModel",
        names=Names(
            layers="encoder.albert_layer_groups",
            attention=("attention.query", "attention.key", "attention.value", "attention.dense"),
            norm1="attention.LayerNorm",
            up="ffn",
            down="ffn_output",
            norm2="full_layer_layer_norm",
        ),
        projection="encoder.embedding_hidden_mapping_in",
        groups=("num_hidden_groups", "albert_layers.0"),
    ),
    "deberta-v2": Family(
        title="DeBERTa 3, mDeBERTa",
        model="deberta_v2.modeling_deberta_v2.DebertaV2Model",
        prefix="deberta",
        names=Names(
            layers="encoder.layer",
            attention=(
                "attention.self.query_proj",
                "attention.self.key_proj",
                "attention.self.value_proj",
                "attention.output.dense",
            ),
            norm1="attention.output.LayerNorm",
            up="intermediate.dense",
            down="output.dense",
            norm2="output.LayerNorm",
        ),
        types={"embeddings.token_type_embeddings": "type_vocab_size"},
        positions=False,
        distances=("encoder.rel_embeddings", "encoder.LayerNorm"),
        settings={
            "relative_attention": True,
            "share_att_key": True,
            "position_biased_input": False,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["c2p", "p2c"],
        },
    ),
}
# Other families whose positions begin after the pad token; transformers runs them.
_ALSO_BEHIND_PAD = frozenset(("data2vec-text", "ibert", "longformer", "xlm-roberta-xl", "xmod"))


def with_own_layers(kind: Any) -> Family | None:
    """The family of a ``model_type`` whose layers have weights of their own and need nothing else; None: no such."""
    family = FAMILIES.get(str(kind))
    return None if family is None or family.groups or family.distances else family


def behind_id(config: dict[str, Any]) -> int | None:
    """The token id after which a model's positions begin, by its config.json; None where they begin at 0."""
    kind = str(config.get("model_type"))
    if kind in _ALSO_BEHIND_PAD:
        pad = config.get("pad_token_id", 1)
    else:
        pad = FAMILIES[kind].behind_id(lambda name: config.get(name, 1)) if kind in FAMILIES else None
    return pad if isinstance(pad, int) else None
