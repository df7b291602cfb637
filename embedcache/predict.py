"""Label a table with the best heads of a run, into another table."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.classifier import Classifier
from embedcache.common.whole_file import check_output, whole_file

FILE_ROWS = 2048  # rows of a table that are read, encoded in batches of like length, and written at a time


@dataclass(frozen=True)
class FileReport:
    """What predict_file did.

    Attributes:
        truncated: texts of more tokens than the encoder reads.
        labels: rows per label; of a regression {}. Of several columns, those of the first.
        columns: label column -> its rows per label.
    """

    input: str
    output: str
    rows: int
    truncated: int
    labels: dict[str, int]
    columns: dict[str, dict[str, int]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self)
        if len(self.columns) < 2:
            del document["columns"]
        return document


def predict_file(
    classifier: Classifier,
    input: str | Path,
    output: str | Path,
    *,
    text: str = "text",
    encoding: str = "utf-8",
    progress: Callable[[int, int, int], None] | None = None,
) -> FileReport:
    """Label a table of any kind that extract reads into a CSV of text, label and probability (of that label).

    A list of labels is JSON, and so is that of their probabilities; a regression's value has none. A run of several
    label columns gives COLUMN and COLUMN_probability for each. ``text`` names the column of texts. The input is
    streamed; it is read to its end once before the work begins, so a broken row is found at once. The output is UTF-8,
    appears whole or not at all, and replaces a file of that name. ``progress(done, total, rows)`` counts characters,
    and rows. Raises EmbedcacheError for what cannot be read or written.
    """
    from embedcache.table import Columns, read_rows

    start = time.perf_counter()
    output = Path(output)
    parts = read_rows([input], Columns(text), encoding=encoding)
    total = sum(len(one) for part in parts for one in part.texts.to_pylist())
    check_output(output, input)
    done = rows_done = rows = truncated = 0
    columns = classifier.run.columns
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}

    def tell(batch: np.ndarray) -> None:
        nonlocal done, rows_done
        done, rows_done = done + sum(len(texts[i]) for i in batch), rows_done + len(batch)
        if progress is not None:
            progress(done, total, rows_done)

    with whole_file(output) as file:
        writer = csv.writer(file)
        several = [name for column in columns for name in (column, f"{column}_probability")]
        writer.writerow(["text", *(several if len(columns) > 1 else ["label", "probability"])])
        for part in read_rows([input], Columns(text), encoding=encoding, batch_rows=FILE_ROWS):
            texts = part.texts.to_pylist()
            vectors, cut = classifier.encode_counted(texts, tell)
            answers = classifier.answers(vectors)
            writer.writerows(
                [one, *(cell for answer in answers.values() for cell in answer.cells(i))] for i, one in enumerate(texts)
            )
            for column, answer in answers.items():
                counts[column].update(answer.count())
            rows, truncated = rows + len(texts), truncated + cut
    labels = {column: dict(count) for column, count in counts.items()}
    first = next(iter(labels.values()))
    return FileReport(str(input), str(output), rows, truncated, first, labels, time.perf_counter() - start)
