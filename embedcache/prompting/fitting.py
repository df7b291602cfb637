"""Long texts cut so that the template around them stays whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from embedcache.common.reading import Reading, most_unknown, read_of
from embedcache.errors import EmbedcacheError
from embedcache.prompting.language_model import LanguageModel

Features = dict[str, list[int]]
Wrap = Callable[[int, str], str]  # (row, its text or the beginning of it) to the prompt


def fit(model: LanguageModel, texts: Sequence[str], wrap: Wrap, special: bool = True) -> tuple[list[Features], Reading]:
    """Prompts of at most ``model.max_length`` tokens.

    Args:
        model: Whose tokenizer makes them.
        texts: n of them; of a long one the end is left out.
        wrap: Puts a text between the rest of its prompt.
        special: Whether the tokenizer adds its special tokens.

    Returns:
        (what the model reads of each prompt, how much that is of them).

    Raises:
        EmbedcacheError: A prompt is too long without any text.
    """
    features = model.tokenize([wrap(i, text) for i, text in enumerate(texts)], special)
    whole = np.array([len(one["input_ids"]) for one in features], np.int64)
    for i in np.flatnonzero(whole > model.max_length).tolist():
        features[i] = _cut(model, texts[i], partial(wrap, i), int(whole[i]), special)
    unknown = model.tokenizer.unk_token_id
    counts = np.stack([whole, [one["input_ids"].count(unknown) for one in features]], axis=1)
    some = (texts[i] for i in most_unknown(counts).tolist())
    return features, read_of(counts, int((whole > model.max_length).sum()), model.max_length, texts=some)


def _cut(model: LanguageModel, text: str, wrap: Callable[[str], str], tokens: int, special: bool) -> Features:
    """The longest prompt of one text that fits, its text ending between two tokens."""
    ends = shorten_ends(model, text)
    keep = len(ends)
    while tokens > model.max_length:
        if keep <= 0:
            raise EmbedcacheError(
                f"the template alone has {tokens} tokens, and {model.name} reads {model.max_length}: use a shorter "
                "one, fewer --shots or a larger --max-length"
            )
        keep = max(0, keep - (tokens - model.max_length))
        (found,) = model.tokenize([wrap(text[: ends[keep - 1]] if keep else "")], special)
        tokens = len(found["input_ids"])
    return found


def shorten_ends(model: LanguageModel, text: str) -> list[int]:
    """Where each token of a text ends, in characters."""
    said: Any = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [end for _, end in said["offset_mapping"]]


def shorten(model: LanguageModel, text: str, tokens: int) -> str:
    """The beginning of a text, of at most so many tokens."""
    if len(text) <= tokens:  # no token is shorter than a character
        return text
    ends = shorten_ends(model, text)
    return text if len(ends) <= tokens else text[: ends[tokens - 1]] if tokens else ""
