"""Each score is what its source computes, and what is asked of the registry is in it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from embedcache.heads.kinds import KINDS, kind_of
from embedcache.runs.baselines import BASELINES, baselines_for
from embedcache.runs.intervals import JACKKNIFE
from embedcache.runs.scores import CHOICES, SCORES, headlines, main_score, measure_all, scores_of, title

OPTIONS: dict[str, dict[str, Any]] = {"macro_f1": {"average": "macro"}, "micro_f1": {"average": "micro"}}


def rows_of(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """y and predictions, some of them wrong; every class occurs."""
    rng = np.random.default_rng(0)
    if kind == "classification":
        y = np.concatenate([np.arange(5), rng.integers(0, 5, 200)])
        return y, np.where(rng.random(len(y)) < 0.7, y, rng.integers(0, 5, len(y)))
    if kind == "multilabel":
        y = rng.random((200, 4)) < 0.4
        return y.astype(np.float32), np.where(rng.random(y.shape) < 0.8, y, ~y)
    y = rng.normal(size=(200, 1))
    return y, y + rng.normal(size=y.shape)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, one.name) for kind in KINDS for one in scores_of(kind) if one.measure is not None]
)
def test_a_score_is_what_its_source_computes(kind: str, name: str) -> None:
    y, predicted = rows_of(kind)
    module, _, function = SCORES[name].source.rpartition(".")
    asked = [one.astype(int) for one in (y, predicted)] if kind_of(kind).has_classes else [y, predicted]
    found = getattr(importlib.import_module(module), function)(*asked, **OPTIONS.get(name, {}))
    expected = found[0] if name == "spearman" else found
    assert measure_all(kind, y, predicted)[name] == pytest.approx(float(np.squeeze(expected)), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_of_task_asks_for(kind: str) -> None:
    known, about = [one.name for one in scores_of(kind)], kind_of(kind)
    assert set(about.measured) <= set(known) & set(JACKKNIFE)
    assert headlines(kind)[0] == main_score(kind) and set(about.shown) <= set(known)
    assert set(about.choices) <= set(CHOICES) <= set(SCORES)
    assert all(SCORES[name].hub for name in headlines(kind))
    assert [one.name for one in baselines_for(kind) if not one.reads], "something that learns nothing to compare with"


def test_names() -> None:
    assert title("macro_f1") == "macro F1" and title("unheard") == "unheard"
    assert all(name == one.name and set(one.kinds) <= set(KINDS) for name, one in SCORES.items())
    assert all(name == one.name and one.title and one.long for name, one in BASELINES.items())
    assert all(one.called for one in BASELINES.values() if one.reads)
