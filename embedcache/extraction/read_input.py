"""Read the whole input once: label codes into memory, texts and their hashes into unnamed files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedcache.cache.labels import LabelCoder, label_counts
from embedcache.cache.spool_file import UnnamedFile
from embedcache.cache.strings import HASH_BYTES, Spool, Strings, Text, blank_rows, hash_texts, slices
from embedcache.common.label_names import label_notes
from embedcache.errors import EmbedcacheError
from embedcache.tables.rows import TEXT_COLUMN, Columns, Rows, utf8

TOO_MANY_CLASSES = 10_000
SUSPICIOUS_CLASSES = 1_000  # so many are refused if they are more than half as many as the labelled rows
MOST_LABELS = 5_000  # in a column of lists: each label costs a byte per row


@dataclass
class Collected:
    """The N rows of the input.

    Attributes:
        hashes: uint8 [N, 16], of the texts.
        texts: the texts.
        labels: (codes, classes) of each label column, as ``LabelCoder`` returns them.
        columns: the other columns to store.
        id_column: the one among ``columns`` that names the rows, or None.
        text_column: what the texts were called, where not "text".
        blank: the number of rows with an empty or all-blank text.
    """

    hashes: np.ndarray
    texts: Text
    labels: dict[str, tuple[np.ndarray, list[str]]]
    columns: dict[str, Text]
    id_column: str | None
    text_column: str | None
    blank: int

    def first_texts(self, most: int = 1000) -> list[str]:
        """Those of the first rows."""
        strings = Strings(*self.texts)
        return [strings[row] for row in range(min(most, len(self.hashes)))]

    def taken(self, rows: np.ndarray, folder: Path) -> Collected:
        """Some rows, int64, in their order; their strings in unnamed files in ``folder``."""
        texts = take_texts(self.texts, rows, folder)
        return replace(
            self,
            hashes=self.hashes[rows],
            texts=texts,
            labels={name: (codes[rows], classes) for name, (codes, classes) in self.labels.items()},
            columns={name: take_texts(column, rows, folder) for name, column in self.columns.items()},
            blank=int(blank_rows(texts).sum()),
        )

    def label_notes(self) -> list[str]:
        """Notes on unusual classes in each label column."""
        return [
            note
            for name, (codes, classes) in self.labels.items()
            for note in label_notes(name, classes, label_counts(codes, len(classes)).tolist())
        ]


def take_texts(texts: Text, rows: np.ndarray, folder: Path) -> Text:
    """Copy some rows of ``texts``, in order, to an unnamed file in ``folder``."""
    data, offsets = texts
    lengths = np.diff(offsets)[rows]
    file = UnnamedFile(folder, "the texts")
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        if len(run):
            file.write(data[offsets[run[0]] : offsets[run[-1] + 1]].data)
    return file.finish(), np.concatenate([[0], np.cumsum(lengths)])


def collect(rows: Iterable[Rows], columns: Columns, folder: Path) -> Collected:
    """Read all rows, a batch at a time.

    Args:
        rows: batches of rows.
        columns: which columns these are.
        folder: where to put the unnamed files.

    Raises:
        EmbedcacheError: no disk space; a label column with so many different values that it cannot be the label.
    """
    texts, hashes, blank = Spool(folder), UnnamedFile(folder, "the hashes"), 0
    coders = {name: LabelCoder() for name in columns.labels}
    kept = {name: Spool(folder) for name in ([columns.id] if columns.id else []) + list(columns.keep)}
    for batch in rows:
        text = utf8(batch.texts)
        texts.add(text)
        hashes.write(hash_texts(slices(text)))
        blank += int(blank_rows(text).sum())
        for name, coder in coders.items():
            coder.add(batch.labels[name])
            if coder.multilabel and coder.classes > MOST_LABELS:
                raise _too_many_labels(name)
            if coder.classes >= TOO_MANY_CLASSES:
                raise _not_a_label(name, coder.classes)
        for name, spool in kept.items():
            spool.add(utf8(batch.ids if name == columns.id else batch.keep[name]))
    labels = {name: coder.finish(folder) for name, coder in coders.items()}
    for name, (codes, classes) in labels.items():
        if codes.ndim == 1 and len(classes) >= SUSPICIOUS_CLASSES and 2 * len(classes) > np.count_nonzero(codes >= 0):
            raise _not_a_label(name, len(classes))
    stored = {name: spool.finish() for name, spool in kept.items()}
    called = None if columns.text == TEXT_COLUMN else columns.text
    return Collected(hashes.finish().reshape(-1, HASH_BYTES), texts.finish(), labels, stored, columns.id, called, blank)


def _not_a_label(name: str, classes: int) -> EmbedcacheError:
    return EmbedcacheError(
        f"column {name!r} has {classes:,} different values: is it really the label? Name the label column with "
        f"--label; --id {name} or --keep {name} stores this one as well (for regression use --keep {name}, then "
        f"train-head --label {name} --task regression)"
    )


def _too_many_labels(name: str) -> EmbedcacheError:
    return EmbedcacheError(
        f"the lists of column {name!r} hold more than {MOST_LABELS:,} different labels: leave out the rarest, or name "
        f"another --label; --keep {name} stores the lists as well"
    )
