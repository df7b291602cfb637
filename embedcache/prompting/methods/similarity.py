"""Similarity: the label whose description has the vector nearest to the text's. Nothing of a cache is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedcache.common.reading import Reading
from embedcache.encoder import Encoder
from embedcache.encoder.folder import model_config, read_modules, transformer_folder
from embedcache.encoder.kinds import ENCODER, STATIC, kind_of
from embedcache.encoder.load_again import OtherEncoderError, encoder_of
from embedcache.errors import EmbedcacheError
from embedcache.extraction.vectors import AskedVectors, choose
from embedcache.index.exact import unit_length
from embedcache.index.file_format import rows_digest
from embedcache.prediction.predicted import CACHE_ROWS, Finished, PredictedRows
from embedcache.prompting.method import AskedPrompt, Method

if TYPE_CHECKING:
    from embedcache.cache import Cache

SCALE = 20.0  # of cosines in the loss that encoders of sentences are trained with: what makes them probabilities


class Similarity(Method):
    """Cosine of a text's vector and those of a label's descriptions, their mean where there are several."""

    name, what = "similarity", "the label whose description has the vector nearest to the text's"
    cache_rows = CACHE_ROWS

    def __init__(self, asked: AskedPrompt) -> None:
        super().__init__(asked)
        self.template, self.model = asked.template_or("{label}", ["{label}"], self.name), asked.model
        self._encoder, self._output = self._of_cache(asked.cache) if asked.cache is not None else self._new()
        self._encoder.width(self._output)
        made = "the vectors in the cache" if asked.cache is not None else "vectors made for it"
        self.notes.append(f"method {self.name}: {self._output[0]} vectors of {Path(self._encoder.source).name}, {made}")

    @classmethod
    def suits(cls, root: Path) -> bool:
        return bool(read_modules(root)) or kind_of(model_config(transformer_folder(root))) is STATIC

    def _of_cache(self, cache: Cache) -> tuple[Encoder, tuple[str, int]]:
        """The cache's own encoder, with its prompt and length."""
        output = self.asked.pooling or cache.preferred(), -1
        cache.embeddings(*output)  # are there, all of them
        if self.asked.max_length is not None:
            raise EmbedcacheError("--max-length is not for the vectors of a cache, which were made with a length")
        if self.asked.encoder is not None:
            return self.asked.encoder, output
        model, own = self.asked.model, str(cache.encoder["source"])
        try:
            encoder = encoder_of(
                cache.encoder, str(cache.path), output[0], model=None if model == own else model, has_option=True,
                device=self.asked.device, trust_remote_code=self.asked.trust_remote_code,
            )  # fmt: skip
        except OtherEncoderError:
            if model == own:
                raise
            raise EmbedcacheError(
                f"--model {model} is not the encoder of {cache.path}, {own}, with whose vectors {self.name} compares "
                "the labels: leave --model out, or give the table in place of the cache, which that model then encodes"
            ) from None
        return encoder, output

    def _new(self) -> tuple[Encoder, tuple[str, int]]:
        """The encoder as extract would load it. Where its folder prescribes no vector, an encoder's is the mean."""
        model, trust = self.asked.model, self.asked.trust_remote_code
        wanted = self.asked.pooling or "auto"
        chosen = choose(model, AskedVectors(wanted, max_length=self.asked.max_length), None, trust)
        pooling = chosen.outputs[0][0]
        encoder = Encoder.load(model, device=self.asked.device, trust_remote_code=trust, **chosen.settings)
        if self.asked.pooling is None and pooling == ENCODER.pooling:
            pooling = "mean"
        return encoder, (pooling, -1)

    def identity(self) -> object:
        return [self._encoder.identity, self._output, self._encoder.device]

    @cached_property
    def directions(self) -> np.ndarray:
        """float32 [labels, D]: the mean of the unit vectors of each label's descriptions."""
        said = [self.template.replace("{label}", one) for label in self.labels for one in label.descriptions]
        vectors = unit_length(self._encoder.encode_texts(said, [self._output])[0])
        ends = np.cumsum([len(label.descriptions) for label in self.labels])[:-1]
        return np.stack([some.mean(axis=0) for some in np.split(vectors, ends)])

    def check(self, cache: Cache) -> None:
        self.directions  # noqa: B018 - a fault of the encoder shows before the first row

    def cache_key(self, cache: Cache) -> str:
        return rows_digest(cache, *self._output, cache.rows)

    def score(
        self, texts: Sequence[str], examples: Sequence[Sequence[tuple[str, int]]] | None, tell: Finished
    ) -> tuple[np.ndarray, Reading]:
        tokens = self._encoder.tokenize(texts)
        (vectors,) = self._encoder.encode_tokens(tokens, [self._output], tell=tell)
        return self._cosines(vectors), self._encoder.reading(texts, tokens)

    def cached(self, cache: Cache, rows: np.ndarray, tell: Finished) -> PredictedRows:
        tell(rows)
        return self._rows(self.scores_of(cache, rows), None)

    def scores_of(self, cache: Cache, rows: np.ndarray) -> np.ndarray:
        """float64 [n, labels] of rows of the cache, whose softmax are the probabilities."""
        return self._cosines(cache.embeddings(*self._output)[rows])

    def _cosines(self, vectors: np.ndarray) -> np.ndarray:
        """float64 [n, labels], times SCALE."""
        return SCALE * (unit_length(vectors).astype(np.float64) @ self.directions.T.astype(np.float64))
