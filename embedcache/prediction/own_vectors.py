"""Which words of a text to delete where not all are tried: those whose own vectors carry most of its label.

A text's vector is the mean of its tokens' vectors. Without a word's tokens in that mean, and nothing encoded again,
the label loses what these tokens bring in themselves, but not what the word does to the vectors of the others. So this
finds most words that carry a label, not all; docs/trust.md says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedcache.common.outputs import parts_of as outputs_of
from embedcache.common.reading import Reading
from embedcache.encoder.poolings import MODEL
from embedcache.encoder.token_rows import TokenRows
from embedcache.encoder.token_vectors import KeepStates
from embedcache.errors import EmbedcacheError
from embedcache.prediction.explain import Parts, explained_outputs, parts_of, without

if TYPE_CHECKING:
    from embedcache.encoder.encoder import Encoder
    from embedcache.encoder.tokenizer import Tokens
    from embedcache.prediction.classifier import Classifier


def encode_and_choose(
    classifier: Classifier, texts: Sequence[str], words: int, tell: Callable[[np.ndarray], None] | None = None
) -> tuple[np.ndarray, Reading, list[Parts]]:
    """As ``Classifier.encode_counted``, and of each text the parts that an explanation by so many words deletes.

    Raises:
        EmbedcacheError: fewer words than 1; the run's vectors are not means of tokens' vectors.
    """
    if words < 1:
        raise EmbedcacheError(f"an explanation by {words} words says nothing: give 1 or more")
    encoder, info = classifier.loaded_encoder(), classifier.run.info
    tokens = encoder.tokenize(texts)
    own = OwnVectors(classifier, encoder, texts, tokens, words)
    output = [(info["pooling"], info["layer"])]
    (vectors,) = encoder.encode_tokens(tokens, output, tell=tell, states=own.states)
    return classifier.stored(vectors), encoder.reading(texts, tokens), own.parts


def chosen_words(words: int) -> str:
    """What to know of explanations by so many words."""
    return (
        f"of each text {words} word{'' if words == 1 else 's'} at most were tried, by what their own vectors bring to "
        "its label: others may matter more, which --explain alone would find"
    )


def removed_tokens(row: np.ndarray, less: np.ndarray) -> tuple[int, int]:
    """Where in a text's tokens those of a deleted part begin and end.

    Args:
        row: int [L], the tokens of the text.
        less: int [l], those without the part. Of a text that was cut off it has some that the row has not.
    """
    common = min(len(row), len(less))
    differ = np.flatnonzero(row[:common] != less[:common])
    begin = int(differ[0]) if len(differ) else common
    for end in range(begin, len(row)):
        rest = row[end:-1]  # the last may stand for the end of the text, wherever that is
        if np.array_equal(rest, less[begin : begin + len(rest)]):
            return begin, end
    return begin, len(row)


class OwnVectors:
    """Chooses the parts of each text to delete, while the texts are encoded.

    Attributes:
        states: to give to ``Encoder.encode_tokens``.
        parts: of each text the chosen parts, in their order, once it has been encoded.
    """

    def __init__(
        self, classifier: Classifier, encoder: Encoder, texts: Sequence[str], tokens: Tokens, tried: int
    ) -> None:
        """Prepare for some texts; tried: the most parts of each.

        Raises:
            EmbedcacheError: the run's vectors are not means of tokens' vectors.
        """
        self._classifier, self._encoder, self._tokens, self._tried = classifier, encoder, tokens, tried
        layer, self._model = _mean_of(classifier, encoder)
        self.states = KeepStates(layer, self._keep)
        self.parts = [parts_of(text) for text in texts]
        self._texts = texts

    def _keep(self, batch: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> None:
        """Choose the parts of a batch's texts; each text by itself, so that its batch changes nothing."""
        many = [(place, i) for place, i in enumerate(batch.tolist()) if len(self.parts[i]) > self._tried]
        if not many:
            return
        every = [without(self._texts[i], part) for _, i in many for part in self.parts[i]]
        rows, start = self._encoder.tokenize(every).rows, 0
        for place, i in many:
            variants = rows[start : start + len(self.parts[i])]
            start += len(self.parts[i])
            states = values[offsets[place] : offsets[place + 1]]
            effects = self._effects(states, np.array(self._tokens.rows[i]), variants)
            chosen = np.sort(np.argsort(-effects, kind="stable")[: self._tried])
            self.parts[i] = [self.parts[i][k] for k in chosen.tolist()]

    def _effects(self, states: np.ndarray, row: np.ndarray, variants: TokenRows) -> np.ndarray:
        """What the label loses without the tokens of each part [parts]; of several columns the most.

        Args:
            states: float32 [L, D], the vectors of the text's tokens.
            row: int [L], these tokens.
            variants: of each part, the tokens without it.
        """
        kept = np.ones((len(variants) + 1, len(row)), np.float32)
        for k in range(len(variants)):
            begin, end = removed_tokens(row, np.array(variants[k]))
            if end - begin < len(row):
                kept[k + 1, begin:end] = 0
        means = kept @ states / kept.sum(axis=1, keepdims=True)
        pooled = self._encoder.prescribed([means]) if self._model and self._encoder.prescribed else means
        vectors = self._classifier.stored(pooled)
        outputs, lost = self._classifier.outputs(vectors), []
        for column, answer in self._classifier.answers(vectors[:1]).items():
            (c,) = explained_outputs(answer)
            lost.append(outputs[column][0, c] - outputs[column][1:, c])
        return np.asarray(np.max(lost, axis=0))


def _mean_of(classifier: Classifier, encoder: Encoder) -> tuple[int, bool]:
    """(the layer whose tokens' mean the run reads, counted from 0; whether the model's further steps follow).

    Raises:
        EmbedcacheError: it reads something else.
    """
    info = classifier.run.info
    (pooling, layer), *more = outputs_of(info["pooling"], info["layer"])
    names = encoder.prescribed.pooling if pooling == MODEL and encoder.prescribed else (pooling,)
    if more or tuple(names) != ("mean",) or encoder.chunk or encoder.kernel == "static":
        raise EmbedcacheError(
            f"{classifier.run.path}: words can only be chosen by their own vectors where a text's vector is the mean "
            f"of its tokens' ({info['pooling']} is not, or it is of chunks or a static model): use --explain alone"
        )
    return encoder.layer_number(layer), pooling == MODEL
