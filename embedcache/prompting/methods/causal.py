"""Causal: a causal language model reads a prompt, and the labels compete for what comes next."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.encoder.folder import find_root, model_config, transformer_folder
from embedcache.encoder.kinds import CAUSAL, kind_of
from embedcache.errors import EmbedcacheError
from embedcache.prediction.predicted import Finished
from embedcache.prompting.fitting import Features
from embedcache.prompting.method import AskedPrompt
from embedcache.prompting.prompted import TEXT, Prompted

LABELS, EXAMPLES = "{labels}", "{examples}"
TEMPLATE = f"Which label does the text have?\n{LABELS}\n\n{EXAMPLES}Text: {TEXT}\nLabel:"
TOLERANCE = 1e-3  # of log-probabilities, in float32; above it keys and values are not shared


class Causal(Prompted):
    """The log-probability of a label's name after the prompt, per token of the name.

    Per token, as otherwise a label of three tokens would lose to one of one token whatever the text says.

    Attributes:
        shares: whether keys and values of what prompts have in common are computed once.
    """

    name, what = "causal", "the label that a causal language model finds likeliest after a prompt"
    content_free = ("N/A", "[MASK]", "")

    def __init__(self, asked: AskedPrompt) -> None:
        from embedcache.prompting.language_model import LanguageModel

        template = asked.template_or(TEMPLATE, [TEXT], self.name)
        config = model_config(transformer_folder(find_root(asked.model, asked.trust_remote_code)[0]))
        if kind_of(config) is not CAUSAL:
            raise EmbedcacheError(
                f"{Path(asked.model).name} ({config.get('model_type')}) is {kind_of(config).name}, not a causal model: "
                "use --method similarity or masked"
            )
        longest = asked.max_length or 1024
        lm = LanguageModel("AutoModelForCausalLM", asked.model, asked.device, longest, asked.trust_remote_code)
        super().__init__(asked, template, lm)
        self._chat = lm.tokenizer.chat_template is not None
        self.special = not self._chat  # a chat template has its own
        said = "\n".join(f"- {one.name}" + _described(one.name, one.descriptions) for one in self.labels)
        head, marked, unit = template.rpartition(EXAMPLES)
        self._head, self._unit = (head if marked else "").replace(LABELS, said), unit.replace(LABELS, said)
        self._behind = self._tokens_behind()
        self._answers = self._answer_ids()
        self.shares = self._can_share()
        self.notes.insert(0, f"method {self.name}: {lm.name} continues a prompt, " + (
            "in its chat template" if self._chat else "it has no chat template"))  # fmt: skip

    @classmethod
    def suits(cls, root: Path) -> bool:
        config = model_config(transformer_folder(root))
        named = str((config.get("architectures") or [""])[0])
        return kind_of(config) is CAUSAL and named.endswith(("ForCausalLM", "LMHeadModel"))

    def prompt(self, text: str, before: str) -> str:
        said = f"{self._head}{before}{self._unit.replace(TEXT, text)}"
        if not self._chat:
            return said
        return str(
            self.lm.tokenizer.apply_chat_template(
                [{"role": "user", "content": said}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    def example(self, text: str, label: int) -> str:
        return f"{self._unit.replace(TEXT, text)}{self._gap}{self.labels[label].name}\n\n"

    @property
    def _gap(self) -> str:
        """What stands between prompt and label where the template does not end in it."""
        return "" if self._unit[-1:].isspace() else " "

    def _tokens_behind(self) -> int:
        """How many special tokens the tokenizer puts behind a text, where a label is to come."""
        if not self.special:
            return 0
        plain, whole = (self.lm.tokenize(["a"], special)[0]["input_ids"] for special in (False, True))
        starts = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return len(whole) - len(plain) - next(starts, len(whole) - len(plain))

    def _ids(self, prompt: str) -> list[int]:
        return self._open(self.lm.tokenize([prompt], self.special)[0])

    def _open(self, prompt: Features) -> list[int]:
        """The tokens of a prompt without what the tokenizer puts behind it."""
        return prompt["input_ids"][: len(prompt["input_ids"]) - self._behind]

    def _answer_ids(self) -> list[list[int]]:
        """The tokens of each label, as they stand after a prompt."""
        before = self.prompt("", "")
        start = len(self._ids(before))
        found: list[list[int]] = []
        for label in self.labels:
            said = before + ("" if self._chat else self._gap) + label.name
            answer = self._ids(said)[start:]
            if not answer:
                raise EmbedcacheError(f"label {label.name!r} has no token for {self.lm.name}: name it otherwise")
            if answer in found:
                other = self.labels[found.index(answer)].name
                raise EmbedcacheError(f"labels {other!r} and {label.name!r} are the same tokens to {self.lm.name}")
            found.append(answer)
        return found

    def finish(self, prompts: Sequence[Features], tell: Finished) -> np.ndarray:
        scores = np.empty((len(prompts), len(self._answers)))
        for batch in self.lm.batches(prompts):
            ids = [self._open(prompts[i]) for i in batch.tolist()]
            scores[batch] = self._shared(ids) if self.shares else self._unshared(ids)
            tell(batch)
        return scores

    def _unshared(self, ids: list[list[int]]) -> np.ndarray:
        """float64 [n, labels] by the definition: each prompt with each label, from its first token on."""
        import torch

        scores = np.empty((len(ids), len(self._answers)))
        for label, answer in enumerate(self._answers):
            padded = self.lm.pad([{"input_ids": [*one, *answer]} for one in ids])
            with torch.inference_mode():
                logits = self.lm.model(**padded, use_cache=False).logits
            for row, one in enumerate(ids):
                logs = logits[row, len(one) - 1 : len(one) - 1 + len(answer)].float().log_softmax(-1)
                scores[row, label] = float(logs[torch.arange(len(answer)), torch.tensor(answer)].double().mean())
        return scores

    @cached_property
    def _common(self) -> tuple[list[int], Any]:
        """(the tokens with which prompts begin, their keys and values)."""
        import torch

        some = [self._ids(self.prompt(text, "")) for text in ("a", "1", "?")]
        length = 0
        while length < min(map(len, some)) - 1 and len({one[length] for one in some}) == 1:
            length += 1
        ids = some[0][: max(1, length)]
        with torch.inference_mode():
            found = self.lm.model(input_ids=torch.tensor([ids], device=self.lm.device), use_cache=True)
        return ids, found.past_key_values

    def _head_of(self, ids: list[list[int]]) -> tuple[list[int], Any]:
        """(the tokens with which these prompts begin, a copy of their keys and values)."""
        head, kept = self._common
        length = min(len(head), *(len(one) - 1 for one in ids))
        while length and any(one[:length] != head[:length] for one in ids):
            length -= 1  # the tokenizer joined a text's first letter to what is before it
        cache = copy.deepcopy(kept)
        if 0 < length < len(head):
            cache.crop(length - len(head))
        return head[:length], cache

    def _shared(self, ids: list[list[int]]) -> np.ndarray:
        """The same, but what all prompts begin with is computed once, and each prompt once for all labels."""
        import torch

        head, cache = self._head_of(ids)
        if not head:
            return self._unshared(ids)
        lengths = torch.tensor([len(one) - len(head) for one in ids], device=self.lm.device)
        padded = self.lm.pad([{"input_ids": one[len(head) :]} for one in ids])
        n, width = padded["input_ids"].shape
        cache.batch_repeat_interleave(n)
        mask = torch.cat([padded["attention_mask"].new_ones(n, len(head)), padded["attention_mask"]], dim=1)
        ends = torch.unique(lengths - 1)  # where a prompt ends: the only logits that are wanted
        places = len(head) + torch.arange(width, device=lengths.device)
        last = self._next(padded["input_ids"], mask, places, cache, ends)
        logs = last[torch.arange(n), torch.searchsorted(ends, lengths - 1)].float().log_softmax(-1)  # [n, V]
        scores = np.empty((n, len(self._answers)))
        for label, answer in enumerate(self._answers):
            total = logs[:, answer[0]].double()
            if rest := answer[:-1]:  # the label's own tokens behind the prompt, then the cache as it was
                given = torch.tensor([rest] * n, device=self.lm.device)
                places = len(head) + lengths[:, None] + torch.arange(len(rest), device=lengths.device)
                every = torch.arange(len(rest), device=lengths.device)
                more = self._next(given, torch.cat([mask, torch.ones_like(given)], dim=1), places, cache, every)
                cache.crop(-len(rest))
                found = more.float().log_softmax(-1)[:, torch.arange(len(rest)), torch.tensor(answer[1:])]
                total = total + found.double().sum(dim=1)
            scores[:, label] = (total / len(answer)).cpu().numpy()
        return scores

    def _next(self, ids: Any, mask: Any, places: Any, cache: Any, keep: Any) -> Any:
        """Logits [n, K, V] of some of the tokens behind what the cache holds, int64 [K]."""
        import torch

        where = {"position_ids": places.expand(len(ids), -1)} if self.lm.takes("position_ids") else {}
        fewer = self.lm.takes("logits_to_keep")  # the head's product is then small
        where |= {"logits_to_keep": keep} if fewer else {}
        with torch.inference_mode():
            logits = self.lm.model(
                input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where
            ).logits
        return logits if fewer else logits[:, keep]

    def _can_share(self) -> bool:
        """Whether sharing gives what not sharing gives: tried out, as models with other caches or positions do not."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        texts = ("a", "one text that is a little longer, so that the other is padded")
        ids = [self._ids(self.prompt(text, "")) for text in texts]
        try:
            kept = self._common[1]
            if type(kept) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in kept.layers):
                return False
            difference = np.abs(self._shared(ids) - self._unshared(ids)).max()
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False  # an architecture's own code raises anything
        return bool(difference <= (TOLERANCE if self.lm.device == "cpu" else 50 * TOLERANCE))


def _described(name: str, descriptions: Sequence[str]) -> str:
    return "" if list(descriptions) == [name] else f": {', '.join(descriptions)}"
