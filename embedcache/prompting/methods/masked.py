"""Masked: a masked language model reads a template with a gap, and the words for the labels compete for it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from embedcache.encoder.folder import model_config, transformer_folder
from embedcache.errors import EmbedcacheError
from embedcache.prediction.predicted import Finished
from embedcache.prompting.fitting import Features
from embedcache.prompting.method import AskedPrompt
from embedcache.prompting.prompted import TEXT, Prompted

MASK = "[MASK]"


class Masked(Prompted):
    """The probability of a label's word in the gap; of several words of one label their mean.

    Only words that are one token can fill one gap; others are refused by name.
    """

    name, what = "masked", "the label whose word a masked language model puts into a template"
    content_free = ("N/A", "")  # the paper's third, "[MASK]", would be a second gap

    def __init__(self, asked: AskedPrompt) -> None:
        from embedcache.prompting.language_model import LanguageModel

        template = asked.template_or(f"{TEXT} It was {MASK}.", [TEXT, MASK], self.name)
        longest = asked.max_length or 512
        lm = LanguageModel("AutoModelForMaskedLM", asked.model, asked.device, longest, asked.trust_remote_code)
        if lm.tokenizer.mask_token is None:
            raise EmbedcacheError(f"{lm.name}: its tokenizer has no mask token, which masked needs: use another model")
        super().__init__(asked, template, lm)
        self._before, self._after = template.replace(MASK, lm.tokenizer.mask_token).split(TEXT)
        self._words = self._word_ids()
        self.notes.insert(0, f"method {self.name}: {lm.name} fills {template!r}")

    @classmethod
    def suits(cls, root: Path) -> bool:
        named = model_config(transformer_folder(root)).get("architectures") or [""]
        return str(named[0]).endswith(("ForMaskedLM", "ForPreTraining"))

    def plain(self, text: str) -> str:
        return text.replace(self.lm.tokenizer.mask_token, " ")

    def prompt(self, text: str, before: str) -> str:
        return f"{before}{self._before}{text}{self._after}"

    def example(self, text: str, label: int) -> str:
        return self.prompt(text, "").replace(self.lm.tokenizer.mask_token, self.labels[label].descriptions[0]) + " "

    def _word_ids(self) -> list[list[int]]:
        """The token of each word of each label, as it stands in the gap."""
        gap = self.prompt("", "")
        ids = self.lm.tokenize([gap])[0]["input_ids"]
        place = ids.index(self.lm.tokenizer.mask_token_id)
        found: list[list[int]] = []
        for label in self.labels:
            found.append([])
            for word in label.descriptions:
                filled = self.lm.tokenize([gap.replace(self.lm.tokenizer.mask_token, word)])[0]["input_ids"]
                if [*filled[:place], *filled[place + 1 :]] != [*ids[:place], *ids[place + 1 :]]:
                    pieces = self.lm.tokenizer.convert_ids_to_tokens(filled[place : place + len(filled) - len(ids) + 1])
                    raise EmbedcacheError(
                        f"label {label.name!r}: {self.lm.name} splits {word!r} ({' '.join(pieces)}), and the gap holds "
                        f"one token: describe the label by whole words, '{label.name}: good | great'"
                    )
                if filled[place] == self.lm.tokenizer.unk_token_id:
                    raise EmbedcacheError(
                        f"label {label.name!r}: {self.lm.name} does not know {word!r}: use other words"
                    )
                if any(filled[place] in ids for ids in found):
                    raise EmbedcacheError(f"two words are one token to {self.lm.name}, {word!r} the second: change one")
                found[-1].append(filled[place])
        return found

    def finish(self, prompts: Sequence[Features], tell: Finished) -> np.ndarray:
        import torch

        ends = np.cumsum([0, *map(len, self._words)])
        flat = torch.tensor([word for words in self._words for word in words], device=self.lm.device)
        scores = np.empty((len(prompts), len(self._words)))
        for batch in self.lm.batches(prompts):
            padded = self.lm.pad([prompts[i] for i in batch.tolist()])
            places = (padded["input_ids"] == self.lm.tokenizer.mask_token_id).int().argmax(dim=1)
            with torch.inference_mode():
                logits = self.lm.model(**padded).logits  # [b, L, V]
            logs = logits[torch.arange(len(batch)), places].float().log_softmax(-1)[:, flat].double().cpu().numpy()
            for label, (start, end) in enumerate(pairwise(ends)):
                scores[batch, label] = np.logaddexp.reduce(logs[:, start:end], axis=1) - np.log(end - start)
            tell(batch)
        return scores
