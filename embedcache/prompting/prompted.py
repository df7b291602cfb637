"""What masked and causal share: a template around the text, examples before it, calibration by content-free texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from embedcache.common.reading import Reading
from embedcache.errors import EmbedcacheError
from embedcache.prediction.predicted import Finished
from embedcache.prompting.fitting import Features, fit, shorten
from embedcache.prompting.language_model import LanguageModel
from embedcache.prompting.method import AskedPrompt, Method, softmax

TEXT = "{text}"


class Prompted(Method):
    """A language model that finishes a prompt.

    Attributes:
        lm: the model.
        content_free: texts that say nothing, which are labelled to see what the model prefers anyhow.
    """

    takes_examples = True
    content_free: ClassVar[tuple[str, ...]]
    special = True  # whether the tokenizer adds special tokens to a prompt

    def __init__(self, asked: AskedPrompt, template: str, lm: LanguageModel) -> None:
        super().__init__(asked)
        self.template, self.model, self.lm = template, lm.source, lm
        self.calibrated = asked.calibrate and asked.examples is None
        self._prior: np.ndarray | None = None
        if asked.calibrate and asked.examples is not None:
            self.notes.append("the examples show the labels: probabilities are not calibrated")

    @abstractmethod
    def prompt(self, text: str, before: str) -> str:
        """The whole prompt of a text; before: the examples, "" for none."""

    @abstractmethod
    def example(self, text: str, label: int) -> str:
        """What a finished prompt of an example looks like."""

    @abstractmethod
    def finish(self, prompts: list[Features], tell: Finished) -> np.ndarray:
        """Scores float64 [n, labels] of prompts, not calibrated."""

    def plain(self, text: str) -> str:
        """A text without what would be taken for a part of the prompt."""
        return text

    def identity(self) -> object:
        return self.lm.identity

    def score(
        self, texts: Sequence[str], examples: Sequence[Sequence[tuple[str, int]]] | None, tell: Finished
    ) -> tuple[np.ndarray, Reading]:
        prior = self._content_free_prior() if self.calibrated else 0.0
        before = [""] * len(texts) if examples is None else list(map(self._join, examples))
        prompts, reading = fit(
            self.lm, list(map(self.plain, texts)), lambda i, text: self.prompt(text, before[i]), self.special
        )
        return self.finish(prompts, tell) - prior, reading

    def _content_free_prior(self) -> np.ndarray:
        """float64 [labels]: log of the mean probabilities of the content-free texts."""
        if self._prior is None:
            texts = list(map(self.plain, self.content_free))
            prompts, _ = fit(self.lm, texts, lambda _, text: self.prompt(text, ""), self.special)
            self._prior = np.log(softmax(self.finish(prompts, lambda _: None)).mean(axis=0))
            if not np.isfinite(self._prior).all():
                name = self.labels[int(np.argmin(np.isfinite(self._prior)))].name
                raise EmbedcacheError(
                    f"{self.lm.name} never says what stands for label {name!r}: describe it otherwise"
                )
        return self._prior

    def _join(self, examples: Sequence[tuple[str, int]]) -> str:
        """All examples together take half of the room at most."""
        room = self.lm.max_length // 2 // max(1, len(examples))
        shells = [self.lm.tokenize([self.example("", label)], special=False)[0] for _, label in examples]
        return "".join(
            self.example(shorten(self.lm, self.plain(text), max(0, room - len(shell["input_ids"]))), label)
            for (text, label), shell in zip(examples, shells, strict=True)
        )
