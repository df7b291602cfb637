"""What a run must beat on new rows: its baselines, trained again on the run's own training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.evaluation.targets import Aligned
from embedcache.heads.kinds import kind_of
from embedcache.labelling.opened import open_as_recorded
from embedcache.runs.baseline_features import BaselineRows
from embedcache.runs.baselines import baselines_for, predict_baselines
from embedcache.runs.data import load_data
from embedcache.runs.folder import Run
from embedcache.runs.scores import measure_all
from embedcache.runs.sides import stored_sides
from embedcache.runs.split import SIDES, Split


@dataclass(frozen=True)
class Predicted:
    """What a baseline says of n rows, in the form of y; or a note why it says nothing, or how it was trained."""

    predicted: np.ndarray | None
    note: str | None = None

    def scores(self, aligned: Aligned) -> dict[str, float]:
        """The scores that need no probability."""
        assert self.predicted is not None
        y = aligned.y.astype(np.int64) if kind_of(aligned.kind).has_classes else aligned.y
        return measure_all(aligned.kind, y, self.predicted)


def baselines_of(run: Run, texts: Sequence[str], vectors: np.ndarray, aligned: Aligned) -> dict[str, Predicted]:
    """The run's baselines on rows with these texts and vectors [n, D], as run.json names them.

    They learn from the rows of the run's cache that the run trained on. Where that cache is gone or has changed, or
    the run is too old to say which rows these are, each has a note in place of predictions.
    """
    known = [one.name for one in baselines_for(run.best.kind)]
    names = [name for name in run.info.get("baselines", {}) if name in known]
    try:
        found = _train(run, texts, vectors)
    except EmbedcacheError as error:
        return {name: Predicted(None, f"not scored: {error}") for name in names}
    return {
        name: Predicted(_spread(one.predicted["test"], aligned), one.scores.get("note"))
        if "test" in one.predicted
        else Predicted(None, one.scores.get("note"))
        for name, one in found.items()
    }


def _train(run: Run, texts: Sequence[str], vectors: np.ndarray) -> dict[str, Any]:
    info = run.info
    with open_as_recorded(info["cache"]["path"], info.get("labels_from")) as cache:
        data = load_data(cache, str(info["label"]), info["pooling"], info["layer"], None, info["kind"])
        if data.classes != run.classes:
            raise EmbedcacheError(f"{cache.path} has other labels now than {run.path} was trained on")
        sides = stored_sides(cache, run, str(run.path))
        train = np.flatnonzero((sides == SIDES.index("train")) & data.labelled)
        if not len(train):
            raise EmbedcacheError(f"{cache.path} has no training row of {run.path} any more")
        known = cache.texts
        documents = [*(known[i] for i in train.tolist()), *texts]
        x = np.concatenate([data.x[train], vectors.astype(data.x.dtype, copy=False)])
        y = data.y[train]
        unknown = np.zeros((len(texts), *y.shape[1:]), y.dtype)  # never looked at
        n = len(train)
        split = Split(np.arange(n), np.arange(0), np.arange(n, n + len(texts)))
        options = {one.name: one.option(info["kind"]) for one in baselines_for(info["kind"])}
        strengths = {
            name: float(one[option])
            for name, one in info["baselines"].items()
            if (option := options.get(name)) is not None and one.get(option) is not None
        }
        settings = info.get("settings", {})
        rows = BaselineRows(
            documents,
            x,
            np.concatenate([y, unknown]),
            split,
            info["kind"],
            balanced=set(settings.get("class_weight", ())) == {"balanced"},
            standardize=bool(settings.get("standardize", True)),
        )
        return predict_baselines(rows, strengths)


def _spread(predicted: np.ndarray, aligned: Aligned) -> np.ndarray:
    """Predictions with a column for labels that no training row has."""
    if not kind_of(aligned.kind).has_lists:
        return predicted
    more = aligned.y.shape[1] - predicted.shape[1]
    return np.pad(predicted.astype(np.int64), ((0, 0), (0, more)))
