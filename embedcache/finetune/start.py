"""The head from which a configuration starts (LP-FT, Kumar et al., 2022): the best one on the cached vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedcache.common.outputs import is_several
from embedcache.common.progress import Tell
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import json_number
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.runs.automatic import settle
from embedcache.runs.column import Column, Plan
from embedcache.runs.folder import Run, load_heads, load_run
from embedcache.runs.recipes import RECIPES
from embedcache.runs.split import SIDES, rows_digest
from embedcache.runs.trainer import Trainer, TrainerOptions


@dataclass(frozen=True)
class Start:
    """heads: one for each side of the column (its folds); whole: for all training rows. about: for run.json."""

    heads: list[TrainedHead]
    whole: TrainedHead
    about: dict[str, Any]


def train_start(column: Column, plan: Plan, options: TrainerOptions, run: Path, tell: Tell) -> Start:
    """Train the default sweep of train-head on the vectors of this column, and take the best head.

    Raises:
        EmbedcacheError: every head diverged; settings that cannot be used.
    """
    count = int(column.data.labelled.sum())
    settings = plan.settings
    shared: dict[str, Any] = {name: getattr(settings, name) for name in ("val", "test", "class_weight", "batch_size")}
    shared["seed"] = settings.seed[:1]
    recipe = replace(RECIPES["default"], **shared)
    named = {"folds", "val"}
    numbers = not kind_of(column.kind).has_classes
    settled = settle(recipe, named, [count], [count], folds=plan.folds, regression=numbers)
    mine = replace(plan, settings=settled.settings, specs=settled.settings.specs(), automatic="")
    twin = Column(column.cache, column.label, mine)
    trainer = Trainer([twin], mine, replace(options, early_stop=settled.early_stop, engine="auto"), run, tell)
    bank = trainer.train(False, None)
    entries = twin.rank(bank.heads[twin.label])
    best = entries[0]
    whole = trainer.train_again(twin, best) if plan.folds else best.heads[0]
    return Start(best.heads, whole, {"run": None, "name": best.name, **_scores(best.scores)})


def load_start(path: str | Path, column: Column) -> Start:
    """The best head of a run of train-head on the same split.

    Raises:
        EmbedcacheError: it is of other labels, another kind or split, or itself tuned.
    """
    run = load_run(path)
    one = run.columns.get(column.label)
    if one is None:
        raise EmbedcacheError(f"--from {path}: no label column {column.label!r} in it; it has {', '.join(run.columns)}")
    if "tuned" in one.info:
        raise EmbedcacheError(f"--from {path}: it is a tuned run itself; name one of train-head")
    if one.best.kind != column.kind or one.classes != column.data.classes:
        raise EmbedcacheError(f"--from {path}: it learned other labels than those of {column.label!r} here")
    digests = {side: rows_digest(getattr(column.split, side)) for side in SIDES}
    if (one.info.get("split") or {}).get("digests") != digests:
        raise EmbedcacheError(
            f"--from {path}: its rows were split otherwise, so its head has seen rows that should judge it: give "
            f"--same-split {path}, or the options with which it was trained"
        )
    name = one.info["best"]["name"]
    scores = {key: one.info["best"].get(key) for key in ("val_loss", "val_accuracy", "val_r2")}
    return Start(_sides(one, name, column), one.best, {"run": str(path), "name": name, **scores})


def pooling_of(path: str | Path, label: str | None) -> str:
    """Which vectors the heads of a run read."""
    run = load_run(path)
    one = run.columns.get(label or "") or next(iter(run.columns.values()))
    if one.info.get("layer", -1) != -1:
        raise EmbedcacheError(f"--from {path}: its heads read layer {one.info['layer']}, not the last one")
    if is_several(one.info["pooling"], -1):
        raise EmbedcacheError(f"--from {path}: its heads read {one.info['pooling']} vectors; name a run of one pooling")
    return str(one.info["pooling"])


def _sides(run: Run, name: str, column: Column) -> list[TrainedHead]:
    if not column.plan.folds:
        return [run.best]
    names = [f"{name}/fold-{i}" for i in range(len(column.sides))]
    if len(run.info["split"].get("folds") or ()) != len(names):
        raise EmbedcacheError(f"--from {run.path}: it has other folds; give --folds as it was trained with")
    heads = load_heads(run.path, names)
    return [heads[one] for one in names]


def _scores(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in scores.items() if name.startswith("val_")}
