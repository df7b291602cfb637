"""A run that is served: its best heads, what they read, and which texts they were trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import open_cache
from embedcache.cache.side_by_side import holds, vectors_of
from embedcache.common.int8_rows import as_stored
from embedcache.common.outputs import Layer
from embedcache.errors import EmbedcacheError
from embedcache.index import default_path
from embedcache.prediction.classifier import Classifier, check_same_encoder
from embedcache.prediction.explain import TrainingRows
from embedcache.prediction.predictions import Predictions
from embedcache.prediction.rule import Reject, Threshold
from embedcache.runs.folder import Run, require_keys, with_run
from embedcache.serve.leaderboard import read_board
from embedcache.serve.sides import TextSides

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.encoder import Encoder

TUNED = "tuned run"  # in the place of a pooling: what the heads of a tuned run read
RULES = 16  # thresholds and limits that are kept
Output = tuple[str, Layer]  # pooling and layer


@dataclass
class OpenedRun:
    """A run as it was read. board: see ``read_board``. tuned: its own encoder, None where it is the cache's."""

    name: str
    run: Run
    board: dict[str, dict[str, Any]]
    tuned: Encoder | None = None

    @property
    def output(self) -> Output:
        """What the heads read, by a name that no vectors of the cache have where a tuned encoder makes it."""
        pooling = self.run.info["pooling"] if self.tuned is None else f"{TUNED} {self.name}"
        return pooling, self.run.info["layer"]


def read_runs(paths: Sequence[str | Path]) -> list[OpenedRun]:
    """Read runs, each by the name of its folder; by its whole path where two folders have one name.

    Raises:
        EmbedcacheError: a run that cannot be opened, or is given twice.
    """
    places = Counter(str(Path(path).resolve()) for path in paths)
    for place, times in places.items():
        if times > 1:
            raise EmbedcacheError(f"--run {place} is given {times} times: once is enough")
    names = Counter(Path(place).name for place in places)
    found = []
    for path, place in zip(paths, places, strict=True):
        run, board = with_run(path, lambda one: (one, read_board(one)))
        require_keys(run, "encoder", "pooling", "layer", "dtype")
        name = Path(place).name
        found.append(OpenedRun(name if names[name] == 1 else str(path), run, board))
    return found


def fit_run(opened: OpenedRun, cache: Cache, device: str, trust_remote_code: bool) -> None:
    """Load the encoder of a tuned run. Raises EmbedcacheError: the run is not of the cache's encoder, or its own is
    gone or changed."""
    from embedcache.encoder.load_again import encoder_of

    info = opened.run.info
    if "tuned" not in info or info["encoder"]["identity"] == cache.encoder["identity"]:
        check_same_encoder(opened.run, cache)
        return
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    opened.tuned = encoder_of(info["encoder"], str(opened.run.path), info["pooling"], **options)


def output_of_run(run: Run, path: str | Path) -> tuple[str | None, int | None]:
    """The vectors that the heads read, where the cache holds them and there is no index of others."""
    output = run.info["pooling"], run.info["layer"]
    with open_cache(path) as cache:
        return output if output in cache.outputs and not default_path(path).exists() else (None, None)


class ServedRun:
    """The best heads of a run, ready to label.

    Attributes:
        name: what requests call it. run, board, tuned, output: as in ``OpenedRun``. classifier: without any limits.
        sides: of texts.
    """

    def __init__(self, opened: OpenedRun, cache: Cache, encoder: Encoder | None) -> None:
        self.name, self.run, self.board, self.tuned = opened.name, opened.run, opened.board, opened.tuned
        self.output = opened.output
        self.cache, self._encoder = cache, opened.tuned or encoder
        self.classifier = Classifier(self.run, self._encoder)
        self.classifier_with = lru_cache(RULES)(self._make_classifier)  # by what is asked: limits are worked out once
        self.sides = TextSides(self.run, cache)

    def _make_classifier(self, threshold: Threshold, reject: Reject, sure: float | None) -> Classifier:
        return Classifier(self.run, self._encoder, threshold=threshold, reject=reject, sure=sure)

    def calibrated(self) -> Classifier:
        """With the run's temperatures, where it has them."""
        try:
            return Classifier(self.run, self._encoder, calibrated=True)
        except EmbedcacheError:
            return Classifier(self.run, self._encoder)

    def stored(self, vectors: np.ndarray) -> np.ndarray:
        """Encoded vectors [n, D], rounded as those that the heads learned from."""
        vectors = np.asarray(vectors, np.float32)
        dim = self.run.info["dim"]
        return as_stored(vectors.reshape(len(vectors), -1 if len(vectors) else dim), str(self.run.info["dtype"]))

    def label_row(self, row: int) -> Predictions | None:
        """Of a row's stored vector; None where it is not finite."""
        vectors = vectors_of(self.cache, *self.output)[row : row + 1]
        if not np.isfinite(vectors).all():
            return None
        return self.classifier.label([self.cache.texts[row]], as_stored(vectors, str(self.run.info["dtype"])))

    @property
    def is_stored(self) -> bool:
        """Whether the cache holds the vectors that the heads read."""
        return holds(self.cache, *self.output)

    @cached_property
    def training_rows(self) -> TrainingRows | None:
        """Those of the run, where the served cache is the one that it was trained on."""
        try:
            return TrainingRows(self.run, self.cache)
        except EmbedcacheError:
            return None
