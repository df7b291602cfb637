"""The job of finetune: a cache in, a run directory out, whose head comes with layers of the encoder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from embedcache.common.progress import Progress, Tell, no_tell
from embedcache.common.times import Times
from embedcache.errors import EmbedcacheError
from embedcache.finetune.compute import check_compute
from embedcache.finetune.config import BATCH, EPOCHS, Way, check_values
from embedcache.finetune.outcome import TuneJob, TuneReport
from embedcache.finetune.prepare import AskedTuning, prepare
from embedcache.heads.kinds.option import read_tasks
from embedcache.heads.spec import SWEPT
from embedcache.labelling.opened import open_labelled
from embedcache.runs.asked import check_settings
from embedcache.runs.folder import run_lock
from embedcache.runs.job import Values
from embedcache.runs.recipes import make_recipe
from embedcache.runs.scores import CHOICES
from embedcache.runs.settings_shown import TUNED
from embedcache.runs.sides import Dealing, check_dealing
from embedcache.runs.trainer import TrainerOptions
from embedcache.runs.write_folder import check_target

PATIENCE = 2  # epochs without a better one, where nothing else is asked for


def finetune(
    cache: str | Path,
    run: str | Path,
    *,
    train: str | Sequence[str] = "last",
    from_run: str | Path | None = None,
    label: str | None = None,
    labels: str | Path | None = None,
    task: str | Mapping[str, str] = "auto",
    lr: Values = None,
    head_lr: Values = None,
    weight_decay: Values = None,
    layer_dropout: Values = None,
    label_smoothing: Values = None,
    schedule: Values = None,
    warmup: Values = None,
    class_weight: Values = None,
    loss: Values = None,
    focal_gamma: Values = None,
    seed: Values = None,
    batch_size: int | Sequence[int] | None = None,
    epochs: int | Sequence[int] | None = None,
    rank: int | Sequence[int] | None = None,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    val: float | None = None,
    test: float | None = None,
    folds: int | None = None,
    group: str | None = None,
    split: int | None = None,
    split_column: str | None = None,
    same_split: str | Path | None = None,
    choose: str = "loss",
    early_stop: int | None = None,
    pooling: str | Sequence[str] | None = None,
    engine: str = "auto",
    device: str = "auto",
    compute: str = "auto",
    threads: int | None = None,
    accumulate: int = 1,
    gradient_checkpointing: bool = False,
    model: str | Path | None = None,
    trust_remote_code: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> TuneReport:
    """Train layers of the encoder and a head, for every combination of the settings, and write the folder ``run``.

    A setting may be one value or a list of values. Splits, scores, baselines and the folder are train_head's.

    Args:
        cache: a cache file that ``extract`` made; with ``--tokens K``, unless all layers are trained from the texts.
        run: the folder to write. One that holds a run is replaced, at the very end.
        train: "last" or "top:K", the last layers from cached states; "lora" or "adapter" beside all layers, or in the
            last ones ("lora:top:K"); "full", all weights.
        from_run: a run of train_head on the same split, whose best head is the start for the vectors that it reads.
            None, and for other vectors: one is trained first.
        label: the label column; None means "label", or the only one.
        labels: as train_head.
        task: as train_head.
        lr: learning rates of the layers.
        head_lr: learning rates of the head.
        weight_decay: of AdamW, for matrices.
        layer_dropout: shares that the trained layers drop.
        label_smoothing: as train_head.
        schedule: "constant", "linear" or "cosine"; None means linear.
        warmup: shares of the steps in which the rates rise from 0; None means 0.1.
        class_weight: as train_head.
        loss: as train_head.
        focal_gamma: as train_head.
        seed: of the order of the rows, dropout, and what LoRA and adapters begin with.
        batch_size: rows in a step.
        epochs: passes over the training rows.
        rank: width of LoRA's products and of adapters.
        alpha: LoRA's product is scaled by alpha / rank; None means twice the rank.
        targets: linear layers that LoRA stands beside, by the last part of their names; None means all.
        val: as train_head.
        test: as train_head.
        folds: as train_head.
        group: as train_head.
        split: as train_head.
        split_column: as train_head.
        same_split: as train_head. None with ``from_run``: that run's.
        choose: as train_head.
        early_stop: stop a configuration after so many epochs without a better one; None means 2, 0 never.
        pooling: which vectors the head reads; several are an axis of the sweep. None: as train_head, and for "last"
            also cls, whose row alone is then computed, where the cache has it. With ``from_run`` those of its head.
        engine: "native" trains last layers of BERT's kin (last, top:K; cls, mean, or the model's own vector of these)
            on a CPU, many at a time; "torch" everything; "auto" what it can with native.
        device: "auto", "cpu" or "cuda[:N]".
        compute: "float32" or "bfloat16" for the layers' products; "auto" is bfloat16 on a GPU.
        threads: None means every core that this process may use.
        accumulate: compute each step of batch_size rows in so many parts, whose gradients are added up: less memory,
            and the same result but for rounding and dropout. transformers' gradient_accumulation_steps, except that
            batch_size stays the rows of a step.
        gradient_checkpointing: less memory for more time, where all layers are trained.
        model: the encoder's folder or name, if it has moved.
        trust_remote_code: whether Python code that comes with the encoder may run.
        resume: continue an interrupted finetune of ``run``.
        progress: called with (rows done, rows in all, rows trained), over configurations and epochs.
        tell: called with each note before the training starts.

    Returns:
        What was trained, and how the best configuration does.

    Raises:
        EmbedcacheError: data, states, settings or folders that cannot be used; ``run`` is then as it was.
        InterruptedTraining: Ctrl-C; a checkpoint is saved.
    """
    given = check_values({**{name: value for name, value in locals().items() if name in SETTINGS}, "width": rank})
    begun, times = time.perf_counter(), Times()
    if engine not in ("auto", "native", "torch"):
        raise EmbedcacheError(f"--engine {engine}: use auto, native or torch")
    check_compute(compute)
    if accumulate < 1:
        raise EmbedcacheError(f"--accumulate {accumulate}: give the number of parts of a step, 1 or more")
    ways = [Way.parse(one) for one in ([train] if isinstance(train, str) else train)]
    settings = make_recipe(
        "default",
        **{name: values for name, values in given.items() if name in SWEPT},
        val=0.0 if folds else val,
        test=test,
        standardize=False,
        batch_size=given.get("batch_size", [BATCH])[0],
        epochs=max(given.get("epochs", [EPOCHS])),
    )
    tasks = read_tasks(task)
    check_settings(settings, tasks, folds, val, early_stop)
    dealing = Dealing(split, split_column, None if same_split is None else str(same_split))
    check_dealing(dealing, val, test)
    if from_run is not None and dealing == Dealing() and test is None:
        dealing = Dealing(run=str(from_run))
    chosen = choose.replace("-", "_")
    if chosen not in CHOICES:
        raise EmbedcacheError(f"--choose {choose}: use loss, accuracy, macro-f1, or for numbers r2")
    check_target(run)
    patience = PATIENCE if early_stop is None and (settings.val or folds) else early_stop or 0
    asked = AskedTuning(
        run=Path(run),
        ways=list(dict.fromkeys(ways)),
        given=given,
        settings=settings,
        tasks=tasks,
        dealing=dealing,
        choose=chosen,
        label=label,
        group=group,
        folds=folds,
        from_run=from_run,
        pooling=[pooling] if isinstance(pooling, str) else pooling,
        options=TrainerOptions(patience, engine, device, compute, threads),
        model=model,
        trust_remote_code=trust_remote_code,
        checkpointing=gradient_checkpointing,
        accumulate=accumulate,
        alpha=alpha,
        targets=tuple(targets or ()),
        tell=tell or no_tell,
    )
    with run_lock(run), open_labelled(cache, labels) as opened:
        trainer = prepare(opened, asked, times)
        return TuneJob(opened, cast(Any, trainer), Path(run), times).execute(resume, progress, begun)


SETTINGS = frozenset(("lr", *TUNED, *SWEPT)) - {"train", "pooling"}
