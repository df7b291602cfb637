"""Read tokenizer.json directly, where transformers would make the same tokenizer.

transformers builds the tokenizers of these classes from their settings, and takes only the vocabulary from the file. So
the file must hold the pipeline that the settings ask for: BERT's cleaning and splitting with WordPiece, or RoBERTa's
splitting with byte-level BPE. And all files must agree on the special tokens and the vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedcache.encoder.families import Tokenizers
from embedcache.encoder.folder import read_json

AS_IT_IS = "PreTrainedTokenizer"  # PreTrainedTokenizerFast is the class that reads the whole file
# Settings that do not change the tokens of a single text.
HARMLESS = frozenset(
    "name_or_path special_tokens_map_file model_max_length tokenizer_class added_tokens_decoder max_length errors "
    "clean_up_tokenization_spaces tokenizer_file is_local backend stride truncation_strategy padding padding_side "
    "pad_to_multiple_of pad_token_type_id model_input_names trim_offsets".split()
)
ROLES = frozenset(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
DEFAULTS = {
    "do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None, "do_basic_tokenize": True,
    "never_split": None, "truncation_side": "right", "additional_special_tokens": None, "extra_special_tokens": None,
    "add_prefix_space": False,
}  # fmt: skip
TEMPLATE = ["SpecialToken", "Sequence", "SpecialToken"]


def read_tokenizer(folder: Path, tokenizers: Tokenizers) -> Any:
    """A tokenizers.Tokenizer, or None where transformers might make another one. Damaged files raise any exception."""
    from tokenizers import Tokenizer

    settings = read_json(folder / "tokenizer_config.json")
    content = (folder / "tokenizer.json").read_text(encoding="utf-8")
    pipeline = json.loads(content)
    kind = str(settings.get("tokenizer_class") or tokenizers.classes[0]).removesuffix("Fast")
    if kind not in (*tokenizers.classes, AS_IT_IS) or settings.keys() - (HARMLESS | ROLES | DEFAULTS.keys()):
        return None
    wanted = {name: value if settings.get(name) is None else settings[name] for name, value in DEFAULTS.items()}
    usual = (
        not any(wanted[name] for name in ("never_split", "additional_special_tokens", "extra_special_tokens"))
        and wanted["do_basic_tokenize"] is True
        and wanted["truncation_side"] == "right"
    )
    known = _is_wordpiece(pipeline, wanted, kind) or _is_byte_level(pipeline, wanted)
    if not usual or not known or (folder / "added_tokens.json").exists():
        return None
    special = {} if kind == AS_IT_IS else tokenizers.special
    if not _same_special_tokens(folder, settings, special, pipeline) or not _same_vocabulary(folder, pipeline["model"]):
        return None
    return Tokenizer.from_str(content)


def _is_wordpiece(pipeline: dict[str, Any], wanted: dict[str, Any], kind: str) -> bool:
    normalizer, model = pipeline["normalizer"], pipeline["model"]
    if not normalizer or model["type"] != "WordPiece":
        return False
    as_asked = kind == AS_IT_IS or (
        normalizer["lowercase"] == wanted["do_lower_case"]
        and normalizer["strip_accents"] == wanted["strip_accents"]
        and normalizer["handle_chinese_chars"] == wanted["tokenize_chinese_chars"]
    )
    return (
        as_asked
        and (normalizer["type"], normalizer["clean_text"]) == ("BertNormalizer", True)
        and pipeline["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and (model["continuing_subword_prefix"], model["max_input_chars_per_word"]) == ("##", 100)
    )


def _is_byte_level(pipeline: dict[str, Any], wanted: dict[str, Any]) -> bool:
    splitter, model = pipeline["pre_tokenizer"], pipeline["model"]
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges")
    return (
        pipeline["normalizer"] is None
        and model["type"] == "BPE"
        and not any(model.get(name) for name in odd)
        and splitter["type"] == "ByteLevel"
        and splitter["add_prefix_space"] is wanted["add_prefix_space"] is False
        and splitter.get("use_regex", True) is True
    )


def _same_special_tokens(
    folder: Path, settings: dict[str, Any], default: dict[str, str], pipeline: dict[str, Any]
) -> bool:
    """Whether settings and pipeline have the same special tokens, with CLS before a text and SEP after it."""
    added = {token["content"]: token for token in pipeline["added_tokens"]}
    path = folder / "special_tokens_map.json"
    named = [settings, read_json(path)] if path.exists() else [settings]
    tokens = {(role, _content(one[role])) for one in named for role in ROLES & one.keys() if one[role]}
    special = default | dict(tokens)
    numbers = {token["id"]: content for content, token in added.items()}
    listed = {int(number): token["content"] for number, token in (settings.get("added_tokens_decoder") or {}).items()}
    if not all(content in added and added[content]["special"] for content in special.values()):
        return False
    # Each role has one token: where two files disagree, there are more tokens than roles.
    if not listed.items() <= numbers.items() or len(dict(tokens)) != len(tokens) or not all(added):
        return False
    return _ends(pipeline["post_processor"]) == (special["cls_token"], special["sep_token"])


def _ends(post_processor: dict[str, Any]) -> tuple[str, str] | None:
    """The tokens that a post-processor puts before and after a text; None unless there is exactly one each."""
    if post_processor["type"] in ("RobertaProcessing", "BertProcessing"):
        return post_processor["cls"][0], post_processor["sep"][0]
    single = post_processor["single"] if post_processor["type"] == "TemplateProcessing" else []
    if [next(iter(part)) for part in single] != TEMPLATE:
        return None
    return single[0]["SpecialToken"]["id"], single[2]["SpecialToken"]["id"]


def _same_vocabulary(folder: Path, model: dict[str, Any]) -> bool:
    words, table, merges = (folder / name for name in ("vocab.txt", "vocab.json", "merges.txt"))
    if words.exists():
        lines = words.read_text(encoding="utf-8").split("\n")
        listed = {line.rstrip("\r"): i for i, line in enumerate(lines) if line or i + 1 < len(lines)}
        if listed != model["vocab"]:
            return False
    if table.exists() and read_json(table) != model["vocab"]:
        return False
    if not merges.exists():
        return True
    lines = merges.read_text(encoding="utf-8").rstrip("\n").split("\n")
    pairs = [one if isinstance(one, str) else " ".join(one) for one in model.get("merges", [])]
    return pairs == [line for line in lines if not line.startswith("#version")]


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
