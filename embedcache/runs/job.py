"""The job of train-head: a cache in, a run directory out. All heads of all label columns are trained in one bank."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.strings import first_rows
from embedcache.common.outputs import Layer
from embedcache.common.progress import Progress, Tell, no_tell
from embedcache.common.times import Times
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.heads.kinds.option import read_tasks, task_of
from embedcache.heads.spec import SWEPT
from embedcache.labelling.opened import open_labelled
from embedcache.runs.asked import check_choice, check_one_column, check_settings, label_names, read_outputs
from embedcache.runs.automatic import Automatic, settle
from embedcache.runs.column import Column, Plan
from embedcache.runs.data import Data, load_data
from embedcache.runs.folder import run_lock
from embedcache.runs.hierarchy_labels import read_hierarchy
from embedcache.runs.outcome import HeadReport, Job
from embedcache.runs.recipes import make_recipe
from embedcache.runs.scores import CHOICES
from embedcache.runs.sides import Dealing, check_dealing, group_column
from embedcache.runs.sweep import Range
from embedcache.runs.trainer import InterruptedTraining, Trainer, TrainerOptions
from embedcache.runs.warm_start import EarlierRun
from embedcache.runs.write_folder import check_target

__all__ = ["HeadReport", "InterruptedTraining", "train_head"]

Values = Sequence[Any] | Range | float | str | None


def train_head(
    cache: str | Path,
    run: str | Path,
    *,
    from_run: str | Path | None = None,
    label: str | Sequence[str] | None = None,
    labels: str | Path | None = None,
    task: str | Mapping[str, str] = "auto",
    hierarchy: str | Sequence[str] | None = None,
    recipe: str = "default",
    hidden: Values = None,
    lr: Values = None,
    dropout: Values = None,
    weight_decay: Values = None,
    label_smoothing: Values = None,
    schedule: Values = None,
    warmup: Values = None,
    class_weight: Values = None,
    loss: Values = None,
    focal_gamma: Values = None,
    seed: Values = None,
    random: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    val: float | None = None,
    test: float | None = None,
    folds: int | None = None,
    group: str | None = None,
    weight: str | None = None,
    split: int | None = None,
    split_column: str | None = None,
    same_split: str | Path | None = None,
    choose: str = "loss",
    standardize: bool | None = None,
    early_stop: int | None = None,
    pooling: str | Sequence[str] | None = None,
    layer: Layer | Sequence[Layer] = -1,
    engine: str = "auto",
    device: str = "auto",
    compute: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> HeadReport:
    """Train a head for every combination of the settings from ``hidden`` to ``seed``, and write the folder ``run``.

    A setting may be one value or a list of values. What is None comes from the recipe.

    Args:
        cache: a cache file that ``extract`` made.
        run: the folder to write. One that holds a run is replaced, at the very end.
        from_run: a run of the same encoder, whose best head of each label column all heads start from, by the names of
            its classes: for rows or classes that were added since. Its hidden units, pooling, layer, label columns and
            split are taken over; outputs of new classes begin as usual.
        label: label columns; None means "label", or the only one. Each has its own split, and the heads of all are
            trained in one bank.
        labels: a journal of labels that people gave, over those of the cache; "none"; None: that beside it, if any.
        task: "auto" (multilabel where a column holds lists, else classification) or one kind for all columns; or a
            kind by column, like {"stars": "regression"}, where columns that are not named are "auto". Numbers are
            learned as numbers, and kept columns are learned, only where that is asked for.
        hierarchy: the label columns of a tree of classes from the top down, "genre>subgenre" or a list: the last one is
            learned, and a node is as probable as the classes below it together. Or what separates the levels in one
            column of paths, such as ">" where it holds "Books>Fiction"; a path may end on any level.
        recipe: "default", which follows the number of rows, or "article".
        hidden: hidden units; 0 is a linear probe.
        lr: learning rates, above 0.
        dropout: shares of the hidden units, 0 to below 1.
        weight_decay: of AdamW, from 0.
        label_smoothing: shares of a label that are spread over all of them, 0 to below 1.
        schedule: of the learning rate: "constant", "linear" or "cosine".
        warmup: shares of the steps in which the rate rises from 0.
        class_weight: "none" or "balanced", for the training loss.
        loss: what is minimized: "nll", the negative log-likelihood, or "focal".
        focal_gamma: of the focal loss, from 0: how much less rows count that are right already.
        seed: seeds from 0; heads that differ in nothing else show what chance alone does.
        random: draw so many combinations, each with every seed; then a setting may be a Range, or "low:high".
        batch_size: rows in a step.
        epochs: passes over the training rows.
        val: share of the labelled rows to validate on, 0 to below 1. The lowest validation loss chooses each head's
            epoch and the best head. All heads are compared by one loss: weighted by class only where every head is
            trained with class_weight "balanced".
        test: share of the labelled rows to score the chosen head on, once.
        folds: K folds of all rows but the test rows, in place of ``val``. Every combination is trained K times, the
            lowest mean loss wins, and one head with its settings is trained on all K folds together.
        group: a kept or label column; rows with the same value stay on one side.
        weight: a kept or label column of numbers from 0 up, one in every labelled row: what each row's loss is
            multiplied by, in training and in the validation loss. Only what they are to each other counts. All other
            scores count every row once.
        split: the seed by which texts (or groups) are dealt to the sides; None means 42.
        split_column: in place of ``split``, a kept or label column with the values train, val and test.
        same_split: in place of ``split``, a run whose sides are taken over, by text, and its ``group`` with them.
        choose: what chooses the epoch and the head on the validation rows: "loss" (the lowest), or the highest
            "accuracy", "macro-f1" or, for numbers, "r2".
        standardize: give every dimension mean 0 and variance 1 over the training rows.
        early_stop: stop a head after so many epochs without a better one; 0 means never.
        pooling: which vectors; None means model, else cls, else the first stored. Of several, "cls,mean" or a list,
            each has heads of its own, and the validation rows choose; "cls+mean" are two side by side.
        layer: which vectors; -1 is the last layer. "-1,-4" and "-1+-4" as for poolings, of which each has each layer.
        engine: "auto", "native" or "torch".
        device: "auto", "cpu" or "cuda[:N]".
        compute: "auto", "float32", "bfloat16" or "tf32".
        threads: None means every core that this process may use.
        resume: keep the heads that ``run``, or an interrupted training beside it, holds where they are exactly what
            would be trained again.
        progress: called with (head-epochs done, head-epochs in all, training rows summed over heads).
        tell: called with each note before the training starts.

    Returns:
        What was trained, and how the best head of each column does.

    Raises:
        EmbedcacheError: data, settings or folders that cannot be used, or another process writes ``run``; then ``run``
            is as it was.
        InterruptedTraining: Ctrl-C; the finished heads are saved.
    """
    earlier = None
    if from_run is not None:
        earlier = EarlierRun.load(from_run)
        label = earlier.labels(label)
        hidden, pooling, layer = earlier.settle(label, hidden, pooling, layer)
        hierarchy = hierarchy or (earlier.run.info.get("options") or {}).get("hierarchy")
        if split is None and split_column is None and same_split is None and test is None:
            same_split = from_run
    sweep = {name: value for name, value in locals().items() if name in SWEPT or name == "random"}
    start, times = time.perf_counter(), Times()
    common = {"batch_size": batch_size, "epochs": epochs, "standardize": standardize}
    settings = make_recipe(recipe, **sweep, **common, val=0.0 if folds else val, test=test)
    settings.specs()  # an unusable value is reported before anything is read
    tasks, tree = read_tasks(task), None if hierarchy is None else read_hierarchy(hierarchy)
    check_settings(settings, tasks, folds, val, early_stop)
    dealing = Dealing(split, split_column, None if same_split is None else str(same_split))
    check_dealing(dealing, val, test)
    chosen = choose.replace("-", "_")
    if chosen not in CHOICES:
        raise EmbedcacheError(f"--choose {choose}: use loss, accuracy, macro-f1, or for numbers r2")
    check_target(run)
    if recipe == "article" and dealing == Dealing() and val is None and test is None and group is None and not folds:
        dealing = Dealing(article=True)
    given = {
        **sweep, **common, "val": val, "folds": folds, "split_column": split_column, "same_split": same_split,
    }  # fmt: skip
    named = {name for name, value in given.items() if value is not None}
    with run_lock(run), open_labelled(cache, labels) as opened:  # two trainings of one run: the second fails at once
        columns: list[Column] = []
        with times.of("reading"):
            if earlier is not None:
                earlier.check_cache(opened)
            names = label_names(opened, tree.label(label) if tree else label, run, tasks)
            check_one_column(tree, names)
            group = group_column(opened, dealing, group, names)
            (first, at), *others = read_outputs(opened, pooling, layer)
            if others and len(names) > 1:
                raise EmbedcacheError(
                    f"--label {','.join(names)}: columns that share a run read the same vectors: name one --pooling "
                    "and one of --layers, or train each column in a run of its own"
                )
            settled = Automatic(settings, folds, early_stop or 0)
            if recipe == "default":
                data = [load_data(opened, name, first, at, group, task_of(tasks, name or "")) for name in names]
                settled = settle(
                    settings,
                    named,
                    [int(one.labelled.sum()) for one in data],
                    [_units(opened, one) for one in data],
                    folds=folds,
                    early_stop=early_stop,
                    regression=not any(kind_of(one.kind).has_classes for one in data),
                )
            settings, folds, said = settled.settings, settled.folds, settled.said
            what = (settings, settings.specs(), tasks, first, at, group, folds, dealing, chosen, said, weight)
            plan = Plan(recipe, *what, earlier, tuple(others), tree)
            options = TrainerOptions(settled.early_stop, engine, device, compute, threads)
            for name in names:
                columns.append(Column(opened, name, plan, columns[0] if columns else None))
            check_choice(columns, choose, chosen)
        trainer = Trainer(columns, plan, options, Path(run), tell or no_tell)
        report = Job(opened, trainer, Path(run), times).execute(resume, progress, start)
        unread = [name for name, one in opened.outputs if pooling is None and one == at and name != first]
        if unread and tell is not None and not resume:  # a run that goes on says what it took over
            what_else = f"heads read {first} vectors; stored, too: {', '.join(unread)}"
            tell(f"{what_else}; --pooling {','.join([first, *unread])} lets the validation rows choose")
        return report


def _units(cache: Cache, data: Data) -> int:
    """Different texts, or groups, of the labelled rows."""
    keys = (cache.hashes if data.keys is None else data.keys)[data.labelled]
    return len(np.unique(first_rows(keys)))
