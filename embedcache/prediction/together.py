"""Several runs on the same texts: what they have in common is computed once.

Runs that read the same vectors share them; tuned runs of one base share the layers that none of them has trained
(shared_layers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from embedcache.cache.fingerprint import output_fingerprint
from embedcache.common.outputs import parts_of
from embedcache.common.reading import Reading
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
    parts = parts_of(info["pooling"], info["layer"])
    return *(output_fingerprint(info["encoder"], part) for part in parts), info["dtype"]


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
        from embedcache.prediction.shared_layers import TogetherEncoder  # loads torch

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
