"""What may be trained and how: the ways of --train, and one configuration of a sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.settings import list_values
from embedcache.heads.spec import SWEPT, HeadSpec
from embedcache.runs.settings_shown import TUNED

WAYS = "last, top:K, lora, adapter, full, or lora and adapter in the top layers (lora:top:K)"
# What a rate may be without much harm: few weights take more. docs/finetuning.md has the measurements.
RATES = {"tensors": 1e-4, "lora": 1e-3, "adapter": 1e-3, "full": 3e-5}
HEAD_LR, EPOCHS, BATCH, RANK, DROPOUT = 1e-3, 5, 32, 8, 0.1
SCHEDULE, WARMUP = "linear", 0.1


@dataclass(frozen=True)
class Way:
    """What of the encoder is trained. method: "tensors" (the weights themselves), "lora" or "adapter".

    depth: how many layers, from the last one down, fed with cached states; None: all, from the texts.
    """

    text: str
    method: str
    depth: int | None

    @classmethod
    def parse(cls, text: str) -> Way:
        """Raises EmbedcacheError."""
        match = re.fullmatch(r"(?:(lora|adapter)(?::|$))?(?:(last)|top:([1-9]\d{0,3}))?", text)
        if text != "full" and (match is None or not text or text.endswith(":")):
            raise EmbedcacheError(f"--train {text}: use {WAYS}")
        if match is None:
            return cls(text, "tensors", None)
        method, last, deep = match.groups()
        return cls(text, method or "tensors", 1 if last else int(deep) if deep else None)

    @property
    def lr(self) -> float:
        """The default rate of the layers."""
        return RATES["full" if self.text == "full" else self.method]


@dataclass(frozen=True)
class Config:
    """One configuration. spec: what it shares with heads; its lr is that of the layers. width: the rank."""

    way: Way
    pooling: str
    spec: HeadSpec
    head_lr: float = HEAD_LR
    batch_size: int = BATCH
    epochs: int = EPOCHS
    width: int | None = None
    layer_dropout: float = DROPOUT

    def settings(self) -> dict[str, Any]:
        """What a leaderboard has beside the spec; JSON types."""
        return {
            "train": self.way.text,
            "pooling": self.pooling,
            "head_lr": self.head_lr,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "width": self.width,
            "layer_dropout": self.layer_dropout,
        }


def check_values(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Each setting's values as a list, checked; those that are None are left out. Raises EmbedcacheError."""
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        setting = TUNED.get(name) or SWEPT[name]
        found[name] = [setting.values.check(name, one) for one in list_values(setting, value)]
    return found


def make_configs(
    ways: Sequence[Way], poolings: Mapping[Way, Sequence[str]], given: Mapping[str, list[Any]], heads: Mapping[str, Any]
) -> list[Config]:
    """Every combination once, the seed changing fastest.

    poolings: of each way. given: as ``check_values`` has it. heads: by pooling, the HeadSpec from which it starts.
    """
    own = [name for name in TUNED if name in given and name not in ("train", "pooling")]
    shared = [name for name in SWEPT if name in given and name != "lr"]
    configs = []
    for way in ways:
        rates = given.get("lr") or [way.lr]
        names = [name for name in own if name != "width" or way.method != "tensors"]
        axes = [given[name] for name in names] + [rates] + [given[name] for name in shared]
        for pooling, *values in itertools.product(poolings[way], *axes):
            more = dict(zip(names, values, strict=False))
            width = {} if way.method == "tensors" else {"width": more.get("width", RANK)}
            spec = _spec(heads[pooling], dict(zip(["lr", *shared], values[len(names) :], strict=True)))
            configs.append(Config(way, pooling, spec, **{**more, **width}))
    return list(dict.fromkeys(configs))


def _spec(head: HeadSpec, given: Mapping[str, Any]) -> HeadSpec:
    """Shape and dropout of the head are those from which it starts."""
    settings = {"schedule": SCHEDULE, "warmup": WARMUP, **given}
    return HeadSpec(hidden=head.hidden, dropout=head.dropout, **settings)
