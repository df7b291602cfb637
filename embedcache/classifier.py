"""Label texts with the best heads of a run: the run's own encoder, checked by content, then each column's head."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.calibration import probabilities
from embedcache.heads.run import INFO, Run, load_run

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

Label = str | list[str] | float  # a class; several labels, or none of them; the value of a regression


@dataclass(frozen=True)
class Prediction:
    """What the best head says of one text.

    Attributes:
        label: the likeliest class; of a multi-label head every label whose probability is above 1/2; of a regression
            the value.
        probabilities: of every class (they add up to 1) or label (each by itself); of a regression {}.
        columns: for a run of several label columns, column -> {"label", "probabilities"}, else empty. ``label`` and
            ``probabilities`` are then those of the first.
    """

    text: str
    label: Label
    probabilities: dict[str, float]
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self)
        if not self.columns:
            del document["columns"]
        return document


@dataclass(frozen=True)
class Answers:
    """What one column's head says of n texts: probabilities float64 [n, classes], or values float32 [n, 1]."""

    kind: str
    classes: list[str]
    outputs: np.ndarray

    def label(self, i: int) -> Label:
        """Of one text, as in a Prediction."""
        if self.kind == "regression":
            return float(str(self.outputs[i, 0]))  # 0.1, not 0.10000000149011612
        named = [self.classes[c] for c in self._chosen(i)]
        return named if self.kind == "multilabel" else named[0]

    def probabilities(self, i: int) -> dict[str, float]:
        return {} if self.kind == "regression" else dict(zip(self.classes, self.outputs[i].tolist(), strict=True))

    def cells(self, i: int) -> tuple[str, str]:
        """Label and probability of one text in a CSV: lists as JSON, a value with a blank."""
        label = self.label(i)
        if isinstance(label, float):
            return str(label), ""
        chances = [f"{self.outputs[i, c]:.6f}" for c in self._chosen(i)]
        if isinstance(label, str):
            return label, chances[0]
        return json.dumps(label, ensure_ascii=False), f"[{', '.join(chances)}]"

    def count(self) -> dict[str, int]:
        """How many texts have each label."""
        rows = Counter(self.classes[c] for i in range(len(self.outputs)) for c in self._chosen(i))
        return {} if self.kind == "regression" else {name: rows[name] for name in self.classes}

    def _chosen(self, i: int) -> list[int]:
        row = self.outputs[i]
        return np.flatnonzero(row > 0.5).tolist() if self.kind == "multilabel" else [int(row.argmax())]


class Classifier:
    """A frozen encoder and a trained head, or one for each label column. Make one with Classifier.load."""

    def __init__(self, run: Run, encoder: Encoder, calibrated: bool = False) -> None:
        self.run, self.encoder = run, encoder
        self._temperatures = {column: _temperature(one) if calibrated else 1.0 for column, one in run.columns.items()}
        self.classes = run.classes
        self._outputs = [(run.info["pooling"], run.info["layer"])]
        self._dtype = np.dtype(run.info["dtype"])

    def __repr__(self) -> str:
        return f"Classifier({self.run!r}, encoder {Path(self.run.info['encoder']['source']).name!r})"

    def _repr_html_(self) -> str:
        return self.run._repr_html_()

    @classmethod
    def load(
        cls,
        run: str | Path,
        device: str = "auto",
        *,
        model: str | Path | None = None,
        trust_remote_code: bool = False,
        calibrated: bool = False,
    ) -> Classifier:
        """Load a run directory and the encoder that its cache was made with.

        ``model``: the encoder's folder or name, where it is no longer where the cache found it. ``calibrated``: divide
        the logits by the temperature that was fitted on the validation rows; it changes probabilities, never a label.
        Raises EmbedcacheError where the run lacks files or is damaged or has no temperature, or the encoder is gone or
        is another one.
        """
        from embedcache.encoder.folder import resolve_device
        from embedcache.encoder.model import load_again

        loaded = load_run(run)
        device = resolve_device(device)  # here, where no --model would help
        for one in loaded.columns.values() if calibrated else ():
            _temperature(one)
        try:
            about = loaded.info["encoder"]
            source, identity = str(model or about["source"]), about["identity"]
            encoder = load_again(source, identity, str(run), device=device, trust_remote_code=trust_remote_code)
            return cls(loaded, encoder, calibrated)
        except EmbedcacheError as error:
            raise EmbedcacheError(f"{error}; --model FOLDER says where the encoder of {run} is") from None
        except (KeyError, TypeError) as error:
            raise EmbedcacheError(f"{loaded.path / INFO} is damaged: it lacks {error}; train it again") from None

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The label of each text. Long texts are cut to the encoder's max_length, as in extract."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self.label(texts, self.encode(texts))

    def label(self, texts: Sequence[str], vectors: np.ndarray) -> list[Prediction]:
        """The label of each text of which the vectors [n, D] are known, such as rows of the cache."""
        answers = self.answers(vectors)
        first, several = next(iter(answers.values())), answers if len(answers) > 1 else {}
        return [
            Prediction(
                text,
                first.label(i),
                first.probabilities(i),
                {name: {"label": one.label(i), "probabilities": one.probabilities(i)} for name, one in several.items()},
            )
            for i, text in enumerate(texts)
        ]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors [n, D] of texts, of the pooling, layer and dtype of the cache that the head was trained on."""
        return self.encode_counted(texts)[0]

    def encode_counted(
        self, texts: Sequence[str], tell: Callable[[np.ndarray], None] | None = None
    ) -> tuple[np.ndarray, int]:
        """(vectors [n, D], how many texts were cut); tell hears which rows each batch finished."""
        tokens = self.encoder.tokenize(texts)
        (vectors,) = self.encoder.encode_tokens(tokens, self._outputs, tell=tell)
        return vectors.astype(self._dtype, copy=False), int(tokens.truncated.sum())

    def answers(self, vectors: np.ndarray) -> dict[str, Answers]:
        """Label column -> what its head says of vectors [n, D], such as rows of the cache."""
        return {
            column: Answers(run.best.kind, run.classes, self._answer(column, vectors))
            for column, run in self.run.columns.items()
        }

    def predict_proba(self, vectors: np.ndarray) -> np.ndarray:
        """Probabilities float64 [n, C] of vectors [n, D], by the first column's head; columns as in ``classes``.

        Raises EmbedcacheError for a regression, which has none.
        """
        if self.run.best.kind == "regression":
            raise EmbedcacheError(f"{self.run.path} holds a regression, which has no probabilities: use predict")
        return self._answer(next(iter(self.run.columns)), vectors)

    def _answer(self, column: str, vectors: np.ndarray) -> np.ndarray:
        """Probabilities float64 [n, C], or the values of a regression, float32 [n, 1]."""
        head = self.run.columns[column].best
        outputs = head.logits(vectors)
        if head.kind == "regression":
            return outputs
        return probabilities(outputs.astype(np.float64), head.kind, self._temperatures[column])


def _temperature(run: Run) -> float:
    """Of the best head; a regression needs none."""
    temperature = run.info.get("best", {}).get("temperature")
    if run.best.kind != "regression" and not temperature:
        raise EmbedcacheError(
            f"{run.path} has no temperature: it was trained without validation rows, or none is best on them; "
            "leave out --calibrated"
        )
    return float(temperature or 1.0)
