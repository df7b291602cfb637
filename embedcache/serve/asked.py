"""What was asked of a server: whether it is like the rows of the cache, and which labels it has. For /metrics."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedcache.cache.strings import hash_texts
from embedcache.drift.calibrated import BiasCorrected
from embedcache.drift.domain import compare_domains
from embedcache.drift.labels import new_shares
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.predictions import Predictions
from embedcache.runs.calibration_set import FILE, read_calibration_set
from embedcache.runs.folder import Run, read_file

KEPT, FIRST, AGAIN = 1000, 200, 100  # texts that are kept; that are compared first; that come before the next time
MOST_CLASSES = 100  # that have a metric each
OLD_ROWS = 1000  # of the cache, that they are compared with


@dataclass(frozen=True)
class AskedLike:
    """How the last texts compare.

    Attributes:
        texts: how many there were.
        auc, low, high: of a head that tells them from the cache's rows, and its 95% interval.
        shares: label column -> class -> its estimated share among them.
    """

    texts: int
    auc: float
    low: float
    high: float
    shares: dict[str, dict[str, float]] = field(default_factory=dict)


class AskedTexts:
    """The vectors of the last different texts that were labelled, by hash; no text is kept.

    Attributes:
        last: the last comparison; None before the first.
    """

    def __init__(self, classifier: Classifier, old_rows: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        """old_rows: vectors float [n, D] and text hashes uint8 [n, 16] of the cache, read once."""
        self.classifier, self._old_rows = classifier, old_rows
        self._old: tuple[np.ndarray, np.ndarray] | None = None
        self._known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._calibrated: dict[str, _Calibrated | None] = {}
        self._since, self._lock = 0, threading.Lock()
        self._thread: threading.Thread | None = None
        self.last: AskedLike | None = None
        self.tell: Callable[[str, str, int], None] = lambda column, label, texts: None

    def add(self, texts: Sequence[str], vectors: np.ndarray, predictions: Predictions) -> None:
        """Take in texts that were labelled. The comparison, where one is due, runs in a thread of its own."""
        for column, one in predictions.answers.items():
            if len(one.classes) > MOST_CLASSES:
                continue
            for label, count in one.count().items():
                self.tell(column, label, count)
            self.tell(column, "", sum(one.count_reasons().values()))
        keys = hash_texts([text.encode("utf-8", "surrogatepass") for text in texts])
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                self._since += key.tobytes() not in self._known
                self._known[key.tobytes()] = np.array(vector)
                self._known.move_to_end(key.tobytes())
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            due = len(self._known) >= FIRST and (self.last is None or self._since >= AGAIN)
            if due and (self._thread is None or not self._thread.is_alive()):
                self._since = 0
                hashes = np.frombuffer(b"".join(self._known), np.uint8).reshape(len(self._known), -1)
                asked = np.stack(list(self._known.values())), hashes
                self._thread = threading.Thread(target=self._compare, args=asked, name="drift", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait for a comparison that has begun."""
        if self._thread is not None:
            self._thread.join()

    def _compare(self, vectors: np.ndarray, hashes: np.ndarray) -> None:
        try:
            if self._old is None:
                self._old = self._old_rows()
            found = compare_domains(self._old[0], vectors, self._old[1], hashes)
        except EmbedcacheError:  # too few rows in the cache: there is nothing to compare
            return
        self.last = AskedLike(len(vectors), found.auc, *found.interval, self._shares(vectors))

    def _shares(self, vectors: np.ndarray) -> dict[str, dict[str, float]]:
        """By the run's own heads, of the columns with one class a row, as far as validation rows have it."""
        shares = {}
        for column, run in self.classifier.run.columns.items():
            if column not in self._calibrated:
                self._calibrated[column] = _calibrate(run)
            if (known := self._calibrated[column]) is not None:
                logits = run.best.logits(vectors)[:, known.used].astype(np.float64)
                found = new_shares(known.fitted.probabilities(logits), known.shares)
                shares[column] = {run.classes[i]: float(one) for i, one in zip(known.used, found, strict=True)}
        return shares


@dataclass(frozen=True)
class _Calibrated:
    """A head on its validation rows. used: int [k], the classes that these have; shares: theirs, float64 [k]."""

    used: np.ndarray
    shares: np.ndarray
    fitted: BiasCorrected


def _calibrate(run: Run) -> _Calibrated | None:
    """None where rows have several classes or none, and where the run has kept no validation rows of two classes."""
    if not kind_of(run.best.kind).exclusive:
        return None
    try:
        known = read_calibration_set(read_file(run, FILE), run.path, run.info)
    except EmbedcacheError:
        return None
    used, y = np.unique(known.y, return_inverse=True)
    if len(used) < 2:
        return None
    return _Calibrated(used, np.bincount(y) / len(y), BiasCorrected.fit(y, known.outputs[:, used].astype(np.float64)))
