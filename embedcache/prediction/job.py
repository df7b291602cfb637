"""Label a table, or the rows of a cache, with the best heads of a run, or of several, into another table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache.side_by_side import vectors_of
from embedcache.common.int8_rows import as_stored
from embedcache.common.outputs import Layer
from embedcache.common.progress import Progress, Tell, no_progress, no_tell
from embedcache.encoder.hardware import resolve_device
from embedcache.errors import EmbedcacheError
from embedcache.index.file_format import rows_digest
from embedcache.labelling.opened import notes_of
from embedcache.prediction.classifier import Classifier, check_same_encoder
from embedcache.prediction.explain import Parts
from embedcache.prediction.explanation import Explanation
from embedcache.prediction.labelling import COLUMN, Labelling, open_rows
from embedcache.prediction.own_vectors import chosen_words, encode_and_choose
from embedcache.prediction.predicted import Finished, Labeller, PredictedRows
from embedcache.prediction.predictions import ColumnOutputs
from embedcache.prediction.rule import Reject, Rule, Threshold
from embedcache.prediction.together import EachRun, Encode, alone
from embedcache.runs.folder import load_run
from embedcache.vectors.read import check_maker

if TYPE_CHECKING:
    from embedcache.cache import Cache


@dataclass(frozen=True)
class FileReport:
    """What predict_file did.

    Attributes:
        input: the table or cache. output: the table that was written; None: nothing was.
        truncated: texts of more tokens than the encoder reads.
        labels: rows per label; of a regression {}. Of several columns, those of the first.
        columns: label column -> its rows per label.
        reading: tokens that were not read, or not known, see ``common.reading.Reading``; {} where nothing was encoded.
        labels_from: of a cache, the journal that was read, see docs/labelling.md.
        refused: label column -> why rows have no label -> rows; {} where none is refused.
        rules: label column -> thresholds, limits and what the validation rows promise; {} of the usual ways.
        notes: what of it matters, in words.
        predicted: the names of the new columns.
        resumed: rows of ``rows`` that an earlier, interrupted command had labelled.
        first: where nothing was written, the first ten rows, with the columns of the input and the new ones.
        text: which of these columns has the texts.
    """

    input: str
    output: str | None
    rows: int
    truncated: int
    labels: dict[str, int]
    columns: dict[str, dict[str, int]]
    seconds: float
    predicted: list[str] = field(default_factory=list)
    resumed: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    text: str = "text"
    reading: dict[str, Any] = field(default_factory=dict)
    labels_from: dict[str, Any] | None = None
    refused: dict[str, dict[str, int]] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self)
        if len(self.columns) < 2:
            del document["columns"]
        for name in ("refused", "rules"):
            if not document[name]:
                del document[name]
        if self.output is not None:
            del document["first"], document["text"]
        return document


def predict_file(
    run: str | Path | Classifier | Sequence[str | Path],
    input: Any,
    output: str | Path | None = None,
    *,
    column: str = COLUMN,
    where: str | Sequence[str] = (),
    labels: str | Path | None = None,
    text: str | None = None,
    vector: str | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    device: str = "auto",
    model: str | Path | None = None,
    trust_remote_code: bool = False,
    calibrated: bool = False,
    threshold: Threshold = None,
    reject: Reject = None,
    sure: float | None = None,
    explain: bool = False,
    explain_words: int | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> FileReport:
    """Label every row of a table of any kind that extract reads, or of a cache, for which nothing is encoded.

    The output has all columns of the input, in their order and with their types, followed by ``predicted`` and
    ``predicted_probability`` (a regression has only the first; each of several label columns has its own, such as
    ``predicted_genre``, and so has each of several runs, by the name of its folder). With ``reject`` a third,
    ``predicted_reason``, says why a row has no label. Lists of labels are lists, in a CSV as JSON. A run with a
    hierarchy has two more columns a level, such as ``predicted_genre`` and ``predicted_genre_probability``. For a cache
    the columns are ``row`` (its number), the id, text, labels and kept columns.

    Long work can be interrupted: what is finished is kept beside the output (in ``.OUT.partial``), and the same call
    continues after it. The output itself appears whole or not at all, and replaces a file of that name.

    Args:
        run: A run folder, or a Classifier. Several run folders label the same rows: what their encoders have in common
            is computed once.
        input: The table, or a cache made by the run's encoder; "-" is standard input, JSON lines. A table may be
            anything that extract takes: a path, an address, a DataFrame.
        output: The table to write, in the format of its suffix; "-" is standard output, JSON lines. None writes
            nothing, and the report has the first rows.
        column: The name of the new columns, or its beginning. It must be free.
        where: Conditions on the rows of a cache, as in a search.
        labels: Of a cache, a journal of labels that people gave, over its own; "none"; None: that beside it, if any.
        text: The column of texts; None is the one called as in the run's cache, where there is one, else "text".
        vector: The column of ``input`` that has vectors of the run's encoder in place of texts; a file of arrays, such
            as .npy, needs no name. The output has all columns but this one.
        encoding: Encoding of a text file.
        separator: Between the cells of a .csv; None detects it.
        sheet: Sheet of a workbook, or table of a database; None is the first, or the only one.
        device: See ``Classifier.load``; not for a Classifier, which has it already. So are the next six.
        model: See ``Classifier.load``.
        trust_remote_code: See ``Classifier.load``.
        calibrated: See ``Classifier.load``.
        threshold: See ``Classifier.load``.
        reject: See ``Classifier.load``.
        sure: See ``Classifier.load``.
        explain: Also write ``predicted_words``, the words that carry the label, ``predicted_effects``, what its
            probability loses without each, and ``predicted_for`` and ``predicted_against``, the nearest training rows
            that have the label and that have not, by their numbers in the run's cache. Rows of a cache are encoded
            then, once for each of their words.
        explain_words: Explain by this many words of each text, see ``Classifier.predict``.
        progress: Called with (done, total, rows); done and total are characters, or rows of a cache.
        tell: Called with each note, one line.

    Raises:
        EmbedcacheError: The input cannot be read or labelled, the output cannot be written, or the name of a new column
            is taken.
    """
    start = time.perf_counter()
    say = tell or no_tell
    with ExitStack() as ends:
        reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "sheet": sheet}
        rows = open_rows(ends, input, output, where, text, vector, labels, partial(_texts_called, run), **reading)
        options: dict[str, Any] = {"model": model, "trust_remote_code": trust_remote_code, "calibrated": calibrated}
        options |= {"device": device, "threshold": threshold, "reject": reject, "sure": sure}
        explain = explain or explain_words is not None
        labeller = RunLabeller.load(run, rows.are_encoded, options, explain, explain_words)
        work = Labelling(labeller, rows, column, progress or no_progress, say)
        for note in labeller.notes:
            say(note)
        work.run(output)
    counts, read = work.counts, work.reading
    return FileReport(
        input=rows.name,
        output=work.output,
        rows=rows.rows,
        truncated=read.truncated if read else 0,
        labels=next(iter(counts.values())),
        columns=counts,
        seconds=time.perf_counter() - start,
        predicted=work.names,
        resumed=work.resumed,
        first=work.first,
        text=rows.text,
        reading=read.to_dict() if read else {},
        refused=work.refused,
        rules={column: found for column, rule in labeller.rules.items() if (found := rule.to_dict())},
        labels_from=rows.labels_from,
        notes=[*notes_of(rows.labels_from), *(read.notes(advise=False) if read else [])],
    )


def _texts_called(run: str | Path | Classifier | Sequence[str | Path]) -> str | None:
    """What the texts were called in the table of the run's cache; of several runs, of the first one's."""
    if isinstance(run, Classifier):
        return run.run.text_column
    return load_run(run if isinstance(run, (str, Path)) else run[0]).text_column


class RunLabeller(Labeller):
    """The best heads of a run, or of each of several: texts are encoded, rows of a cache are not."""

    def __init__(
        self,
        classifiers: Mapping[str, Classifier],
        encode: Encode | None,
        device: str | None,
        explain: bool = False,
        explain_words: int | None = None,
    ) -> None:
        """classifiers: by the names of their columns; encode: their texts, on ``device``; explain: of one alone."""
        self._classifiers, self._encode, self._device = classifiers, encode, device
        self._explain, self._explain_words = explain, explain_words
        self.columns, self._rules = {}, {}
        for name, one in classifiers.items():
            for label, run in one.run.columns.items():
                several = label if len(classifiers) == 1 else f"{name}_{label}"
                key = name if len(classifiers) > 1 and len(one.run.columns) == 1 else several
                self.columns[key] = run.best.kind, run.classes
                self._rules[key] = one.rules[label]

    @classmethod
    def load(
        cls,
        run: str | Path | Classifier | Sequence[str | Path],
        encode: bool,
        options: dict[str, Any],
        explain: bool = False,
        explain_words: int | None = None,
    ) -> RunLabeller:
        """options: of Classifier.load, not for a Classifier; encode: whether texts will be labelled.

        Raises:
            EmbedcacheError: no run, or several of one name, or several to explain.
        """
        if isinstance(run, (str, Path)):
            run = Classifier.load(run, encode=encode or explain, **options)
        if isinstance(run, Classifier):
            device = getattr(run.encoder, "device", None)
            encode_all = alone(run) if run.encoder is not None else None
            return cls({"": run}, encode_all, device, explain, explain_words)
        if len(run) == 1:
            return cls.load(run[0], encode, options, explain, explain_words)
        if explain:
            raise EmbedcacheError("--explain explains the labels of one run: name it alone")
        names = [Path(one).resolve().name for one in run]
        if len(set(names)) < len(names) or not names:
            twice = next((name for name in names if names.count(name) > 1), None)
            raise EmbedcacheError("name at least one run" if twice is None else
                f"two runs are called {twice!r}, and so would their columns be: rename a folder, or label with one run "
                "after the other")  # fmt: skip
        heads = {name: Classifier.load(one, encode=False, **options) for name, one in zip(names, run, strict=True)}
        if not encode:
            return cls(heads, None, None)
        together = EachRun(
            [one.run for one in heads.values()], lambda one: Classifier.load(one.path, encode=True, **options)
        )
        return cls(heads, together.encode, resolve_device(options["device"]))

    @property
    def notes(self) -> list[str]:
        """What to know of their labels and probabilities, and of what cannot be explained."""
        several, every = len(self._classifiers) > 1, self._classifiers.items()
        notes = [f"{name}: {note}" if several else note for name, one in every for note in one.notes]
        return [*notes, *([chosen_words(self._explain_words)] if self._explain_words else []), *self._unnamed]

    @property
    def _unnamed(self) -> list[str]:
        """Why explanations name no training rows; empty where they do, or nothing is explained."""
        return [one.no_neighbours for one in self._classifiers.values() if self._explain and one.no_neighbours]

    @property
    def rules(self) -> dict[str, Rule]:
        """That of each column."""
        return self._rules

    def key(self) -> str:
        every = self._classifiers.values()
        one, *others = [[one.digest, one.calibrated, one.threshold, one.reject, one.sure] for one in every]
        explained = [self._explain, bool(self._unnamed), *filter(None, [self._explain_words])]
        return json.dumps([*one, self._device, explained, *others])

    def answers_of(self, column: str) -> list[str]:
        tree = self._rules[column].tree
        if tree is None or tree.sure is None:
            return super().answers_of(column)
        return list(dict.fromkeys(tree.hierarchy.names))

    def blank(self, column: str) -> ColumnOutputs:
        rule = self._rules[column]
        explained = [Explanation(None, [])] if self._explain else None
        return replace(
            super().blank(column),
            rule=rule,
            reasons=np.zeros(1, np.int8) if rule.refuses else None,
            explained=explained,
        )

    def check(self, cache: Cache) -> None:
        for one in self._classifiers.values():
            check_same_encoder(one.run, cache)
            vectors_of(cache, *_output(one))  # are there, all of them

    def cache_key(self, cache: Cache) -> str:
        one, *others = [rows_digest(cache, *_output(one), cache.rows) for one in self._classifiers.values()]
        return json.dumps([one, *others]) if others else one

    def texts(self, texts: list[str], tell: Finished) -> PredictedRows:
        assert self._encode is not None
        if self._explain_words is not None:
            (one,) = self._classifiers.values()
            chosen, read, parts = encode_and_choose(one, texts, self._explain_words, tell)
            return PredictedRows.of(self._answers([chosen], texts, parts), read)
        vectors, read = self._encode(texts, tell)
        return PredictedRows.of(self._answers(vectors, texts), read)

    def check_vectors(self, name: str, dim: int, encoder: str | None) -> None:
        if self._explain:
            raise EmbedcacheError(f"{name} holds vectors, and --explain needs texts: leave it out")
        for one in self._classifiers.values():
            check_maker(name, encoder, one.run.info["encoder"], str(one.run.path))
            if dim != one.run.best.dim:
                raise EmbedcacheError(f"{one.run.path} reads vectors {one.run.best.dim} wide, {name} has {dim}")

    def vectors(self, vectors: np.ndarray, tell: Finished) -> PredictedRows:
        stored = (as_stored(vectors, one.run.info["dtype"]) for one in self._classifiers.values())
        made = PredictedRows.of(self._answers(stored, []))
        tell(np.arange(len(vectors)))
        return made

    def cached(self, cache: Cache, rows: np.ndarray, tell: Finished) -> PredictedRows:
        stored = (
            as_stored(vectors_of(cache, *_output(one))[rows], one.run.info["dtype"])
            for one in self._classifiers.values()
        )
        texts = [cache.texts[row] for row in rows.tolist()] if self._explain else []
        parts = None
        if self._explain_words is not None:  # by their tokens' vectors, which a cache does not keep
            (one,) = self._classifiers.values()
            parts = encode_and_choose(one, texts, self._explain_words)[2]
        made = PredictedRows.of(self._answers(stored, texts, parts))
        tell(rows)
        return made

    def _answers(
        self, vectors: Iterable[np.ndarray], texts: Sequence[str], parts: Sequence[Parts] | None = None
    ) -> Iterator[ColumnOutputs]:
        """texts: are needed to explain alone, and so are the parts that are deleted; None: all."""
        for one, read in zip(self._classifiers.values(), vectors, strict=True):
            answers = one.answers(read)
            yield from (one.explain(texts, read, answers, parts) if self._explain else answers).values()


def _output(classifier: Classifier) -> tuple[str, Layer]:
    return classifier.run.info["pooling"], classifier.run.info["layer"]
