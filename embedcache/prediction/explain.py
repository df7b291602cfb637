"""Why a text got its label: the words that carry it, and the training rows that speak for and against it.

A word's effect is what its deletion costs: the probability of the label with all words less that without this one
(Li et al., "Understanding neural networks through representation erasure", 2016). All texts of all words are encoded in
one pass. The neighbours are the training rows with the nearest vectors, by the cosine.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.index.exact import StoredRows, search_all, unit_length
from embedcache.labelling.opened import open_as_recorded
from embedcache.prediction.explanation import Explanation, TrainingNeighbour, WordEffect
from embedcache.prediction.predictions import ColumnOutputs
from embedcache.runs.data import Data, load_data
from embedcache.runs.folder import Run
from embedcache.runs.sides import stored_sides
from embedcache.runs.split import SIDES

if TYPE_CHECKING:
    from embedcache.cache import Cache

MOST_PARTS = 48  # of a text: of a longer one, words are deleted in runs of like length
SHOWN = 6  # words of a text
NEAREST, NAMED = 50, 3  # training rows that are looked at, and named on each side
# Scripts that put no space between words have a part for each character: kana, Han, Thai, Lao, Khmer, Burmese.
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1780-\u17ff\u1000-\u109f\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:['\u2019-][^\W{UNSPACED}]+)*")


Parts = list[tuple[int, int]]  # of a text: where each begins and ends


def parts_of(text: str) -> Parts:
    """Where each word begins and ends; of many words, where each run of them does."""
    words = [one.span() for one in WORD.finditer(text)]
    if len(words) <= MOST_PARTS:
        return words
    ends = np.linspace(0, len(words), MOST_PARTS + 1).round().astype(int).tolist()
    return [(words[a][0], words[b - 1][1]) for a, b in itertools.pairwise(ends)]


def without(text: str, part: tuple[int, int]) -> str:
    """The text with a part deleted."""
    return text[: part[0]] + text[part[1] :].lstrip(" ")


class Occlusion:
    """Texts with each of their parts deleted, each different one once.

    Attributes:
        variants: the texts to encode.
        parts: of each text, the deleted parts.
    """

    def __init__(self, texts: Sequence[str], parts: Sequence[Parts] | None = None) -> None:
        """parts: of each text those to delete; None: all."""
        self.texts, self.parts = texts, [parts_of(text) for text in texts] if parts is None else parts
        place: dict[str, int] = {}
        self._places = [
            np.array([place.setdefault(without(text, part), len(place)) for part in parts], np.int64)
            for text, parts in zip(texts, self.parts, strict=True)
        ]
        self.variants = list(place)

    def effects(self, outputs: np.ndarray, shown: np.ndarray, explained: np.ndarray) -> list[np.ndarray]:
        """Of each text the effect of each part.

        Args:
            outputs: float [v, C], probabilities or values of the variants.
            shown: float [n, C], those of the whole texts.
            explained: int [n], the output that is explained.
        """
        return [
            shown[i, c] - outputs[places, c]
            for i, (places, c) in enumerate(zip(self._places, explained.tolist(), strict=True))
        ]

    def words(self, i: int, effects: np.ndarray) -> list[WordEffect]:
        """The parts of text ``i`` with the largest effects, largest first."""
        most = np.argsort(-np.abs(effects), kind="stable")[:SHOWN]
        most = most[np.argsort(-effects[most], kind="stable")]
        text = self.texts[i]
        spans = [(*self.parts[i][k], float(effects[k])) for k in most.tolist()]
        return [WordEffect(text[start:end], start, end, round(effect, 6)) for start, end, effect in spans]


class TrainingRows:
    """The rows that a run's heads learned from, in the run's cache, to find the nearest."""

    def __init__(self, run: Run, cache: Cache) -> None:
        """Raises EmbedcacheError where the cache has none of them any more, or other labels."""
        self.cache = cache
        self._of: dict[str, tuple[Data, np.ndarray]] = {}
        for column, one in run.columns.items():
            info = one.info
            if "tuned" in info:
                raise EmbedcacheError(f"{run.path} is a tuned run: no cache has the vectors that its head reads")
            data = load_data(cache, column, info["pooling"], info["layer"], None, one.best.kind)
            if data.classes != one.classes:
                raise EmbedcacheError(f"{cache.path} has other labels now than {run.path} was trained on")
            sides = stored_sides(cache, one, str(one.path))
            rows = np.flatnonzero((sides == SIDES.index("train")) & data.labelled)
            if not len(rows):
                raise EmbedcacheError(f"{cache.path} has no training row of {run.path} any more")
            self._of[column] = data, rows

    def about(self, column: str, vectors: np.ndarray, explained: np.ndarray) -> list[dict[str, Any]]:
        """Of each vector [n, D] the part of an Explanation that is about neighbours; explained: int [n], the output."""
        data, rows = self._of[column]
        k = min(NEAREST, len(rows))
        scores, found = search_all(StoredRows(data.x), unit_length(vectors), k, rows)
        every = []
        for cosines, near, c in zip(scores, found, explained.tolist(), strict=True):
            has = self._has(data, near, c)
            named = [np.flatnonzero(which)[:NAMED] for which in (has, ~has)]
            supporting, opposing = ([self._neighbour(data, near[i], cosines[i]) for i in some] for some in named)
            every.append({"nearest": k, "agreeing": int(has.sum()), "supporting": supporting, "opposing": opposing})
        return every

    def _has(self, data: Data, rows: np.ndarray, output: int) -> np.ndarray:
        """bool [n]: the rows that have the explained label; of values all, as none is for or against."""
        kind = kind_of(data.kind)
        if not kind.has_classes:
            return np.ones(len(rows), bool)
        return np.asarray(data.y[rows] == output if kind.exclusive else data.y[rows, output] > 0)

    def _neighbour(self, data: Data, row: int, cosine: float) -> TrainingNeighbour:
        y, kind = data.y[row], kind_of(data.kind)
        label: Any = float(str(y[0])) if not kind.has_classes else None  # the float32's own digits, no more
        if kind.has_classes:
            label = data.classes[int(y)] if kind.exclusive else [data.classes[c] for c in np.flatnonzero(y > 0)]
        return TrainingNeighbour(int(row), round(float(cosine), 4), self.cache.texts[int(row)], label)


def find_training_rows(run: Run) -> TrainingRows | str:
    """Those in the run's cache, or why there are none."""
    try:
        return TrainingRows(run, open_as_recorded(run.info["cache"]["path"], run.info.get("labels_from")))
    except (EmbedcacheError, KeyError) as error:
        return f"no training rows are named: {error}"


def explained_outputs(of: ColumnOutputs) -> np.ndarray:
    """int [n]: which output of each text is explained: the predicted class, the likeliest of several labels."""
    if of.about.exclusive:
        return np.asarray(of.decided)
    return np.asarray(of.outputs.argmax(axis=1))


def explain(
    answers: Mapping[str, ColumnOutputs],
    occlusion: Occlusion,
    occluded: Mapping[str, np.ndarray],
    vectors: np.ndarray,
    rows: TrainingRows | None,
) -> dict[str, ColumnOutputs]:
    """The same answers with explanations.

    Args:
        answers: Of each label column, on n texts.
        occlusion: Of these texts.
        occluded: Of each label column the outputs on the variants.
        vectors: Of the texts, [n, D].
        rows: Where their neighbours are; None names none.
    """
    found = {}
    for column, one in answers.items():
        outputs = explained_outputs(one)
        effects = occlusion.effects(occluded[column], one.outputs, outputs)
        near = rows.about(column, vectors, outputs) if rows is not None and len(outputs) else [{}] * len(outputs)
        explained = [
            Explanation(one.classes[c] if one.about.has_classes else None, occlusion.words(i, effects[i]), **near[i])
            for i, c in enumerate(outputs.tolist())
        ]
        found[column] = replace(one, explained=explained)
    return found
