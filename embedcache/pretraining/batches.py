"""Tokens in batches of like length, and the gaps in them: whole words, by transformers' collator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from embedcache.errors import EmbedcacheError

POOL = 50  # batches whose rows are drawn together, then sorted by length


@dataclass(frozen=True)
class TokenRow:
    """What the model reads of a text, or of a part of a long one: arrays [L].

    ``special``: where a token is special. ``begins``: where a word begins.
    """

    ids: np.ndarray
    special: np.ndarray
    begins: np.ndarray


Batch = tuple[int, list[TokenRow]]  # its number in the whole training, and its rows


def make_rows(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[TokenRow]:
    """All tokens of all texts; a text of more than ``max_length`` tokens is several rows."""
    rows: list[TokenRow] = []
    for start in range(0, len(texts), 1000):
        found = tokenizer(
            list(texts[start : start + 1000]), truncation=True, max_length=max_length, verbose=False,
            return_overflowing_tokens=True, return_special_tokens_mask=True,
        )  # fmt: skip
        for i, ids in enumerate(found["input_ids"]):
            special = np.array(found["special_tokens_mask"][i], bool)
            words = np.array([-1 if word is None else word for word in found.word_ids(i)])
            begins = ~special & (np.diff(words, prepend=-2) != 0)
            if not special.all():
                rows.append(TokenRow(np.array(ids, np.int32), special, begins))
    return rows


def words_are_seen(tokenizer: Any) -> bool:
    """Whether the tokenizer tells words apart; where it does not, single tokens are masked."""
    (row,) = make_rows(tokenizer, ["one two three four"], 64)
    return int(row.begins.sum()) >= 4


class LengthBatches(Dataset[Batch]):
    """The batches of all epochs, in the order in which they are trained on.

    What a batch holds follows from its number and the seed, so that a training can go on at any of them.
    """

    def __init__(self, rows: Sequence[TokenRow], size: int, epochs: int, seed: int) -> None:
        """Rows drawn at random, and of every POOL batches those of like length together."""
        self._rows, self._batches = rows, list[np.ndarray]()
        lengths, draw = np.array([len(row.ids) for row in rows]), np.random.default_rng(seed)
        for _ in range(epochs):
            order, found = draw.permutation(len(rows)), list[np.ndarray]()
            for start in range(0, len(rows), size * POOL):
                pool = order[start : start + size * POOL]
                pool = pool[np.argsort(-lengths[pool], kind="stable")]
                found += [pool[i : i + size] for i in range(0, len(pool), size)]
            self._batches += [found[i] for i in draw.permutation(len(found))]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        return number, [self._rows[i] for i in self._batches[number].tolist()]


class WholeWords:
    """A collator: pads a batch and masks words of it, by transformers' DataCollatorForLanguageModeling.

    That takes tokens for one word which touch in the text; here it is told the tokenizer's own words, which
    punctuation ends, by offsets that touch within a word alone.
    """

    def __init__(self, tokenizer: Any, share: float, seed: int) -> None:
        """seed: with the number of a batch it decides the gaps."""
        from transformers import DataCollatorForLanguageModeling

        try:
            self._inner = DataCollatorForLanguageModeling(
                tokenizer, mlm_probability=share, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0
            )
        except TypeError as error:
            raise EmbedcacheError(
                "the installed transformers cannot mask whole words: pip install 'embedcache[train]'"
            ) from error
        self._pad, self._seed = int(tokenizer.pad_token_id), seed

    def __call__(self, items: Sequence[Batch]) -> dict[str, torch.Tensor]:
        """items: one batch of n rows, as the data loader has batches of one. Returns tensors [n, longest]."""
        ((number, rows),) = items
        drawn = int(np.random.SeedSequence([self._seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self._inner.generator = torch.Generator().manual_seed(drawn)
        n, width = len(rows), max(len(row.ids) for row in rows)
        ids = torch.full((n, width), self._pad)
        special = np.ones((n, width), np.int64)
        offsets = np.zeros((n, width, 2), np.int64)
        mask = torch.zeros((n, width), dtype=torch.long)
        for i, row in enumerate(rows):
            length = len(row.ids)
            ids[i, :length] = torch.from_numpy(row.ids.astype(np.int64))
            mask[i, :length] = 1
            special[i, :length] = row.special
            offsets[i, :length, 0] = 2 * np.cumsum(row.begins) + np.arange(length)
            offsets[i, :length, 1] = offsets[i, :length, 0] + 1
        masked, labels = self._inner.torch_mask_tokens(ids, torch.from_numpy(special), offsets)
        return {"input_ids": masked, "attention_mask": mask, "labels": labels}
