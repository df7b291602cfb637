"""Choose which products of an int8 encoder stay in bfloat16, by measuring its vectors.

csrc/encoder/int8.h computes the products of a layer's linear layers (see ``PRODUCTS``) in int8. Most models lose little
accuracy by this, some lose much in a few products. ``choose_kept`` finds these once, on a table's first texts. The
choice is part of the encoder's identity, so that a continued cache, predict and search compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.encoder.encoder import Encoder
from embedcache.encoder.poolings import MODEL
from embedcache.encoder.runner_native import PRODUCTS, backend

TEXTS = 32  # the most to measure
MEDIAN, WORST = 0.999, 0.99  # the median and lowest cosine to float32 that their vectors must reach


@dataclass(frozen=True)
class Int8Choice:
    """What was chosen, and the cosines to float32 that it reaches.

    Attributes:
        kept: the products that stay in bfloat16, such as "5 qkv".
        products: the number of products of the encoder.
        before: (median, lowest) cosine of the texts with all products in int8; None if there was no text.
        after: the same with the products in ``kept`` in bfloat16.
        native: whether this processor has instructions for int8.
    """

    kept: list[str]
    products: int
    before: tuple[float, float] | None
    after: tuple[float, float] | None
    native: bool

    def in_words(self) -> str:
        """One line for the user."""
        reached = "" if self.after is None else f"; cosine to float32 of the first texts {_cosines(self.after)}"
        if self.kept and self.before is not None:
            reached += f", with these too in int8 {_cosines(self.before)}"
        emulated = "" if self.native else "; this processor has no VNNI, so int8 is emulated and no faster than float32"
        return f"int8: {in_int8(self.kept, self.products)}{reached}{emulated}"


def in_int8(kept: Sequence[str], products: int | None = None) -> str:
    """Which products are in int8, in words."""
    if not kept:
        return "all products of linear layers" + (f" ({products})" if products else "")
    shown = ", ".join(kept[:8]) + (f" and {len(kept) - 8} more" if len(kept) > 8 else "")
    return f"all products of linear layers but {len(kept)}{f' of {products}' if products else ''} in bfloat16, {shown}"


def choose_kept(source: str | Path, settings: dict[str, Any], texts: Sequence[str]) -> Int8Choice:
    """Choose the products that stay in bfloat16, so that the first texts' vectors are close enough to float32.

    A text's loss is one minus the cosine to float32 of its CLS or its mean vector, whichever loses more.

    1. Measure the loss with all products in int8. If it is small enough, none stays in bfloat16.
    2. Otherwise measure the loss with each product alone in int8; these losses nearly add up.
    3. Keep the worst products in bfloat16, as few as suffice by that sum.
    4. Keep one more at a time until the measured loss is small enough, too.

    Args:
        source: the model's folder or name.
        settings: arguments of ``Encoder.load`` except dtype, device and kept.
        texts: the first different ones are measured, ``TEXTS`` at most.

    Raises:
        EmbedcacheError: as ``Encoder.load``.
    """
    measured = _Measured(source, settings, list(dict.fromkeys(texts))[:TEXTS])
    native = any(name in backend("int8") for name in ("vnni", "dot", "i8mm"))
    everything = measured.losses([])
    if not len(everything) or not np.isfinite(everything).all() or _suffices(everything):
        cosines = _summary(everything)
        return Int8Choice([], len(measured.products), cosines, cosines, native)
    alone = {one: measured.losses([other for other in measured.products if other != one]) for one in measured.products}
    ranked = sorted(alone, key=lambda one: -float(alone[one].mean()))
    kept: list[str] = []
    expected = everything.copy()
    while not _suffices(expected) and ranked[len(kept) :]:
        expected -= alone[ranked[len(kept)]]
        kept.append(ranked[len(kept)])
    found = measured.losses(kept)
    while not _suffices(found) and ranked[len(kept) :]:
        kept.append(ranked[len(kept)])
        found = measured.losses(kept)
    return Int8Choice(sorted(kept), len(measured.products), _summary(everything), _summary(found), native)


class _Measured:
    """The vectors of some texts in float32, to which those in int8 are compared."""

    def __init__(self, source: str | Path, settings: dict[str, Any], texts: list[str]) -> None:
        self._source, self._settings, self._texts = source, {**settings, MODEL: None}, texts
        exact = Encoder.load(source, **self._settings, dtype="float32", device="cpu")
        self._outputs = [("mean", -1)] if exact.no_cls else [("mean", -1), ("cls", -1)]
        self._exact = exact.encode_texts(texts, self._outputs)
        self.products = [f"{layer} {name}" for layer in range(1, exact.layers + 1) for name in PRODUCTS]

    def losses(self, kept: Sequence[str]) -> np.ndarray:
        """The loss of each text, float64 [n], with the products in ``kept`` in bfloat16 and the others in int8."""
        encoder = Encoder.load(self._source, **self._settings, dtype="int8", kept=kept)
        found = encoder.encode_texts(self._texts, self._outputs)
        worst: np.ndarray = np.max([_loss(x, y) for x, y in zip(found, self._exact, strict=True)], axis=0)
        return worst


def _loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One minus the cosine of each row; 0 where both are zero."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    loss: np.ndarray = np.where(lengths == 0, 0.0, 1 - (x * y).sum(axis=1) / np.where(lengths == 0, 1.0, lengths))
    return loss


def _suffices(losses: np.ndarray) -> bool:
    return bool(np.median(losses) <= 1 - MEDIAN and losses.max() <= 1 - WORST)


def _summary(losses: np.ndarray) -> tuple[float, float] | None:
    return (1 - float(np.median(losses)), 1 - float(losses.max())) if len(losses) else None


def _cosines(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.5f} in the median, {pair[1]:.4f} at worst"
