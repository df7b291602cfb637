"""Tuned runs of one base on the same texts: the layers that none of them has trained are computed once.

From there texts go through each run's own. What comes out differs from each run's own encoder by rounding: its native
kernels do not begin in the middle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch

from embedcache.common.reading import Reading
from embedcache.encoder import Encoder
from embedcache.encoder.token_vectors import KeepStates
from embedcache.finetune.inputs import States
from embedcache.finetune.loop import make_batch
from embedcache.finetune.top import Top, first_alone
from embedcache.finetune.trainee import Trainee
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.predicted import Finished
from embedcache.runs.folder import Run


class TogetherEncoder:
    """The vectors of several runs of one base, which share layers (``together.sharing``)."""

    def __init__(self, runs: Sequence[Run], load: Callable[[Run], Classifier]) -> None:
        """load: of each run once; all but the first are let go."""
        self._lock, self._widths = threading.Lock(), [run.best.dim for run in runs]
        self._layer = min(min(run.info["tuned"]["layers"]) for run in runs) - 1
        self._encoder = _encoder(load(runs[0]))
        self._tops = [self._top(runs[0], self._encoder)]
        self._tops += [self._top(run, _encoder(load(run))) for run in runs[1:]]

    def _top(self, run: Run, encoder: Encoder) -> Trainee:
        """The layers behind the shared ones, of its own, and what makes the vector of them."""
        pooling = run.info["pooling"]
        top = Top(encoder.model, encoder.layers - self._layer, first_alone(encoder.model, pooling), encoder.max_length)
        return Trainee(top, encoder, pooling, run.best).to(encoder.device).eval()

    def encode(self, texts: Sequence[str], tell: Finished | None = None) -> tuple[list[np.ndarray], Reading]:
        """(float32 [n, D] of each run, what the encoder reads of the texts)."""
        found = [np.zeros((len(texts), width), np.float32) for width in self._widths]

        def keep(rows: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> None:
            inputs = States(_Held(values, offsets), np.diff(offsets))
            with self._lock, torch.inference_mode():  # torch has threads of its own
                batch = make_batch(inputs, np.arange(len(rows)), self._encoder.device)
                for top, vectors in zip(self._tops, found, strict=True):
                    vectors[rows] = top.vectors(*batch).cpu().numpy()

        tokens = self._encoder.tokenize(texts)
        self._encoder.encode_tokens(tokens, [], states=KeepStates(self._layer, keep), tell=tell)
        return found, self._encoder.reading(texts, tokens)


def _encoder(classifier: Classifier) -> Encoder:
    assert classifier.encoder is not None
    return classifier.encoder


class _Held:
    """The states of one batch, as ``States`` reads them."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self._values, self._offsets = values, offsets

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._values, self._offsets
