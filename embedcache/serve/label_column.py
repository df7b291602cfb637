"""Which column people label, and from what they start."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of, usual_kind
from embedcache.index.exact import unit_length
from embedcache.labelling import LabelJournal, Overlay
from embedcache.runs.folder import Run
from embedcache.runs.sides import stored_sides
from embedcache.runs.split import SIDES, places
from embedcache.serve.label_arrays import LabelArrays
from embedcache.serve.label_session import LabelSession
from embedcache.serve.service import Service

NEW_COLUMN = "label"
TEST = 0.1  # of the labelled rows, as train-head has it
FEWEST_TESTED = 20  # rows; of fewer nothing can be said
SCALE = 20.0  # of cosines, in the loss that encoders of sentences are trained with


def open_session(
    service: Service, label: str | None = None, labels_of: Sequence[str] = (), task: str | None = None
) -> LabelSession:
    """Let people label a column of the served cache.

    Args:
        service: What is served. Its first run, if it has the column, says which rows test and what the kind is.
        label: The column; None: the run's first, else the only label column. It may be a new one.
        labels_of: Names of classes, beside those of the column.
        task: A kind of task; None: the run's, else that of the column.

    Raises:
        EmbedcacheError: there are several columns, or a new one without names; a kind that does not fit; a folder in
            which no journal can be written.
    """
    cache, run = service.cache, service.first
    runs: dict[str, Run] = {} if run is None else run.run.columns
    column = _column(cache, label, list(runs), labels_of, task)
    kind = _kind(cache, column, runs.get(column), task)
    names = list(dict.fromkeys(name.strip() for name in labels_of if name.strip()))
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
    arrays = LabelArrays(cache, column, kind, names, output, _test_rows(cache, column, runs.get(column)))
    session = LabelSession(arrays, journal, _start(service, arrays, output), lambda: _show(service, journal))
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


def _test_rows(cache: Cache, column: str, run: Run | None) -> np.ndarray:
    """bool [N]: the run's test rows; without a run those that train-head would take, of the labels in the file."""
    if run is not None:
        try:
            return np.asarray(stored_sides(cache, run, "--run") == SIDES.index("test"))
        except EmbedcacheError:  # a run of the first versions, which kept no sides
            pass
    if column not in cache.own_label_names:
        return np.zeros(cache.rows, bool)
    codes, _ = cache.own_labels(column)
    there = np.asarray(codes if codes.ndim == 1 else codes[:, 0]) >= 0
    test = there & (places(cache.hashes) < TEST)
    return test if test.sum() >= FEWEST_TESTED else np.zeros(cache.rows, bool)


def _start(service: Service, arrays: LabelArrays, output: tuple[str, int]) -> Callable[[], np.ndarray | None]:
    """Without any labels: zero-shot by similarity, each row's cosines with the names of the classes."""

    def start() -> np.ndarray | None:
        encoder, names = service.encoder, list(arrays.classes)
        tuned = output not in service.cache.outputs
        if encoder is None or tuned or not kind_of(arrays.kind).exclusive or len(names) < 2 or arrays.labelled.any():
            return None
        try:
            vectors = unit_length(encoder.encode_texts(names, [output])[0])
        except EmbedcacheError:
            return None
        cosines = arrays.pool.directions.astype(np.float32) @ vectors.T
        return kind_of(arrays.kind).probabilities(SCALE * cosines)

    return start


def _show(service: Service, journal: LabelJournal) -> None:
    """Searches and rows show the labels that people gave."""
    service.cache.source = Overlay.of(journal)
    service.searcher.read_labels()
