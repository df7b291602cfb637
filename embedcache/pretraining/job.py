"""Go on with a masked language model's training on unlabelled texts, or begin one."""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.common.progress import Progress, Tell, no_progress, no_tell
from embedcache.common.whole_file import refuse_stream
from embedcache.common.whole_folder import folder_lock
from embedcache.encoder.folder import resolve_device
from embedcache.errors import EmbedcacheError
from embedcache.pretraining.checkpoints import Checkpoints
from embedcache.pretraining.corpus import Corpus, read_corpus
from embedcache.pretraining.place import check_place, check_room, disk_faults
from embedcache.tables.inputs import tables_of

if TYPE_CHECKING:
    from embedcache.pretraining.start import BaseModel

BASE = "bert-base-uncased"


@dataclass(frozen=True)
class AdaptReport:
    """What adapt did.

    Attributes:
        model: the folder that was written. base: what was begun with.
        rows: of the input. texts: different ones that were learnt from. held_out: others, to measure on.
        perplexity_before: of the held-out texts: exp of the mean loss over masked tokens. perplexity_after: the same
            gaps again.
        tokens: read in the training, special ones apart, each as often as it was. steps: of the optimizer.
        resumed: at which of them this command went on.
        notes: what of it matters, in words.
    """

    model: str
    base: str
    rows: int
    texts: int
    held_out: int
    perplexity_before: float
    perplexity_after: float
    tokens: int
    epochs: int
    steps: int
    resumed: int
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


def adapt(
    inputs: Any,
    output: str | Path,
    *,
    model: str | Path | None = None,
    from_scratch: str | Path | None = None,
    epochs: int = 3,
    mask: float = 0.15,
    lr: float | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    seed: int = 0,
    resume: bool = False,
    text: str = "text",
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> AdaptReport:
    """Train a masked language model on unlabelled texts; its folder is one that extract takes as a model.

    Texts that are the same count once. About one in twenty is held out, by its content, so that it stays held out with
    more texts or another model. Whole words are masked, by transformers' collator; transformers' Trainer trains.

    Args:
        inputs: One or several tables of any kind that extract reads; "-" is standard input, JSON lines.
        output: The folder to write. It must be new.
        model: The encoder to go on with: a folder, or a name on the Hugging Face hub. None: bert-base-uncased.
        from_scratch: Begin with random weights instead: a config.json, or a folder with one. The tokenizer is trained
            on the texts.
        epochs: How often each text is read.
        mask: The share of words that are masked.
        lr: The highest learning rate; None is 5e-5, from scratch 5e-4.
        batch_size: Rows of a step.
        max_length: The most tokens of a row; longer texts are several rows. None is 256, or what the model can read.
        seed: Of the order, the gaps, the dropout, and of random weights.
        resume: Go on with what an interrupted command has saved.
        text: The column of texts.
        encoding: Of text files.
        separator: Between the cells of a .csv; None detects it.
        sheet: Of a workbook, or the table of a database; None is the first, or the only one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: Called with (steps done, steps in all, rows).
        tell: Called with each note, one line.

    Raises:
        EmbedcacheError: Too few texts, a model that is no encoder, something at the place of the output, no space;
            ``resume`` with other texts or options than those it was begun with.
    """
    start = time.perf_counter()
    output, say = Path(output), tell or no_tell
    _check_asked(model, from_scratch, epochs, mask)
    check_place(output)
    if not output.is_dir():
        refuse_stream(output, "a model", "folder")
    device = resolve_device(device)
    given = tables_of(inputs, text)
    corpus = read_corpus(given, text, encoding=encoding, separator=separator, sheet=sheet)

    from embedcache.pretraining.batches import LengthBatches, make_rows, words_are_seen
    from embedcache.pretraining.finish import write_model
    from embedcache.pretraining.start import from_base
    from embedcache.pretraining.start import from_scratch as new_model
    from embedcache.pretraining.training import TrainingSettings, perplexity, train

    if from_scratch is None:
        begun: BaseModel = from_base(str(model or BASE), max_length)
    else:
        begun = new_model(str(from_scratch), corpus.train, max_length, seed)
    rate = lr if lr is not None else 5e-5 if from_scratch is None else 5e-4
    settings = TrainingSettings(epochs, mask, rate, batch_size, seed, device)
    for note in begun.notes:
        say(note)
    check_room(output, sum(one.numel() * one.element_size() for one in begun.model.parameters()))
    if not words_are_seen(begun.tokenizer):
        raise EmbedcacheError(f"the tokenizer of {begun.name} does not tell words apart, which are masked whole")
    rows, held = (make_rows(begun.tokenizer, texts, begun.max_length) for texts in (corpus.train, corpus.held_out))
    batches = LengthBatches(rows, batch_size, epochs, seed)
    with folder_lock(output):
        key = json.dumps([corpus.digest, text, begun.identity, begun.max_length, asdict(settings)])
        checkpoints = Checkpoints(output, key)
        before = _begin(checkpoints, resume, say)
        begun.model.to(device)
        with disk_faults(output, checkpoints.folder):
            if before is None:
                before = perplexity(begun.model, begun.tokenizer, held, mask)
                checkpoints.started(before)
            resumed = train(begun.model, begun.tokenizer, batches, settings, checkpoints, progress or no_progress)
            after = perplexity(begun.model, begun.tokenizer, held, mask)
            write_model(output, begun.model, begun.tokenizer, begun.root)
        checkpoints.remove()
    return AdaptReport(
        model=str(output),
        base=begun.name,
        rows=corpus.rows,
        texts=len(corpus.train),
        held_out=len(corpus.held_out),
        perplexity_before=before,
        perplexity_after=after,
        tokens=epochs * sum(int((~row.special).sum()) for row in rows),
        epochs=epochs,
        steps=len(batches),
        resumed=resumed,
        seconds=time.perf_counter() - start,
        notes=[*begun.notes, *_notes(corpus, begun)],
    )


def _check_asked(model: str | Path | None, from_scratch: str | Path | None, epochs: int, mask: float) -> None:
    if model is not None and from_scratch is not None:
        raise EmbedcacheError("--model continues a model and --from-scratch starts one: give one of them")
    if not 0 < mask < 1 or epochs < 1:
        raise EmbedcacheError(f"mask {mask}, epochs {epochs}: mask a share between 0 and 1, in one epoch or more")
    if importlib.util.find_spec("accelerate") is None:
        raise EmbedcacheError("adapt needs accelerate, which is not installed: pip install 'embedcache[train]'")


def _begin(checkpoints: Checkpoints, resume: bool, say: Tell) -> float | None:
    there = checkpoints.exist
    if there and not resume:
        say(f"what an interrupted command left in {checkpoints.folder.name} is discarded: --resume would continue it")
    before = checkpoints.begin(resume)
    if resume and before is None:
        say("there is nothing to resume: this begins anew")
    return before


def _notes(corpus: Corpus, begun: BaseModel) -> list[str]:
    notes = []
    if corpus.repeated:
        notes.append(f"{corpus.repeated:,} of {corpus.rows:,} rows repeat a text, which counts once")
    if corpus.blank:
        notes.append(f"{corpus.blank:,} rows have no text")
    if begun.root is not None and (begun.root / "modules.json").is_file():
        notes.append(
            f"modules.json and the pooling of {begun.name} are kept, so that extract makes its sentence vectors as "
            "before; this training was not for them: compare heads before and after"
        )
    return notes
