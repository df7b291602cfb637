"""The job of ladder: every way to learn a column, on one split, each scored once on the same test rows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.checked import SchemaError, read_json
from embedcache.common.frames import refuse_frame
from embedcache.common.lock import locked
from embedcache.common.progress import Progress, Tell, no_tell
from embedcache.common.whole_file import is_standard_output, whole_file
from embedcache.errors import EmbedcacheError
from embedcache.finetune.compute import check_compute
from embedcache.heads.kinds import kind_of
from embedcache.heads.kinds.option import read_tasks
from embedcache.labelling.opened import NONE, open_labelled, pinned_labels
from embedcache.ladder.launch import launch
from embedcache.ladder.outcome import Climbed, LadderReport, compare_rungs
from embedcache.ladder.page import write_page
from embedcache.ladder.plan import LadderPlan, keep_room, minutes, pass_cost, rung_cost
from embedcache.ladder.rows import AskedRows, CommonRows
from embedcache.ladder.rungs import DEFAULT, Rung, read_rung
from embedcache.ladder.settled import NamedEncoder, Settled, open_folder, settle
from embedcache.ladder.speed import MachineSpeed
from embedcache.ladder.steps import Step, known, predictions
from embedcache.ladder.table import NAME as COPY
from embedcache.ladder.table import copy_table
from embedcache.prediction.rows import is_cache
from embedcache.runs.split import SEED, SIDES, check_shares

PAGE, RESULT = "ladder.html", "ladder.json"
SEVERAL = (
    "scores are means over the seeds; intervals and p values say what other test rows would change, not other seeds: "
    "their lowest and highest score stand beside"
)
STOPPED = "Interrupted: what was done is kept; the same command with --resume goes on."


def ladder(
    input: str | Path,
    output: str | Path,
    *,
    rungs: Sequence[str] | None = None,
    model: str | Sequence[str] = (),
    text: str = "text",
    label: str | None = None,
    task: str | Mapping[str, str] = "auto",
    labels: str | None = None,
    max_length: int | None = None,
    group: str | None = None,
    seed: int | Sequence[int] = SEED,
    val: float = 0.1,
    test: float = 0.1,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    device: str = "auto",
    compute: str = "auto",
    trust_remote_code: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> LadderReport:
    """Climb from the commonest class to a fully tuned encoder, on one split, and write the folder ``output``.

    Each rung is chosen on the validation rows and scored once on the test rows, the same for all. It runs in a process
    of its own, and is kept, so that an interrupted ladder goes on where it was.

    Args:
        input: a table of any kind that extract reads, or a cache.
        output: the folder to write: runs, caches, ladder.json, ladder.html.
        rungs: of "majority" (always there), "tfidf", "zero-shot", "head", and the ways of finetune: "last", "top:K",
            "lora", "adapter", "full". None: tfidf, zero-shot, head, last, top:2, lora, full, as far as they suit.
        model: of a table, one encoder or several; of a cache, where its encoder is, if it has moved.
        text: the table's column of texts.
        label: the column to learn; None is "label", or the only one.
        task: as train_run.
        labels: descriptions for zero-shot, as zero_shot has them, one for each class. None: the classes' own names.
        max_length: the most tokens of a table's text; None is what suits the encoder. A cache has its own.
        group: a column; rows with the same value stay on one side, and count as one observation.
        seed: of the training; several train every rung that has one with each, and its score is their mean. The first
            one deals the texts, or groups, to the sides, as ``split`` of train_run: all share these rows.
        val: share of the rows that choose.
        test: share of the rows that score.
        encoding: of a text file.
        separator: between the cells of a .csv or .tsv; None means as the file shows.
        sheet: of a workbook, or the table of a database; None means the first, or the only one.
        device: "auto", "cpu" or "cuda[:N]".
        compute: "float32" or "bfloat16" for the products of tuned layers; "auto" as finetune has it.
        trust_remote_code: whether Python code that comes with an encoder may run.
        resume: go on with the ladder in ``output``: what is done stays, and rungs may be added.
        progress: called with (done, total, rows) of the step that runs.
        tell: called with the plan and notes, a line each.

    Returns:
        The rungs with their scores and costs, and where to stop.

    Raises:
        EmbedcacheError: input, rungs or folders that cannot be used; what is done is kept.
        KeyboardInterrupt: Ctrl-C; what is done is kept.
    """
    start = time.perf_counter()
    refuse_frame(input, "ladder")
    if is_standard_output(output):
        raise EmbedcacheError("standard output cannot hold a ladder: name a folder with -o")
    check_shares(val, test)
    check_compute(compute)
    seeds = (seed,) if isinstance(seed, int) else tuple(map(int, seed))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise EmbedcacheError("--seed: give different whole numbers from 0, the first also deals the rows")
    source, folder = str(input), Path(output)
    if (cached := is_cache(source)) and max_length is not None:
        raise EmbedcacheError(f"--max-length: {source} is a cache, which was made with a length of its own")
    pinned = pinned_labels(source) if cached else NONE  # for all rungs, and for --resume
    settled = settle(
        source, folder, rungs, DEFAULT, [model] if isinstance(model, str) else list(map(str, model)), cached,
        rows=AskedRows(label, read_tasks(task), group, seeds[0], val, test, pinned), seeds=seeds, labels=labels,
        text=text, device=device, compute=compute, max_length=max_length,
        trust_remote_code=trust_remote_code, resume=resume, tell=tell or no_tell,
        reading={"encoding": encoding, "separator": separator, "sheet": sheet},
    )  # fmt: skip
    settled.extract_options() if not cached else _check_cache(settled)
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{folder.name or folder}: a ladder is being built there"
    with locked(folder.parent / f".{folder.name}.ladder.lock", lambda who: f"{busy} by {who}; wait until it ends"):
        open_folder(settled)
        try:
            return Ladder(settled, progress).build(start)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(STOPPED) from None


def _check_cache(settled: Settled) -> None:
    """Of a cache everything can be known at once."""
    from embedcache.encoder.load_again import refuse_imported

    with open_labelled(settled.input, settled.rows.labels) as cache:
        refuse_imported(cache.encoder, settled.input)
        rows = CommonRows.read(cache, settled.rows)
        settled.check_states(cache)
    settled.check_kind(rows)


class Ladder:
    """One ladder in the making."""

    def __init__(self, settled: Settled, progress: Progress | None) -> None:
        self.settled, self.progress = settled, progress
        self.plan = LadderPlan()
        self.passes: dict[str, dict[str, Any]] = {}
        self._copy: Path | None = None

    def build(self, start: float) -> LadderReport:
        """Plan, make the caches, climb, compare, write."""
        settled = self.settled
        try:
            self._plan()
            for encoder in settled.encoders:
                if encoder.made:
                    self._extract(encoder)
        finally:
            (settled.folder / COPY).unlink(missing_ok=True)
        with open_labelled(settled.encoders[0].cache, settled.rows.labels) as cache:
            rows = CommonRows.read(cache, settled.rows)
            if settled.encoders[0].made:
                settled.check_kind(rows)
            climbed = [self._climb(rung, encoder, rows) for rung, encoder in self._order()]
            report = self._report(climbed, rows)
        report.seconds = time.perf_counter() - start
        if self.plan.costs:
            report.notes.append(f"planned {minutes(self.plan.seconds)}, took {minutes(report.seconds)}")
        report.page = str(settled.folder / PAGE)
        write_page(report, settled.folder / PAGE)
        with whole_file(settled.folder / RESULT) as file:
            json.dump(report.to_dict(), file, indent=1, allow_nan=False)
        return report

    def _input(self) -> str:
        """The cache, or a copy of the table, which is read when this is first called."""
        settled = self.settled
        if not settled.encoders[0].made:
            return settled.input
        if self._copy is None:
            wanted = {name: settled.extract_options()[name] for name in ("text", "labels", "keep")}
            self._copy = copy_table(settled.input, settled.folder, **wanted, **settled.reading)
        return str(self._copy)

    def _order(self) -> list[tuple[Rung, NamedEncoder | None]]:
        """Rung by rung; of those that read vectors, one for each encoder."""
        every: Sequence[NamedEncoder | None] = self.settled.encoders
        return [(rung, encoder) for rung in self.settled.rungs for encoder in ([None] if rung.shared else every)]

    def _seeds(self, rung: Rung) -> tuple[int, ...]:
        return self.settled.seeds if rung.seeded else self.settled.seeds[:1]

    def _step(self, rung: Rung, encoder: NamedEncoder | None, seed: int) -> Step:
        settled = self.settled
        own = encoder or settled.encoders[0]
        return Step(
            rung=rung.name,
            cache=str(own.cache),
            folder=str(settled.folder if encoder is None else settled.folder / own.name),
            rows=settled.rows,
            seed=seed,
            labels=settled.labels,
            device=settled.device,
            compute=settled.compute,
            model=own.source,
            trust_remote_code=settled.trust_remote_code,
            resume=settled.resume,
        )

    def _left(self, rung: Rung, encoder: NamedEncoder | None) -> int:
        """With how many seeds it is still to be done."""
        steps = [self._step(rung, encoder, seed) for seed in self._seeds(rung)]
        return len(steps) - (sum(known(step) is not None for step in steps) if self.settled.resume else 0)

    def _plan(self) -> None:
        """Measure what is still to do; a line each. Raises EmbedcacheError where there is no room for it."""
        settled = self.settled
        todo = [(rung, encoder) for rung, encoder in self._order() if self._left(rung, encoder)]
        if not todo:
            return
        measured = {encoder.name: self._measure(encoder) for encoder in settled.encoders}
        for encoder in settled.encoders:
            settled.check_layers(encoder, measured[encoder.name])
            if encoder.made and self._passed(encoder) is None:
                self.plan.costs.append(pass_cost(encoder.name, measured[encoder.name], settled.depth))
        train = 1 - settled.rows.val - settled.rows.test
        for rung, own in todo:
            if rung in settled.rungs:
                one = measured[(own or settled.encoders[0]).name]
                name = None if own is None else own.name
                cost = rung_cost(rung, name, one, train, settled.rows.val)
                self.plan.costs.append(replace(cost, seeds=self._left(rung, own)))
        hints = {known.hint for known in measured.values() if known.hint}
        if any(rung.way is not None and rung.way.depth is None for rung, _ in todo):
            settled.notes += sorted(hints)
        for line in [*settled.notes, *self.plan.lines()]:
            settled.tell(line)
        if (small := keep_room(settled.folder, self.plan)) is not None:
            raise EmbedcacheError(small)

    def _measure(self, encoder: NamedEncoder) -> MachineSpeed:
        settled = self.settled
        values = {
            "source": self._input(), "model": encoder.source, "device": settled.device,
            "trust_remote_code": settled.trust_remote_code, "text": settled.text,
            "max_length": settled.max_length, "compute": settled.compute,
            "trains": any(rung.way is not None for rung in settled.rungs),
        }  # fmt: skip
        return MachineSpeed(**launch("measure", values, None, settled.tell))

    def _passed(self, encoder: NamedEncoder) -> dict[str, Any] | None:
        """What the pass took, where it is done and deep enough."""
        try:
            found: dict[str, Any] = read_json(encoder.cache.with_suffix(".json"))
            return found if found["depth"] >= self.settled.depth and encoder.cache.exists() else None
        except (OSError, SchemaError, KeyError, TypeError):
            return None

    def _extract(self, encoder: NamedEncoder) -> None:
        found = self._passed(encoder)
        if found is None:
            settled = self.settled
            encoder.cache.parent.mkdir(parents=True, exist_ok=True)
            encoder.cache.with_suffix(".json").unlink(missing_ok=True)  # a killed pass leaves less than it says
            options = {"inputs": self._input(), "cache": str(encoder.cache), "model": encoder.source}
            found = launch(
                "extract",
                {**options, **settled.extract_options()},
                self.progress,
                self._tell(f"extract {encoder.name}"),
            )
            found["depth"] = settled.depth
            with whole_file(encoder.cache.with_suffix(".json")) as file:
                json.dump(found, file)
        self.passes[encoder.name] = found

    def _tell(self, name: str) -> Tell:
        return lambda line: self.settled.tell(f"{name}: {line}")

    def _climb(self, rung: Rung, encoder: NamedEncoder | None, rows: CommonRows) -> Climbed:
        """What is known of a rung, or it is done now. Raises EmbedcacheError where its rows are others."""
        name = rung.name if encoder is None or not self.settled.several else f"{rung.name} ({encoder.name})"
        seeds = self._seeds(rung)
        done = [self._train(self._step(rung, encoder, seed), name, rows) for seed in seeds]
        own = None if encoder is None else encoder.name
        planned = next((one.seconds for one in self.plan.costs if (one.rung, one.encoder) == (rung.name, own)), None)
        once = 0.0 if encoder is None else self.passes.get(encoder.name, {}).get("seconds")
        found, predicted = map(list, zip(*done, strict=True))
        return Climbed(name, own, list(seeds) if rung.seeded else [], found, predicted, once, planned)

    def _train(self, step: Step, name: str, rows: CommonRows) -> tuple[dict[str, Any], np.ndarray]:
        """(what was found, predictions) of one seed."""
        if len(self.settled.seeds) > 1 and read_rung(step.rung).seeded:
            name = f"{name}, seed {step.seed}"
        found = known(step) if self.settled.resume else None
        if found is None:
            self.settled.tell(f"{name}: begins")
            found = launch("climb", step.to_dict(), self.progress, self._tell(name))
        predicted = predictions(step)
        if found["rows"] != rows.digest or len(predicted) != len(rows.y):
            raise EmbedcacheError(f"{step.place} was scored on other rows: remove {step.place}.json, and run again")
        return found, predicted

    def _report(self, climbed: Sequence[Climbed], rows: CommonRows) -> LadderReport:
        settled, data = self.settled, rows.data
        results, stop, better = compare_rungs(climbed, rows)
        return LadderReport(
            input=settled.input,
            output=str(settled.folder),
            label=data.label,
            kind=data.kind,
            classes=data.classes,
            metric=kind_of(data.kind).main,
            rows={side: len(getattr(rows.split, side)) for side in SIDES},
            group=settled.rows.group,
            test_groups=None if rows.groups is None else len(np.unique(rows.groups)),
            seed=settled.rows.seed,
            seeds=list(settled.seeds),
            encoders=[self._about(encoder) for encoder in settled.encoders],
            rungs=results,
            stop_at=stop,
            better=better,
            plan={"seconds": self.plan.seconds, "bytes": self.plan.disk} if self.plan.costs else None,
            notes=[*settled.notes, *rows.split.notes, *([SEVERAL] if len(settled.seeds) > 1 else [])],
        )

    def _about(self, encoder: NamedEncoder) -> dict[str, Any]:
        found = self.passes.get(encoder.name, {})
        about = {name: found.get(name) for name in ("seconds", "disk", "peak_memory")}
        return {"name": encoder.name, "source": encoder.source, "cache": str(encoder.cache), **about}
