"""Which column people label, and from what they start."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from embedcache.active_learning.from_cache import in_order, pool_of
from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of, usual_kind
from embedcache.labelling import LabelJournal, Overlay
from embedcache.prompting.labels import NamedLabels, TextLabel, read_labels
from embedcache.prompting.start import start_probabilities
from embedcache.runs.folder import Run
from embedcache.serve.label_arrays import LabelArrays
from embedcache.serve.label_session import LabelSession
from embedcache.serve.service import Service

NEW_COLUMN = "label"


def open_session(
    service: Service,
    label: str | None = None,
    labels_of: NamedLabels = (),
    task: str | None = None,
    group: str | None = None,
) -> LabelSession:
    """Let people label a column of the served cache.

    Args:
        service: What is served. Its first run, if it has the column, says which rows test and what the kind is.
        label: The column; None: the run's first, else the only label column. It may be a new one.
        labels_of: Names of classes, beside those of the column, and descriptions by which rows are guessed as long as
            none has a label; see ``read_labels``.
        task: A kind of task; None: the run's, else that of the column.
        group: See ``pool_of``.

    Raises:
        EmbedcacheError: there are several columns, or a new one without names; a kind that does not fit; a folder in
            which no journal can be written.
    """
    cache, run = service.cache, service.first
    runs: dict[str, Run] = {} if run is None else run.run.columns
    named = read_labels(labels_of, fewest=1) if labels_of else []
    names = [one.name for one in named]
    column = _column(cache, label, list(runs), names, task)
    kind = _kind(cache, column, runs.get(column), task)
    if kind_of(kind).has_classes and not names and column not in cache.own_label_names:
        raise EmbedcacheError(
            f"{cache.path} has no labels in {column!r}: name the classes, such as --labels-of fresh,rotten"
        )
    journal = LabelJournal.beside(cache.path)
    if not os.access(journal.path if journal.exists else journal.path.parent, os.W_OK):
        raise EmbedcacheError(f"cannot write {journal.path}: make the file and its folder yours to write")
    output = service.searcher.index.pooling, service.searcher.index.layer
    if run is not None and run.output in cache.outputs:  # not several side by side
        output = run.output[0], int(run.output[1])
    arrays = LabelArrays(cache, column, kind, names, pool_of(cache, column, *output, runs.get(column), group))
    session = LabelSession(arrays, journal, _start(service, arrays, named, output), lambda: _show(service, journal))
    service.labelling = session
    return session


def _column(cache: Cache, label: str | None, runs: Sequence[str], names: Sequence[str], task: str | None) -> str:
    own = cache.own_label_names
    if label is not None:
        if label in cache.column_names:
            raise EmbedcacheError(
                f"--label {label}: {cache.path} keeps that column for filters; run extract again with --label {label}"
            )
        return label
    if runs or len(own) == 1:
        return runs[0] if runs else own[0]
    if own:
        raise EmbedcacheError(f"{cache.path} has the label columns {', '.join(own)}: name one with --label")
    if not names and task is None:
        raise EmbedcacheError(f"{cache.path} has no labels: name the classes, such as --labels-of fresh,rotten")
    return NEW_COLUMN


def _kind(cache: Cache, column: str, run: Run | None, task: str | None) -> str:
    there = column in cache.own_label_names
    lists = there and cache.own_holds_lists(column)
    kind = task or (run.best.kind if run is not None else usual_kind(lists).name)
    if there and kind_of(kind).has_lists != lists:
        holds = "lists" if lists else "one value a row"
        raise EmbedcacheError(f"--task {kind}: column {column!r} of {cache.path} holds {holds}")
    return kind


def _start(
    service: Service, arrays: LabelArrays, named: Sequence[TextLabel], output: tuple[str, int]
) -> Callable[[], np.ndarray | None]:
    """Without any labels: zero-shot by similarity, as ``embedcache next`` has it."""
    cache, encoder, pooling = (
        service.cache,
        service.encoder,
        output[0] if (output[0], -1) in service.cache.outputs else None,
    )

    def start() -> np.ndarray | None:
        labels = named or [TextLabel(name, (name,)) for name in arrays.classes]
        if encoder is None or not kind_of(arrays.kind).exclusive or len(labels) < 2 or arrays.labelled.any():
            return None
        try:
            names, found = start_probabilities(cache, labels, pooling, encoder=encoder)
        except EmbedcacheError:
            return None
        return in_order(found, names, arrays.classes)

    return start


def _show(service: Service, journal: LabelJournal) -> None:
    """Searches and rows show the labels that people gave."""
    service.cache.source = Overlay.of(journal)
    service.searcher.read_labels()
