"""finetune --resume after people have labelled: what learned from other labels is trained again, and it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.finetune.job import finetune
from embedcache.labelling import LabelJournal
from embedcache.runs.folder import load_run
from tests.finetune.token_caches import make_token_cache
from tests.labelling.conftest import said


@pytest.fixture
def cache(tmp_path: Path, tiny_bert: Path) -> Path:
    return make_token_cache(tmp_path, tiny_bert, n=120)


def interrupted(cache: Path, run: Path, monkeypatch: pytest.MonkeyPatch, resume: bool = False, **settings: Any) -> None:
    """What was trained is whole, the run is not written."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("embedcache.runs.column.run_baselines", stop)
        with pytest.raises(KeyboardInterrupt, match="with --resume continues"):
            finetune(cache, run, resume=resume, **settings)


def turn(cache: Path, rows: range) -> LabelJournal:
    """People say the other label of these rows."""
    journal, other = LabelJournal.beside(cache), {"positive": "negative", "negative": "positive"}
    with open_cache(cache) as opened:
        codes, names = opened.labels("label")
        journal.append([said(opened.texts[row], other[names[codes[row]]]) for row in rows])
    return journal


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_a_sentence_says_that_labels_have_changed(cache, tmp_path, monkeypatch, engine) -> None:
    settings: dict[str, Any] = {"train": "last", "pooling": "cls", "epochs": 1, "lr": 1e-3, "group": "film"}
    settings |= {"early_stop": 0, "engine": engine}
    run, told = tmp_path / "run", list[str]()
    journal = turn(cache, range(10))
    interrupted(cache, run, monkeypatch, **settings)
    interrupted(cache, run, monkeypatch, resume=True, tell=told.append, **settings)
    assert not any("other labels" in line for line in told), "they are the same"

    turn(cache, range(10, 30))
    interrupted(cache, run, monkeypatch, resume=True, tell=told.append, **settings)
    (line,) = [line for line in told if "other labels" in line]
    assert line.startswith("--resume: what was trained on other labels is trained again: with 10 entries of ")
    assert f"with 30 entries of {journal.path.name} now; --labels {journal.path}@10 takes those of then" in line

    told.clear()
    assert finetune(cache, run, resume=True, tell=told.append, **settings).kept == 1
    assert not any("other labels" in line for line in told), "nothing is trained again"


def test_the_training_on_all_folds_is_not_that_of_other_labels(cache, tmp_path, monkeypatch) -> None:
    """Also where the head that it starts from stays as it was, in a run."""
    from embedcache.runs.job import train_head

    split: dict[str, Any] = {"folds": 2, "group": "film", "pooling": "cls"}
    train_head(cache, tmp_path / "heads", hidden=0, lr=1e-2, epochs=2, **split)
    settings: dict[str, Any] = {"train": "last", "epochs": 1, "lr": 1e-2, "from_run": tmp_path / "heads", **split}
    settings |= {"early_stop": 0, "engine": "torch"}
    interrupted(cache, tmp_path / "run", monkeypatch, **settings)
    turn(cache, range(60))
    resumed = finetune(cache, tmp_path / "run", resume=True, **settings)
    anew = finetune(cache, tmp_path / "anew", **settings)
    mine, theirs = (load_run(one.run).best.weights for one in (resumed, anew))
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
