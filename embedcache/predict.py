"""Label texts with the best head of a run: the run's own encoder, checked by content, then the head."""

from __future__ import annotations

import csv
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.run import INFO, Run, load_run

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

FILE_ROWS = 2048  # rows of a table that are read, encoded in batches of like length, and written at a time


@dataclass(frozen=True)
class Prediction:
    """One text, its likeliest label, and the probability of every label (they add up to 1)."""

    text: str
    label: str
    probabilities: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


@dataclass(frozen=True)
class FileReport:
    """What predict_file did. truncated: texts of more tokens than the encoder reads; labels: rows per label."""

    input: str
    output: str
    rows: int
    truncated: int
    labels: dict[str, int]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


class Classifier:
    """A frozen encoder and a trained head. Make one with Classifier.load."""

    def __init__(self, run: Run, encoder: Encoder) -> None:
        self.run, self.encoder = run, encoder
        self.classes = run.classes
        self._outputs = [(run.info["pooling"], run.info["layer"])]
        self._dtype = np.dtype(run.info["dtype"])

    @classmethod
    def load(
        cls,
        run: str | Path,
        device: str = "auto",
        *,
        model: str | Path | None = None,
        trust_remote_code: bool = False,
    ) -> Classifier:
        """Load a run directory and the encoder that its cache was made with.

        ``model``: the encoder's folder or name, where it is no longer where the cache found it. Raises EmbedcacheError
        where the run lacks files or is damaged, or the encoder is gone or is another one.
        """
        from embedcache.encoder.model import load_again, resolve_device

        loaded = load_run(run)
        device = resolve_device(device)  # here, where no --model would help
        try:
            about = loaded.info["encoder"]
            source, identity = str(model or about["source"]), about["identity"]
            encoder = load_again(source, identity, str(run), device=device, trust_remote_code=trust_remote_code)
            return cls(loaded, encoder)
        except EmbedcacheError as error:
            raise EmbedcacheError(f"{error}; --model FOLDER says where the encoder of {run} is") from None
        except (KeyError, TypeError) as error:
            raise EmbedcacheError(f"{loaded.path / INFO} is damaged: it lacks {error}; train it again") from None

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The label of each text. Long texts are cut to the encoder's max_length, as in extract."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self._predictions(texts, self.predict_proba(self.encode(texts)))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors [n, D] of texts, of the pooling, layer and dtype of the cache that the head was trained on."""
        return self._encode(texts)[0]

    def _encode(self, texts: Sequence[str], tell: Callable[[np.ndarray], None] | None = None) -> tuple[np.ndarray, int]:
        """(vectors [n, D], how many texts were cut); tell hears which rows each batch finished."""
        tokens = self.encoder.tokenize(texts)
        (vectors,) = self.encoder.encode_tokens(tokens, self._outputs, tell=tell)
        return vectors.astype(self._dtype, copy=False), int(tokens.truncated.sum())

    def predict_proba(self, vectors: np.ndarray) -> np.ndarray:
        """Probabilities float64 [n, C] of vectors [n, D], such as rows of the cache; columns as in ``classes``."""
        probabilities = np.exp(self.run.best.predict_log_proba(vectors), dtype=np.float64)
        return probabilities / probabilities.sum(1, keepdims=True)

    def _predictions(self, texts: Sequence[str], probabilities: np.ndarray) -> list[Prediction]:
        best = probabilities.argmax(1)
        return [
            Prediction(text, self.classes[c], dict(zip(self.classes, row.tolist(), strict=True)))
            for text, c, row in zip(texts, best, probabilities, strict=True)
        ]


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

    ``text`` names its column. The input is streamed; it is read to its end once before the work begins, so a broken row
    is found at once. The output is UTF-8, appears whole or not at all, and replaces a file of that name.
    ``progress(done, total, rows)`` counts characters, and rows. Raises EmbedcacheError for what cannot be read or
    written.
    """
    from embedcache.table import Columns, read_rows

    start = time.perf_counter()
    output = Path(output)
    total = sum(len(one) for part in read_rows([input], Columns(text), encoding=encoding) for one in part.texts)
    if output.is_dir() or (output.exists() and output.samefile(input)):
        raise EmbedcacheError(f"{output} is {'a folder' if output.is_dir() else 'the input'}: name another -o OUT.csv")
    done = rows_done = rows = truncated = 0
    labels = dict.fromkeys(classifier.classes, 0)

    def tell(batch: np.ndarray) -> None:
        nonlocal done, rows_done
        done, rows_done = done + sum(len(texts[i]) for i in batch), rows_done + len(batch)
        if progress is not None:
            progress(done, total, rows_done)

    with _whole_file(output) as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "probability"])
        for part in read_rows([input], Columns(text), encoding=encoding, batch_rows=FILE_ROWS):
            texts = part.texts
            vectors, cut = classifier._encode(texts, tell)
            probabilities = classifier.predict_proba(vectors)
            for one, best, row in zip(texts, probabilities.argmax(1), probabilities, strict=True):
                labels[classifier.classes[best]] += 1
                writer.writerow([one, classifier.classes[best], f"{row[best]:.6f}"])
            rows, truncated = rows + len(texts), truncated + cut
    return FileReport(str(input), str(output), rows, truncated, labels, time.perf_counter() - start)


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A new text file that takes its name only once everything is in it."""
    part = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with part.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {path}: {error.strerror or error}; name another place with -o") from None
    finally:
        with suppress(OSError):
            part.unlink()
