"""The job of `embedcache next`: the rows that are worth a person's time next, for those who label elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.active_learning.from_cache import in_order, labelled_rows_of, pool_of, snapshot_of
from embedcache.active_learning.judgement import JudgedSnapshot, drawn, judge_labels, nearest_of
from embedcache.active_learning.queue import MIXED, QUEUES, SHARES, evidence_of, make_queue
from embedcache.active_learning.retrain import MeasuredScore, Retrained, retrain, why_not
from embedcache.active_learning.snapshot import Label, Snapshot
from embedcache.cache import Cache
from embedcache.common.display import html_table
from embedcache.common.frames import Tabular
from embedcache.common.outputs import Layer
from embedcache.common.progress import Progress
from embedcache.common.whole_file import open_output
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.labelling import open_labelled
from embedcache.prediction.classifier import check_same_encoder
from embedcache.runs.data import target_column
from embedcache.runs.folder import Run, load_run
from embedcache.tables.write import TableLayout, output_format

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcache.common.whole_file import Output

MOST_JUDGED = 10_000  # labels that are judged, drawn where there are more: neighbours are found by brute force
Start = Callable[[Cache, str], tuple[list[str], np.ndarray]]


@dataclass(frozen=True)
class NextRow:
    """A row to label. ``label``: the one that it has, None without; the rest as in QueuedRow."""

    row: int
    id: str | None
    text: str
    guess: Label
    probability: float | None
    queue: str
    reason: str
    label: Label


@dataclass(frozen=True)
class NextReport(Tabular):
    """The rows to label next.

    Attributes:
        cache, label: the file and the column. rows: the most useful first.
        labelled, unlabelled: usable rows with and without a label in this column.
        heads: what guessed: "trained on 212 labels", "of RUN", "none".
        score: of heads that were trained, over the labels given, out of sample.
        output: the table that was written. labels: where labels come from but the file, see ``Cache.labels_from``.
        notes: what was asked for and cannot be had, in words.
    """

    cache: str
    label: str
    queue: str
    rows: list[NextRow]
    labelled: int
    unlabelled: int
    heads: str
    score: MeasuredScore | None
    pooling: str
    layer: Layer
    output: str | None
    labels: dict[str, Any] | None
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self) | {"score": None if self.score is None else self.score.to_dict()}

    def to_arrow(self) -> pa.Table:
        """A line for each row; the label has the name of its column, and lists are JSON."""
        import pyarrow as pa

        columns = {"row": pa.array([one.row for one in self.rows], pa.int64())}
        for name in ("id", "text"):
            columns[name] = pa.array([getattr(one, name) for one in self.rows], pa.string())
        columns["guess"] = _cells([one.guess for one in self.rows])
        columns["probability"] = pa.array([_short(one.probability) for one in self.rows], pa.float64())
        for name in ("queue", "reason"):
            columns[name] = pa.array([getattr(one, name) for one in self.rows], pa.string())
        own = _cells([one.label for one in self.rows])
        return pa.Table.from_arrays([*columns.values(), own], names=[*columns, self.label])

    def _repr_html_(self) -> str:
        """For notebooks."""
        lines = ((one.row, one.guess, one.probability, one.reason, one.label, one.text) for one in self.rows)
        title = f"{len(self.rows):,} rows to label next; heads: {self.heads}"
        return html_table(title, ("row", "guess", "probability", "reason", "label", "text"), lines)


def next_rows(
    cache: str | Path,
    output: str | Path | None = None,
    *,
    run: str | Path | None = None,
    label: str | None = None,
    labels: str | Path | None = None,
    labels_of: Start | None = None,
    count: int = 50,
    queue: str = MIXED,
    group: str | None = None,
    pooling: str | None = None,
    layer: Layer = -1,
    seed: int = 0,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> NextReport:
    """Choose the rows of a cache that are worth a person's time next.

    Heads are trained on the labels that there are; where these are too few, those of the run guess, or ``labels_of``.

    Args:
        cache: The cache file.
        output: A table to write; "-" is standard output, JSON lines. ``relabel`` takes it back with its labels.
        run: A run of train-head on this cache: its column, vectors and test rows are taken. Test rows are shown in the
            queue "random" alone.
        label: The label column; None is that of the run, "label", or the only one. It may be new.
        labels: The journal of labels that people gave; "none" for the file's alone; None for the one beside the cache.
        labels_of: Where there is no label: a function of the cache and the pooling to (names of classes, probabilities
            float [N, C]). The command takes names and descriptions, of which zero-shot makes them.
        count: How many rows.
        queue: "mixed", or one strategy alone.
        group: A column; rows with the same value are in one fold, and none comes a second time before all other values
            have come. None: the run's, if it was split by one.
        pooling: Which vectors; None is the run's, or as the cache prefers.
        layer: Which layer; -1 is the last.
        seed: Of heads, and of what is drawn by chance.
        engine: "auto", "native" or "torch", see ``train_heads``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None is one for each core.
        progress: Called with (done, total, rows) while heads are trained.

    Raises:
        EmbedcacheError: The cache, run, column or queue cannot be used, or there are no rows to show.
    """
    began = time.perf_counter()
    if queue not in QUEUES:
        raise EmbedcacheError(f"--queue {queue}: use {', '.join(QUEUES[:-1])} or {QUEUES[-1]}")
    kind = None if output is None else output_format(output)
    with open_labelled(cache, labels) as opened, nullcontext() if output is None else open_output(output) as place:
        column_run = None if run is None else _run_of(run, label, opened)
        column = _column(opened, label, column_run, labels_of is not None)
        if column_run is not None:
            pooling, layer = pooling or column_run.info["pooling"], column_run.info.get("layer", layer)
        pooling = pooling or opened.preferred(layer)
        names, first = ([], None) if labels_of is None else labels_of(opened, pooling)
        people = labelled_rows_of(opened, column)
        pool = pool_of(opened, column, pooling, layer, column_run, group)
        about = None if column_run is None else column_run.best.kind
        classes = [*names, *(column_run.classes if column_run is not None else ())]
        snapshot = snapshot_of(opened, column, pool, people, list(dict.fromkeys(classes)), about)
        reason, found = why_not(snapshot), None
        if reason is None:
            found = retrain(snapshot, seed=seed, engine=engine, device=device, threads=threads, progress=progress)
            guessing = f"trained on {len(found.learned):,} labels"
        elif column_run is not None:
            first, guessing = _of_run(column_run, snapshot), f"of {run}"
        else:
            first = None if first is None else in_order(first, names, snapshot.classes)
            guessing = "none yet" if first is None else "none yet: by what the classes are called"
        judged = _judged(snapshot, found, seed) if _wants_errors(queue) else None
        evidence = evidence_of(
            snapshot, found, start=first, wrong=None if judged is None else judged.wrong, skipped=people.skipped
        )
        chosen = make_queue(evidence, count, queue, seed)
        rows = [
            NextRow(
                one.row, None if opened.ids is None else opened.ids[one.row], opened.texts[one.row], one.guess,
                one.probability, one.queue, one.reason, snapshot.label_of(one.row),
            )
            for one in chosen.rows
        ]  # fmt: skip
        opened.check_whole()
        report = NextReport(
            cache=str(opened.path),
            label=column,
            queue=queue,
            rows=rows,
            labelled=int((snapshot.labelled & pool.usable).sum()),
            unlabelled=int(snapshot.unlabelled.sum()),
            heads=guessing,
            score=None if found is None else found.validation,
            pooling=pooling,
            layer=layer,
            output=None if output is None else str(output),
            labels=opened.labels_from,
            seconds=time.perf_counter() - began,
            notes=[*([reason] if reason else []), *chosen.notes],
        )
        if place is not None and kind is not None:
            _write(report, kind, place)
    return report


def _run_of(path: str | Path, label: str | None, cache: Cache) -> Run:
    """The run of one column, if its vectors are those of the cache."""
    run = load_run(path)
    name = label if label is not None else next(iter(run.columns))
    if name not in run.columns:
        raise EmbedcacheError(f"--run {path}: it has heads for {', '.join(run.columns)}, not for {name!r}")
    check_same_encoder(run.columns[name], cache)
    return run.columns[name]


def _column(cache: Cache, label: str | None, run: Run | None, may_be_new: bool) -> str:
    if run is not None:
        return str(run.info.get("label", label or "label"))
    if may_be_new and (label is not None or not cache.label_names):
        return label or "label"
    return target_column(cache, label)


def _of_run(run: Run, snapshot: Snapshot) -> np.ndarray:
    """What the run's best head says of all rows, in the order of the snapshot's classes."""
    kind = kind_of(run.best.kind)
    outputs = run.best.logits(snapshot.pool.x)
    if not kind.has_classes:
        return outputs
    return in_order(kind.probabilities(outputs), run.classes, snapshot.classes)


def _wants_errors(queue: str) -> bool:
    return queue == "errors" or (queue == MIXED and "errors" in SHARES)


def _judged(snapshot: Snapshot, found: Retrained | None, seed: int) -> JudgedSnapshot | None:
    """Which labels look wrong; None where each was looked at twice."""
    if found is None or not (snapshot.labelled & ~snapshot.settled).any():
        return None
    rows = drawn(found.learned, MOST_JUDGED, len(snapshot.y), seed)
    return judge_labels(snapshot, replace(found, learned=rows), nearest_of(snapshot.pool, rows))


def _cells(values: Sequence[Label]) -> Any:
    """An Arrow array of numbers, or of names; lists as JSON."""
    import pyarrow as pa

    if any(isinstance(value, float) for value in values):
        return pa.array(values, pa.float64())
    return pa.array(
        [json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in values], pa.string()
    )


def _short(probability: float | None) -> float | None:
    """To six digits, as the other tables have it."""
    return None if probability is None else float(f"{probability:.6g}")


def _write(report: NextReport, kind: Any, place: Output) -> None:
    table = report.to_arrow()
    with kind.open(place, TableLayout(table.schema.names, list(table.schema.types))) as writer:
        writer.write([column.to_pylist() for column in table.columns])
