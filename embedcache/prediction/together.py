"""Several runs on the same texts: what they have in common is computed once.

Runs that read the same vectors share them. Of tuned runs of one base, texts go through the layers that none of them has
trained once, then through each one's own. What comes out differs from each run's own encoder by rounding: its native
kernels do not begin in the middle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from embedcache.cache.fingerprint import output_fingerprint
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

# (texts, who hears which of them are done) to (vectors [n, D] of each run, what was read of the texts)
Encode = Callable[[Sequence[str], Finished | None], tuple[list[np.ndarray], Reading]]


class EachRun:
    """The vectors that each of several runs reads of texts."""

    def __init__(self, runs: Sequence[Run], load: Callable[[Run], Classifier]) -> None:
        """load: of a run with its encoder."""
        self._keys = [vectors_key(run) for run in runs]
        self._passes = [(list(map(vectors_key, some)), encode_of(some, load)) for some in shared_passes(runs)]

    def encode(self, texts: Sequence[str], tell: Finished | None = None) -> tuple[list[np.ndarray], Reading]:
        """([n, D] of each run, what the encoder that reads the fewest tokens reads of the texts)."""
        found: dict[tuple[Any, ...], np.ndarray] = {}
        readings = []
        for number, (keys, encode) in enumerate(self._passes, 1):
            vectors, read = encode(texts, tell if number == len(self._passes) else None)
            found.update(zip(keys, vectors, strict=True))
            readings.append(read)
        return [found[key] for key in self._keys], min(readings, key=lambda one: one.max_length)


def vectors_key(run: Run) -> tuple[Any, ...]:
    """Equal for runs that read the same vectors of a text."""
    info = run.info
    return output_fingerprint(info["encoder"], (info["pooling"], info["layer"])), info["dtype"]


def shared_passes(runs: Sequence[Run]) -> list[list[Run]]:
    """What is encoded at once, the first run among the first: of runs that read the same vectors one stands for all."""
    left = {vectors_key(run): run for run in reversed(runs)}
    left = {key: left[key] for key in map(vectors_key, runs)}
    passes = []
    while left:
        first = next(iter(left.values()))
        passes.append(sharing(first, left.values()) or [first])
        for run in passes[-1]:
            del left[vectors_key(run)]
    return passes


def encode_of(runs: Sequence[Run], load: Callable[[Run], Classifier]) -> Encode:
    """The function that encodes texts for one of ``shared_passes``."""
    if len(runs) > 1:
        return TogetherEncoder(runs, load).encode
    return alone(load(runs[0]))


def alone(classifier: Classifier) -> Encode:
    """That of one run."""

    def encode(texts: Sequence[str], tell: Finished | None = None) -> tuple[list[np.ndarray], Reading]:
        vectors, read = classifier.encode_counted(texts, tell)
        return [vectors], read

    return encode


def sharing(run: Run, runs: Iterable[Run]) -> list[Run]:
    """Those of the runs that share frozen layers with this one, itself among them; none where it shares no layer."""
    shared = _shared(run)
    return [] if shared is None else [other for other in runs if _shared(other) == shared]


def _shared(run: Run) -> dict[str, Any] | None:
    """What runs of one base have in common; None of a run all of whose layers, or none, were trained."""
    tuned, identity = run.info.get("tuned"), run.info["encoder"]["identity"]
    if tuned is None or tuned["kind"] == "adapter" or min(tuned["layers"]) < 2 or run.info.get("layer", -1) != -1:
        return None
    return {name: value for name, value in identity.items() if name != "tuned"}


class TogetherEncoder:
    """The vectors of several runs of one base; see ``sharing``."""

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
