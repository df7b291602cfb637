"""train-head --from RUN: heads that begin with the best weights of a run, where rows or classes were added since."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.common.label_names import visible
from embedcache.common.outputs import Layer, named_outputs
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.task import Task, WarmStart, unfold_standardization, unfold_target_scale
from embedcache.runs.folder import Run, load_run
from embedcache.runs.sides import stored_sides
from embedcache.runs.split import Split

SHOWN = 5  # names of classes in a note


@dataclass(frozen=True)
class EarlierRun:
    """The run whose best heads others start from. ``option``: what named it, for errors."""

    run: Run
    option: str

    @classmethod
    def load(cls, path: str | Path) -> EarlierRun:
        """Raises EmbedcacheError for what is not a run, or one that is tuned."""
        option, run = f"--from {path}", load_run(path)
        if any("tuned" in one.info for one in run.columns.values()):
            raise EmbedcacheError(
                f"{option}: its heads read vectors that it has tuned itself; name a run of train-head"
            )
        return cls(run, option)

    def labels(self, label: str | Sequence[str] | None) -> list[str]:
        """The columns that were named; None: those of the run. A name may itself have a comma."""
        if label is None:
            return list(self.run.columns)
        whole = label if isinstance(label, str) else ",".join(label)
        return [whole] if whole in self.run.columns else whole.split(",")

    def column(self, label: str) -> Run:
        """Raises EmbedcacheError where the run has no such column."""
        if label not in self.run.columns:
            known = ", ".join(self.run.columns)
            raise EmbedcacheError(f"{self.option}: no label column {label!r} in it; it has {known}: name one of these")
        return self.run.columns[label]

    def check_cache(self, cache: Cache) -> None:
        """Raises EmbedcacheError where the heads read other vectors than those of the cache."""
        made: dict[str, Any] = self.run.info.get("cache") or {}
        if made.get("fingerprint") != cache.fingerprint:
            raise EmbedcacheError(
                f"{self.option}: its heads read vectors of another encoder or other settings than those of "
                f"{cache.path}: extract with the same ones, or leave --from out"
            )

    def only(self, labels: Sequence[str], what: str, find: Callable[[Run], Any]) -> Any:
        """What is the same for these columns. Raises EmbedcacheError where it is not."""
        found = {label: find(self.column(label)) for label in labels}
        if len(set(found.values())) > 1:
            each = ", ".join(f"{label} {value}" for label, value in found.items())
            raise EmbedcacheError(f"{self.option}: its best heads differ in {what} ({each}): name one --label")
        return next(iter(found.values()))

    def settle(
        self,
        labels: Sequence[str],
        hidden: Any,
        pooling: str | Sequence[str] | None,
        layer: Layer | Sequence[Layer],
    ) -> tuple[int, str, Layer]:
        """Hidden units, pooling and layer of the best heads; what was given must be the same.

        Raises:
            EmbedcacheError: it is not.
        """
        units = int(self.only(labels, "hidden units", lambda one: one.best.spec.hidden))
        given = [] if hidden is None else list(hidden) if isinstance(hidden, (list, tuple)) else [hidden]
        if any(value != units for value in given):
            raise EmbedcacheError(f"{self.option}: its best head has {units} hidden units: leave --hidden out")
        reads = self.only(labels, "what they read", lambda one: (one.info["pooling"], one.info["layer"]))
        names, layers = named_outputs(pooling, layer)
        if names not in (None, [reads[0]]) or layers not in ([-1], [reads[1]]):
            raise EmbedcacheError(
                f"{self.option}: its best head reads {reads[0]} vectors of layer {reads[1]}: leave --pooling and "
                "--layers out"
            )
        return units, *reads


def check_unseen(earlier: EarlierRun, cache: Cache, label: str, sides: Sequence[Split], test: np.ndarray) -> None:
    """The start must not have learned what shall judge it.

    Raises:
        EmbedcacheError: rows that trained the run validate here, or rows that it was trained or chosen by test here.
    """
    one = earlier.column(label)
    was = stored_sides(cache, one, earlier.option)
    val = np.concatenate([side.val for side in sides])
    for rows, known, what in ((val, (0,), "validate"), (test, (0, 1), "test")):
        seen = int(np.isin(was[rows], known).sum())
        if seen:
            raise EmbedcacheError(
                f"{earlier.option}: {seen:,} of the {len(rows):,} rows that {what} here trained or chose its heads, so "
                f"scores would flatter: leave out --split, --split-column and --folds, and RUN's split is kept, or "
                f"train without --from"
            )


def warm_start(head: TrainedHead, task: Task, classes: Sequence[str]) -> WarmStart:
    """Where the heads of a task of these classes begin: with the weights of that head, by the names of its classes.

    Raises:
        EmbedcacheError: it is a head of another kind.
    """
    if head.kind != task.kind:
        raise EmbedcacheError(
            f"--from: that head learned a {head.kind}, and this is a {task.kind}: name it with --task"
        )
    place = {name: i for i, name in enumerate(head.classes or [])}
    numbers = not kind_of(head.kind).has_classes
    from_row = np.arange(task.classes) if numbers else np.array([place.get(name, -1) for name in classes], np.int64)
    known = from_row >= 0
    weights = {name: array for name, array in head.weights.items() if name in ("w1", "b1")}
    for name in ("w2", "b2"):
        old = head.weights[name]
        weights[name] = np.where(known.reshape(-1, *[1] * (old.ndim - 1)), old[from_row], np.float32(0))
    return WarmStart(unfold_standardization(unfold_target_scale(weights, task), task), known)


def start_note(earlier: EarlierRun, label: str, classes: Sequence[str]) -> str:
    """What was taken, in words."""
    one = earlier.column(label)
    before, best = one.classes, one.info["best"]
    said = f"{earlier.option}: the heads of {label!r} start from its {best['name']}, epoch {one.best.best_epoch}"
    if not kind_of(one.best.kind).has_classes:
        return said
    new, gone = (
        [name for name in some if name not in others] for some, others in ((classes, before), (before, classes))
    )
    said += f", {len(before) - len(gone):,} of {len(classes):,} classes"
    if new:
        said += f"; new, and begun as usual: {_some(new)}"
    if gone:
        said += f"; no longer there: {_some(gone)}"
    return said


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(visible(name) for name in names[:SHOWN]) + more
