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
        self.calibrated = asked.calibrate
        self._prior: np.ndarray | None = None  # float64 [1, labels], without examples
        if asked.calibrate and asked.examples is not None:
            more = len(self.content_free) + 1
            self.notes.append(f"calibration reads each row's examples {more} times; --no-calibrate reads them once")

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
        before = [""] * len(texts) if examples is None else list(map(self._join, examples))
        prompts, reading = fit(
            self.lm, list(map(self.plain, texts)), lambda i, text: self.prompt(text, before[i]), self.special
        )
        scores = self.finish(prompts, tell)
        return (scores - self._priors(before) if self.calibrated else scores), reading

    def _priors(self, before: Sequence[str]) -> np.ndarray:
        """float64 [n, labels]: log of the mean probabilities of the content-free texts behind each row's examples."""
        number = {one: i for i, one in enumerate(dict.fromkeys(before))}
        if list(number) != [""]:
            return self._content_free(list(number))[[number[one] for one in before]]
        if self._prior is None:
            self._prior = self._content_free([""])
        return self._prior

    def _content_free(self, before: Sequence[str]) -> np.ndarray:
        """float64 [len(before), labels]."""
        texts = list(map(self.plain, self.content_free))
        prompts, _ = fit(
            self.lm, texts * len(before), lambda i, text: self.prompt(text, before[i // len(texts)]), self.special
        )
        chances = softmax(self.finish(prompts, lambda _: None)).reshape(len(before), len(texts), -1).mean(axis=1)
        if not chances.all():
            name = self.labels[int(np.argmin(chances.min(axis=0)))].name
            raise EmbedcacheError(f"{self.lm.name} never says what stands for label {name!r}: use other words")
        return np.log(chances)

    def _join(self, examples: Sequence[tuple[str, int]]) -> str:
        """All examples together take half of the room at most."""
        room = self.lm.max_length // 2 // max(1, len(examples))
        shells = [self.lm.tokenize([self.example("", label)], special=False)[0] for _, label in examples]
        return "".join(
            self.example(shorten(self.lm, self.plain(text), max(0, room - len(shell["input_ids"]))), label)
            for (text, label), shell in zip(examples, shells, strict=True)
        )
