"""Label texts with the best heads of a run: the run's own encoder, checked by content, then each column's head."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache.fingerprint import differences, for_pooling
from embedcache.cache.side_by_side import holds, width_of
from embedcache.common.encoder_schema import imported_name
from embedcache.common.int8_rows import as_stored
from embedcache.common.reading import Reading
from embedcache.common.texts import as_texts
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import to_numpy
from embedcache.heads.kinds import kind_of
from embedcache.prediction.explain import Occlusion, Parts, TrainingRows, explain, find_training_rows
from embedcache.prediction.predictions import ColumnOutputs, Prediction, Predictions
from embedcache.prediction.rule import Reject, Threshold, make_rules
from embedcache.runs.calibration import probabilities
from embedcache.runs.folder import Run, load_run, require_keys
from embedcache.runs.wording import temperature_note

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.encoder import Encoder

EXPLAINED = 64  # texts whose variants are encoded together
NO_WORDS = "vectors alone have no words to explain a label by: give the texts"

__all__ = ["Classifier", "ColumnOutputs", "Prediction", "Predictions"]


class Classifier:
    """A frozen encoder and a trained head, or one for each label column. Make one with Classifier.load.

    It may be pickled, and so given to joblib or to another process: what is kept is where run and encoder are, and a
    digest of the run; both are loaded again, and another run at that place is refused. A deep copy shares the encoder,
    which nothing changes.

    Attributes:
        encoder: None where it was loaded to label vectors alone.
        digest: of the run's content.
    """

    def __init__(
        self,
        run: Run,
        encoder: Encoder | None,
        calibrated: bool = False,
        threshold: Threshold = None,
        reject: Reject = None,
        sure: float | None = None,
    ) -> None:
        self.run, self.encoder = run, encoder
        self.calibrated = calibrated or reject is not None or sure is not None
        self._again: dict[str, Any] = {"device": encoder.device} if encoder is not None else {}
        self.digest = _content(run)
        self.threshold, self.reject, self.sure = threshold, reject, sure
        self._temperatures = {
            column: _temperature(one, calibrated) if self.calibrated else 1.0 for column, one in run.columns.items()
        }
        self.rules = make_rules(run, threshold, reject, self._temperatures, sure)
        self.classes = run.classes
        self._outputs = [(run.info["pooling"], run.info["layer"])]
        self._dtype = str(run.info["dtype"])
        self._training: TrainingRows | str | None = None

    @property
    def notes(self) -> list[str]:
        """What to know of its labels and probabilities, by label column: thresholds, which rows are refused, and where
        calibration makes the probabilities of the test rows worse."""
        found: list[tuple[str, str]] = []
        for name, one in self.run.columns.items():
            worse = temperature_note((one.info.get("evaluation") or {}).get("test")) if self.calibrated else None
            said = [*self.rules[name].notes(one.classes), *([worse] if worse else [])]
            found += [(name, line) for line in said]
        return [f"column {name!r}: {line}" if len(self.run.columns) > 1 else line for name, line in found]

    def __repr__(self) -> str:
        return f"Classifier({self.run!r}, encoder {Path(self.run.info['encoder']['source']).name!r})"

    def _repr_html_(self) -> str:
        return self.run._repr_html_()

    def __reduce__(self) -> tuple[Any, ...]:
        path, source = str(self.run.path.absolute()), None if self.encoder is None else self.encoder.source
        return _load_again, (
            type(self),
            path,
            self.digest,
            {
                "calibrated": self.calibrated and self.reject is None and self.sure is None,
                "threshold": self.threshold,
                "reject": self.reject,
                "sure": self.sure,
                "model": source,
                "encode": self.encoder is not None,
                **self._again,
            },
        )

    def __copy__(self) -> Classifier:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Classifier:
        new = self.__copy__()
        memo[id(self)] = new
        new.run = copy.deepcopy(self.run, memo)
        return new

    @classmethod
    def load(
        cls,
        run: str | Path,
        device: str = "auto",
        *,
        model: str | Path | None = None,
        trust_remote_code: bool = False,
        calibrated: bool = False,
        threshold: Threshold = None,
        reject: Reject = None,
        sure: float | None = None,
        encode: bool | None = None,
    ) -> Classifier:
        """Load a run directory and the encoder that its cache was made with.

        Args:
            run: The run folder.
            device: "auto", "cpu", "cuda" or "cuda:N".
            model: The encoder's folder or name, if it is no longer where the cache found it.
            trust_remote_code: Whether to run Python code that comes with the model.
            calibrated: Divide the logits by the temperature that was fitted on the validation rows. It changes
                probabilities, never a label.
            threshold: From which probability on the second of two classes is predicted, or each of several labels;
                "tuned" takes what the validation rows chose. None is one half.
            reject: Give no label to rows whose probability is below this, nor to rows unlike the training rows; "auto"
                takes the probability that halves the errors of the validation rows. Probabilities are calibrated
                then, where a temperature is known. ``notes`` says what to expect.
            sure: Of a run with a hierarchy: answer with the deepest node that is at least so probable, calibrated as
                for ``reject``. None answers with a class.
            encode: False loads no encoder; then only vectors can be labelled, such as those of a cache. None does so
                where the run's vectors were imported, and no encoder is known; True refuses such a run.

        Raises:
            EmbedcacheError: The run is incomplete, damaged or has no temperature; the encoder is missing, or another
                one is there.
        """
        from embedcache.encoder.hardware import resolve_device
        from embedcache.encoder.load_again import encoder_of

        loaded, asked = load_run(run), device
        require_keys(loaded, "encoder", "pooling", "layer", "dtype")
        device = resolve_device(device)  # here, where no --model would help
        classifier = cls(loaded, None, calibrated, threshold, reject, sure)  # refused before its encoder is loaded
        pooling, known = loaded.info["pooling"], loaded.info["encoder"]
        if encode is None:
            encode = model is not None or imported_name(known) is None
        if not encode:
            return classifier
        options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
        classifier.encoder = encoder_of(known, str(run), pooling, model=model, has_option=True, **options)
        classifier._again = {"device": asked, "trust_remote_code": trust_remote_code}
        return classifier

    def predict(
        self,
        texts: Any = None,
        *,
        vectors: Any = None,
        text: str | None = None,
        explain: bool = False,
        explain_words: int | None = None,
    ) -> Predictions:
        """Label each text, or each vector, with the best heads.

        Long texts are truncated to the encoder's max_length, as in extract.

        Args:
            texts: One text or several: a list, a column of pandas, polars or Arrow, an array; or a table whose column
                ``text`` names. A two-dimensional array is taken as ``vectors``.
            vectors: Numbers [n, D] instead of texts, such as rows of the cache: ``cache.embeddings("cls")[:5]``.
            text: The column of texts, if ``texts`` is a table.
            explain: Say why: the words that carry each label and, where the run's cache is still there, the training
                rows that speak for and against it.
            explain_words: Explain by this many words of each text, those whose own vectors carry most of its label,
                which is faster; None tries all.

        Raises:
            EmbedcacheError: A table without the name of a column; a missing text or something other than a text, with
                its place; vectors of another width, or that are not finite; an explanation of vectors alone; fewer
                words than 1, or words of a run whose vectors are not means.
        """
        from embedcache.prediction.own_vectors import encode_and_choose  # it loads what only this needs

        if explain_words is None:
            known, vectors = self._read(texts, vectors, text)
            parts = None
        else:
            explain, known = True, None if texts is None or _are_vectors(texts) else as_texts(texts, text)
            if known is None or vectors is not None:
                raise EmbedcacheError(NO_WORDS)
            vectors, _, parts = encode_and_choose(self, known, explain_words)
        answers = self.answers(vectors)
        if explain:
            if known is None:
                raise EmbedcacheError(NO_WORDS)
            answers = self.explain(known, vectors, answers, parts)
        return Predictions(known, answers)

    def explain(
        self,
        texts: Sequence[str],
        vectors: np.ndarray,
        answers: dict[str, ColumnOutputs],
        parts: Sequence[Parts] | None = None,
    ) -> dict[str, ColumnOutputs]:
        """The same answers on texts with the vectors [n, D], with explanations; parts: those to delete, None: all."""
        found: list[dict[str, ColumnOutputs]] = []
        for start in range(0, len(texts), EXPLAINED):
            some = slice(start, start + EXPLAINED)
            occlusion = Occlusion(texts[some], None if parts is None else parts[some])
            occluded = self.outputs(self.encode(occlusion.variants))
            part = {column: one.part(some) for column, one in answers.items()}
            found.append(explain(part, occlusion, occluded, vectors[some], self.training_rows))
        whole = {column: [one for part in found for one in part[column].explained or ()] for column in answers}
        return {column: replace(one, explained=whole[column]) for column, one in answers.items()}

    @property
    def training_rows(self) -> TrainingRows | None:
        """The rows that the run learned from; None where its cache is gone or changed, see ``no_neighbours``."""
        if self._training is None:
            self._training = find_training_rows(self.run)
        return self._training if isinstance(self._training, TrainingRows) else None

    @property
    def no_neighbours(self) -> str:
        """Why explanations name no training rows; "" where they do."""
        return "" if self.training_rows is not None else str(self._training)

    def predict_proba(
        self, texts: Any = None, *, vectors: Any = None, text: str | None = None, column: str | None = None
    ) -> np.ndarray:
        """Probabilities float64 [n, C] of texts or vectors; the columns are in the order of ``classes``.

        Args:
            texts: As in ``predict``.
            vectors: As in ``predict``.
            text: As in ``predict``.
            column: The label column, if the run has several; None is the first, to which ``classes`` belongs.

        Raises:
            EmbedcacheError: The run is a regression, which has no probabilities; see also ``predict``.
        """
        names = list(self.run.columns)
        column = names[0] if column is None else column
        if column not in names:
            raise EmbedcacheError(f"{self.run.path} has no label column {column!r}; it has {', '.join(names)}")
        if not kind_of(self.run.columns[column].best.kind).has_classes:
            raise EmbedcacheError(f"{self.run.path} holds a regression, which has no probabilities: use predict")
        return self._answer(column, self._read(texts, vectors, text)[1])

    def label(self, texts: Sequence[str], vectors: np.ndarray) -> Predictions:
        """The label of each text of which the vectors [n, D] are known, such as rows of the cache."""
        return Predictions(texts, self.answers(vectors))

    def _read(self, texts: Any, vectors: Any, column: str | None) -> tuple[list[str] | None, np.ndarray]:
        """(texts or None, vectors [n, D])."""
        if (texts is None) == (vectors is None):
            raise EmbedcacheError("give texts, or vectors=X [n, D]: one of the two")
        if vectors is None and not _are_vectors(texts):
            known = as_texts(texts, column)
            return known, self.encode(known)
        found = to_numpy(texts if vectors is None else vectors)
        head = self.run.best
        if found.ndim != 2 or found.shape[1] != head.dim or found.dtype.kind not in "fiu":
            shape = f"{found.dtype} {list(found.shape)}"
            raise EmbedcacheError(f"vectors must be numbers [n, {head.dim}], such as this run's cache has, not {shape}")
        wrong = ~np.isfinite(found).all(axis=1)
        if wrong.any():
            raise EmbedcacheError(f"vector {int(wrong.argmax())} holds NaN or infinity: leave it out")
        return None, found

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors [n, D] of texts, of the pooling, layer and dtype of the cache that the head was trained on."""
        return self.encode_counted(texts)[0]

    def encode_counted(
        self, texts: Sequence[str], tell: Callable[[np.ndarray], None] | None = None
    ) -> tuple[np.ndarray, Reading]:
        """(vectors [n, D], what the encoder reads of the texts); tell gets the rows that each batch finished."""
        encoder = self.loaded_encoder()
        tokens = encoder.tokenize(texts)
        (vectors,) = encoder.encode_tokens(tokens, self._outputs, tell=tell)
        return self.stored(vectors), encoder.reading(texts, tokens)

    def stored(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors as the cache that the heads were trained on keeps them."""
        return as_stored(vectors, self._dtype)

    def loaded_encoder(self) -> Encoder:
        """The encoder. Raises EmbedcacheError where there is none."""
        if self.encoder is None:
            from embedcache.encoder.load_again import refuse_imported

            refuse_imported(self.run.info["encoder"], str(self.run.path))
            raise EmbedcacheError(f"the classifier of {self.run.path} was loaded without its encoder: load it again")
        return self.encoder

    def answers(self, vectors: np.ndarray) -> dict[str, ColumnOutputs]:
        """Label column -> what its head says of vectors [n, D], such as rows of the cache."""
        found = {}
        for column, outputs in self.outputs(vectors).items():
            run, rule = self.run.columns[column], self.rules[column]
            found[column] = ColumnOutputs(run.best.kind, run.classes, outputs, rule, rule.reasons(outputs, vectors))
        return found

    def outputs(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Label column -> probabilities or values of vectors [n, D], see ``ColumnOutputs``; no rule is asked."""
        return {column: self._answer(column, vectors) for column in self.run.columns}

    def _answer(self, column: str, vectors: np.ndarray) -> np.ndarray:
        """Probabilities float64 [n, C], or the values of a regression, float32 [n, 1]."""
        head = self.run.columns[column].best
        outputs = head.logits(vectors)
        if not np.isfinite(outputs).all():
            row = int(np.argmin(np.isfinite(outputs).all(axis=1)))
            raise EmbedcacheError(
                f"{self.run.path} cannot label text {row + 1}: its vector is not finite, or the weights of the "
                "head are far too large; train it again"
            )
        if not kind_of(head.kind).has_classes:
            return outputs
        return probabilities(outputs.astype(np.float64), head.kind, self._temperatures[column])


def check_same_encoder(run: Run, cache: Cache) -> None:
    """Raises EmbedcacheError where a cache's vectors are not of the encoder that the run was trained on."""
    for one in run.columns.values():
        pooling, layer = one.info["pooling"], one.info["layer"]
        about = for_pooling({**one.info["encoder"], "store": cache.encoder["store"]}, pooling)
        if "tuned" in one.info and one.info["encoder"]["identity"] != cache.encoder["identity"]:
            raise EmbedcacheError(
                f"{run.path} is a tuned run, which reads the vectors of its own encoder, not those of {cache.path}: "
                f"give it texts, or a cache made with extract --model {run.path} --dtype float32"
            )
        if differs := differences(for_pooling(cache.encoder, pooling), about):
            raise EmbedcacheError(
                f"{run.path} was trained on vectors of another encoder than that of {cache.path} ({differs}): use the "
                "cache that it was trained on, or one of the same encoder"
            )
        if holds(cache, pooling, layer) and one.info["dim"] != (width := width_of(cache, pooling, layer)):
            raise EmbedcacheError(f"{run.path} reads vectors {one.info['dim']} wide, {cache.path} has {width}")


def _temperature(run: Run, required: bool) -> float:
    """The temperature of the best head; 1 where there is none and none is required. A regression needs none."""
    temperature = run.info.get("best", {}).get("temperature")
    if required and kind_of(run.best.kind).has_classes and not temperature:
        raise EmbedcacheError(
            f"{run.path} has no temperature: it was trained without validation rows, or no temperature fits them; "
            "leave out --calibrated"
        )
    return float(temperature or 1.0)


def _are_vectors(texts: Any) -> bool:
    return getattr(texts, "ndim", 0) == 2 and hasattr(texts, "dtype")


def _content(run: Run) -> str:
    """SHA-256 of what run.json says of every column, the checksums of its files among it."""
    said = {column: one.info for column, one in run.columns.items()}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _load_again(kind: type[Classifier], run: str, digest: str, options: dict[str, Any]) -> Classifier:
    """What a pickle of a classifier is: the run at its place, if it is the same still."""
    if _content(load_run(run)) != digest:
        raise EmbedcacheError(
            f"the run at {run} has been trained again since this classifier was loaded; load it with Classifier.load"
        )
    return kind.load(run, **options)
