"""A way to label rows by what labels are called: what each of ``methods`` must do."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embedcache.common.reading import Reading
from embedcache.errors import EmbedcacheError
from embedcache.prediction.predicted import Finished, Labeller, PredictedRows
from embedcache.prediction.predictions import ColumnOutputs
from embedcache.prompting.labels import TextLabel

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.encoder import Encoder
    from embedcache.prompting.examples import Examples

ROWS = 2048  # of a cache, whose texts are read and whose labels are saved at a time


@dataclass(frozen=True)
class AskedPrompt:
    """What the user asked for; None: what suits the method and the model.

    ``cache``: the one that is labelled. ``encoder``: its own, where it is loaded already. ``examples``: rows of it to
    put into prompts, where there are to be any.
    """

    model: str
    labels: Sequence[TextLabel]
    template: str | None = None
    pooling: str | None = None
    max_length: int | None = None
    calibrate: bool = True
    device: str = "auto"
    trust_remote_code: bool = False
    cache: Cache | None = None
    encoder: Encoder | None = None
    examples: Examples | None = None

    def template_or(self, default: str, needed: Sequence[str], method: str) -> str:
        """The template. Raises EmbedcacheError where a part that is needed is not in it, or is there twice."""
        template = default if self.template is None else self.template
        for part in needed:
            if (count := template.count(part)) != 1:
                said = f"has no {part}" if not count else f"has {part} {count} times"
                raise EmbedcacheError(f"--template {template!r} {said}: {method} needs it once, as in {default!r}")
        return template


class Method(Labeller):
    """A way to label texts with labels that are only named.

    Attributes:
        name: of it, on the command line. what: in one line. takes_examples: whether its prompt has room for them.
        labels: in the order of the probabilities. template: the one that is used.
        notes: what to know, in words. model: the folder or name of what computes.
        calibrated: whether the labels' share of content-free texts is divided out.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    takes_examples: ClassVar[bool] = False
    cache_rows = ROWS

    template: str
    model: str

    def __init__(self, asked: AskedPrompt) -> None:
        """Raises EmbedcacheError where labels, template or model do not suit the method."""
        self.asked, self.labels = asked, list(asked.labels)
        self.columns = {"label": ("classification", [one.name for one in asked.labels])}
        self.notes: list[str] = []
        self.calibrated = False

    @classmethod
    @abstractmethod
    def suits(cls, root: Path) -> bool:
        """Whether the model in a folder is made for it."""

    @abstractmethod
    def identity(self) -> object:
        """JSON of what computes the scores: the model by its content, and settings."""

    @abstractmethod
    def score(
        self, texts: Sequence[str], examples: Sequence[Sequence[tuple[str, int]]] | None, tell: Finished
    ) -> tuple[np.ndarray, Reading]:
        """Scores of texts, whose softmax are the probabilities of the labels.

        Args:
            texts: n of them.
            examples: For each text others and the number of their label, or None.
            tell: Called with the rows that each batch finished.

        Returns:
            (float64 [n, labels], what was read of the texts).
        """

    def key(self) -> str:
        said = [[one.name, *one.descriptions] for one in self.labels]
        return json.dumps([self.name, said, self.template, self.calibrated, self.identity()])

    def check(self, cache: Cache) -> None:
        pass

    def cache_key(self, cache: Cache) -> str:
        return blake2b(np.ascontiguousarray(cache.hashes).data, digest_size=16).hexdigest() + self._examples_key()

    def _examples_key(self) -> str:
        return "" if self.asked.examples is None else self.asked.examples.key()

    def texts(self, texts: list[str], tell: Finished) -> PredictedRows:
        return self._rows(*self.score(texts, None, tell))

    def cached(self, cache: Cache, rows: np.ndarray, tell: Finished) -> PredictedRows:
        texts = [cache.texts[i] for i in rows.tolist()]
        examples = None if self.asked.examples is None else self.asked.examples.of(rows)
        return self._rows(*self.score(texts, examples, tell))

    def _rows(self, scores: np.ndarray, reading: Reading | None) -> PredictedRows:
        (kind, names) = self.columns["label"]
        return PredictedRows.of([ColumnOutputs(kind, names, softmax(scores))], reading)


def softmax(scores: np.ndarray) -> np.ndarray:
    """float64 [n, C] whose rows add up to 1."""
    from scipy.special import softmax as of

    return np.asarray(of(scores.astype(np.float64), axis=1))
