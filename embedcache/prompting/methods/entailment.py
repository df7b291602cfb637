"""Entailment: a model of natural language inference says how well each label's hypothesis follows from the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.reading import Reading, most_unknown, read_of
from embedcache.encoder.folder import find_folder, model_config, transformer_folder
from embedcache.errors import EmbedcacheError
from embedcache.prediction.predicted import Finished
from embedcache.prompting.method import AskedPrompt, Method

NEEDS = "needs a model of natural language inference, with an output called entailment"


class Entailment(Method):
    """The logit of entailment of a label's hypothesis; of several descriptions of one label the mean.

    The softmax over the labels is that of transformers' pipeline "zero-shot-classification".
    """

    name, what = "entailment", "the label whose hypothesis the text entails, by a model of natural language inference"

    def __init__(self, asked: AskedPrompt) -> None:
        from embedcache.prompting.language_model import LanguageModel

        template = asked.template_or("This example is {label}.", ["{label}"], self.name)
        longest, kind = asked.max_length or 512, "AutoModelForSequenceClassification"
        config = model_config(find_folder(asked.model, asked.trust_remote_code)[0])
        output = _entailment(config)
        if output is None:
            names = ", ".join(map(str, _names(config).values())) or "none"
            raise EmbedcacheError(f"{Path(asked.model).name} names its outputs {names}: entailment {NEEDS}")
        self.lm = LanguageModel(kind, asked.model, asked.device, longest, asked.trust_remote_code)
        self._output = output
        super().__init__(asked)
        self.template, self.model = template, self.lm.source
        self.hypotheses = [[template.replace("{label}", one) for one in label.descriptions] for label in self.labels]
        self._check_room()
        self.notes.append(f"method {self.name}: {self.lm.name} compares each text with {template!r}")

    @classmethod
    def suits(cls, root: Path) -> bool:
        return _entailment(model_config(transformer_folder(root))) is not None

    def identity(self) -> object:
        return self.lm.identity

    def _check_room(self) -> None:
        every = [one for some in self.hypotheses for one in some]
        longest = max(len(ids) for ids in self.lm.tokenizer(["a"] * len(every), every, verbose=False)["input_ids"])
        if longest > self.lm.max_length:
            raise EmbedcacheError(
                f"a hypothesis has {longest} tokens, and {self.lm.name} reads {self.lm.max_length}: shorten it"
            )

    def score(
        self, texts: Sequence[str], examples: Sequence[Sequence[tuple[str, int]]] | None, tell: Finished
    ) -> tuple[np.ndarray, Reading]:
        tokenizer, limit = self.lm.tokenizer, self.lm.max_length
        every = [one for some in self.hypotheses for one in some]
        ends = np.cumsum([len(some) for some in self.hypotheses])[:-1]
        logits = np.empty((len(texts), len(every)))
        whole = np.zeros((len(texts), 2), np.int64)
        for number, hypothesis in enumerate(every):
            pairs: Any = tokenizer(
                list(texts), [hypothesis] * len(texts), truncation="only_first", max_length=limit, verbose=False
            )
            features = [{name: values[i] for name, values in pairs.items()} for i in range(len(texts))]
            if number == 0:
                whole = self._count(texts, hypothesis, features)
            self._run(features, logits[:, number], tell if number == len(every) - 1 else _nobody)
        scores = np.stack([some.mean(axis=1) for some in np.split(logits, ends, axis=1)], axis=1)
        some = (texts[i] for i in most_unknown(whole).tolist())
        return scores, read_of(whole, int((whole[:, 0] > limit).sum()), limit, texts=some)

    def _count(self, texts: Sequence[str], hypothesis: str, features: list[dict[str, list[int]]]) -> np.ndarray:
        """int64 [n, 2]: tokens of each whole pair, and unknown ones among those read."""
        unknown = self.lm.tokenizer.unk_token_id
        lengths = [len(one["input_ids"]) for one in features]
        for i in [i for i, length in enumerate(lengths) if length >= self.lm.max_length]:
            lengths[i] = len(self.lm.tokenizer(texts[i], hypothesis, verbose=False)["input_ids"])
        return np.array([lengths, [one["input_ids"].count(unknown) for one in features]], np.int64).T

    def _run(self, features: list[dict[str, list[int]]], logits: np.ndarray, tell: Finished) -> None:
        """Fill logits [n] of one hypothesis."""
        import torch

        for batch in self.lm.batches(features):
            padded = self.lm.pad([features[i] for i in batch.tolist()])
            with torch.inference_mode():
                found = self.lm.model(**padded).logits[:, self._output]
            logits[batch] = found.double().cpu().numpy()
            tell(batch)


def _nobody(rows: np.ndarray) -> None:
    """A row is done when all its hypotheses are."""


def _names(config: dict[str, Any]) -> dict[int, str]:
    named = config.get("id2label")
    return {int(key): str(name) for key, name in named.items()} if isinstance(named, dict) else {}


def _entailment(config: dict[str, Any]) -> int | None:
    """Which output is entailment; None where none is called so."""
    return next((i for i, name in _names(config).items() if name.lower().startswith("entail")), None)
