"""transformers' Trainer over the batches, its checkpoints, and the perplexity of held-out texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from embedcache.common.progress import Progress
from embedcache.encoder.batching import plan_batches
from embedcache.encoder.load_with_transformers import quiet
from embedcache.pretraining.batches import LengthBatches, TokenRow, WholeWords
from embedcache.pretraining.checkpoints import Checkpoints

EVAL_TOKENS = 4096  # of a batch of held-out rows
SAVES = 20  # checkpoints of a training, at most
FEWEST_STEPS = 50  # between two
KEPT = 2  # checkpoints that lie beside the output at a time
WARM_UP = 0.06  # share of the steps
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class TrainingSettings:
    """How it is trained: of the batches' order, the gaps and the dropout ``seed`` decides."""

    epochs: int
    mask: float
    lr: float
    batch_size: int
    seed: int
    device: str


def perplexity(model: Any, tokenizer: Any, rows: Sequence[TokenRow], mask: float) -> float:
    """exp of the mean loss over the masked tokens of held-out rows, the same gaps at every call."""
    collate = WholeWords(tokenizer, mask, seed=0)
    device, total, count = next(model.parameters()).device, 0.0, 0
    was_training = model.training
    model.eval()
    for number, batch in enumerate(plan_batches(np.array([len(row.ids) for row in rows]), EVAL_TOKENS)):
        inputs = collate([(number, [rows[i] for i in batch.tolist()])])
        labels = inputs.pop("labels").to(device)
        with torch.inference_mode():
            logits = model(**{name: value.to(device) for name, value in inputs.items()}).logits
        chosen = labels != -100
        total += float(torch.nn.functional.cross_entropy(logits[chosen].float(), labels[chosen], reduction="sum"))
        count += int(chosen.sum())
    model.train(was_training)
    return math.exp(min(total / max(count, 1), 700.0))


def train(
    model: Any,
    tokenizer: Any,
    batches: LengthBatches,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    progress: Progress,
) -> int:
    """Train the model to the end, a step for each batch; returns at which step it went on, 0 for a new beginning.

    On a CPU the result does not depend on where it was interrupted: the batches and their gaps follow from their
    numbers, and the Trainer's checkpoints keep the state of the dropout.

    Raises:
        KeyboardInterrupt: As it came, with a line for the user on what is saved.
    """
    steps, last = len(batches), checkpoints.last()
    arguments = TrainingArguments(
        output_dir=str(checkpoints.folder),
        num_train_epochs=1,  # the batches are those of all epochs
        per_device_train_batch_size=1,  # an item is a batch
        learning_rate=settings.lr,
        weight_decay=WEIGHT_DECAY,
        warmup_steps=math.ceil(WARM_UP * steps),
        seed=settings.seed,
        save_strategy="steps",
        save_steps=max(FEWEST_STEPS, math.ceil(steps / SAVES)),
        save_total_limit=KEPT,
        use_cpu=settings.device == "cpu",
        bf16=settings.device != "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_strategy="no",
        report_to="none",
    )
    watcher = _Watcher(checkpoints, settings.batch_size, progress)
    trainer = _InOrder(
        model=model,
        args=arguments,
        train_dataset=batches,
        data_collator=WholeWords(tokenizer, settings.mask, settings.seed),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)  # standard output is for the result
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except KeyboardInterrupt:
        saved = checkpoints.last()
        if saved is None:
            raise
        step = int(saved.name.rpartition("-")[2])
        raise KeyboardInterrupt(
            f"Interrupted: {step:,} of {steps:,} steps are saved; the same command with --resume continues after them."
        ) from None
    return 0 if last is None else int(last.name.rpartition("-")[2])


class _InOrder(Trainer):
    """Takes the batches as they come, which are drawn already."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


class _Watcher(TrainerCallback):
    """Tells how far the training is, and marks checkpoints that are whole."""

    def __init__(self, checkpoints: Checkpoints, batch_size: int, progress: Progress) -> None:
        self._checkpoints, self._batch_size, self._progress = checkpoints, batch_size, progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps, state.global_step * self._batch_size)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._checkpoints.finished(self._checkpoints.folder / f"checkpoint-{state.global_step}")
