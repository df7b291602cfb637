"""The rungs by name: what each one trains, and what it needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from embedcache.errors import EmbedcacheError
from embedcache.finetune.config import WAYS, Way

DEFAULT = ("tfidf", "zero-shot", "head", "last", "top:2", "lora", "full")
MAJORITY, TFIDF, ZERO_SHOT, HEAD = "majority", "tfidf", "zero-shot", "head"


@dataclass(frozen=True)
class Rung:
    """One rung.

    Attributes:
        name: as in --rungs.
        trained: what it trains, in words.
        way: of finetune; None for those that train no layer of the encoder.
    """

    name: str
    trained: str
    way: Way | None = None

    @property
    def shared(self) -> bool:
        """Whether it reads no vectors, so that it is the same for every encoder."""
        return self.name in (MAJORITY, TFIDF)

    @property
    def seeded(self) -> bool:
        """Whether a seed changes what it learns."""
        return self.name == HEAD or self.way is not None

    @property
    def place(self) -> str:
        """Its name as the name of a file."""
        return self.name.replace(":", "-")

    @property
    def depth(self) -> int:
        """Layers whose token states it reads; 0 for none."""
        return 0 if self.way is None else self.way.depth or 0

    def lacking(self) -> str | None:
        """Why it cannot run in this installation, or None."""
        if self.way is not None and self.way.method == "lora" and importlib.util.find_spec("peft") is None:
            return 'it needs peft: pip install "embedcache[peft]"'
        return None


def read_rungs(names: Sequence[str]) -> list[Rung]:
    """The rungs in the order in which they were named, the majority class below them all.

    Raises:
        EmbedcacheError: a name is not one.
    """
    return [read_rung(name) for name in dict.fromkeys([MAJORITY, *names])]


def read_rung(name: str) -> Rung:
    """The rung of that name. Raises EmbedcacheError."""
    known = {
        MAJORITY: "nothing",
        TFIDF: "a linear model on words",
        ZERO_SHOT: "nothing: the labels' descriptions",
        HEAD: "a head on frozen vectors",
    }
    if name in known:
        return Rung(name, known[name])
    try:
        way = Way.parse(name)
    except EmbedcacheError:
        raise EmbedcacheError(f"--rungs {name}: use {', '.join(known)}, {WAYS}") from None
    return Rung(name, _words(way), way)


def _words(way: Way) -> str:
    which = {None: "all layers", 1: "the last layer"}.get(way.depth, f"the last {way.depth} layers")
    beside = {"lora": "LoRA beside ", "adapter": "adapters in "}.get(way.method, "")
    return f"{beside}{which} and the head"
