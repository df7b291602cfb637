"""What all configurations share: the encoder, the cached states, the tokens; and a fresh trainee for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedcache.common.machine import check_memory, memory_free
from embedcache.encoder.tokenizer import Tokens
from embedcache.errors import EmbedcacheError
from embedcache.finetune.beside import add_adapters, add_lora
from embedcache.finetune.config import Config, Way
from embedcache.finetune.inputs import Inputs, States, TokenIds
from embedcache.finetune.lift import lift
from embedcache.finetune.top import Top, WholeModel, check_top, first_alone, set_dropout
from embedcache.finetune.trainee import Trainee
from embedcache.heads.head import TrainedHead

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.encoder import Encoder

CHECKED = 4  # rows on which the top is compared with the whole model
STATE = 16  # bytes of a trained number: gradient, two moments, the best epoch's
SPARE = 0.8  # of what is free


@dataclass
class Bench:
    """Made once.

    stored: the cache's token states, or None where nothing is trained from them. accumulate: parts of a step.
    """

    cache: Cache
    encoder: Encoder
    stored: Any
    device: str
    checkpointing: bool = False
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    accumulate: int = 1
    _checked: set[tuple[int, bool]] = field(default_factory=set)
    _lifted: dict[int, Inputs] = field(default_factory=dict)

    def trainee(self, config: Config, start: TrainedHead, check: bool = True) -> Trainee:
        """A new one: the encoder's weights, the start's head. check: whether there is memory to train it."""
        way = config.way
        torch.manual_seed(config.spec.seed % 2**31)  # what LoRA and adapters begin with
        body = self._body(way, config.pooling)
        trainee = Trainee(body, self.encoder, config.pooling, start)
        if way.method == "lora":
            add_lora(trainee, config.width or 1, self.alpha, self.targets)
        elif way.method == "adapter":
            add_adapters(trainee, config.width or 1)
        every = self.encoder.layers
        trainee.layers = list(range(every - (way.depth or every) + 1, every + 1))
        set_dropout(body, config.layer_dropout)
        if check:
            self._check_memory(trainee, config)
        return trainee.to(self.device)

    def inputs(self, way: Way) -> Inputs:
        """What that way reads."""
        if way.depth is None:
            return self._ids
        if way.depth not in self._lifted:
            known = States(self.stored, np.asarray(self.stored.lengths))
            between = self.stored.layers - way.depth
            self._lifted[way.depth] = known if not between else lift(self.encoder, known, self.stored.layers, between)
        return self._lifted[way.depth]

    def check_depth(self, way: Way) -> None:
        """Raises EmbedcacheError where that many layers are not there, or their states are not stored."""
        depth, path = way.depth, self.cache.path
        if depth is None:
            return
        if depth > self.encoder.layers:
            raise EmbedcacheError(f"--train {way.text}: {self.encoder.source} has {self.encoder.layers} layers")
        if depth > self.stored.layers:
            raise EmbedcacheError(
                f"--train {way.text}: {path} has states of the last {self.stored.layers} layers: run extract --tokens "
                f"{depth}"
            )

    @cached_property
    def _ids(self) -> TokenIds:
        tokens: Tokens = self.encoder.tokenize(list(self.cache.texts))
        return TokenIds(tokens.rows, self.encoder.pad_id)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row that can come."""
        return max(1, int(np.asarray(self.stored.lengths).max(initial=1)))

    def _body(self, way: Way, pooling: str) -> Top | WholeModel:
        model = self.encoder.model
        if way.depth is None:
            return WholeModel(model, self.checkpointing)
        alone = way.method == "tensors" and first_alone(model, pooling)
        top = Top(model, way.depth, alone, self.longest)
        if (way.depth, alone) not in self._checked:
            self._check_top(top, model)
            self._checked.add((way.depth, alone))
        return top

    def _check_top(self, top: Top, model: Any) -> None:
        """By the model's own states, and that the stored ones are those, but for rounding."""
        rows = np.argsort(np.asarray(self.stored.lengths), kind="stable")[:: -(-self.cache.rows // CHECKED)]
        ids, mask = self.encoder.pad(self.encoder.tokenize([self.cache.texts[int(row)] for row in rows]).rows)
        states = check_top(model, top, ids, mask.bool())
        if self.stored.layers != self.encoder.layers - top.first:
            return
        values, offsets = self.stored.take(rows)
        theirs = states[mask.bool()].numpy()
        if len(theirs) != offsets[-1] or _cosine(theirs, np.asarray(values, np.float32)) < ALIKE:
            raise EmbedcacheError(
                f"the token states of {self.cache.path} are not what {self.encoder.source} makes of its texts: run "
                "extract again"
            )

    def needed(self, trainee: Trainee, config: Config | None = None) -> int:
        """Bytes of weights, their gradients and moments, and with a config of a step.

        A step is what the layers keep of a batch until its gradient is there.
        """
        every = sum(weight.numel() for weight in trainee.parameters())
        trained = sum(weight.numel() for weight in trainee.parameters() if weight.requires_grad)
        own = 4 * every + STATE * trained
        if config is None:
            return own
        lengths = self.inputs(config.way).lengths
        tokens = -(-config.batch_size // self.accumulate) * int(lengths.max(initial=1))
        settings = self.encoder.model.config
        wide = getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size
        kept = tokens * (16 * settings.hidden_size + 3 * wide) * 4 * len(trainee.layers)
        return own + kept // (4 if self.checkpointing else 1)

    def room(self) -> float:
        """Bytes that are free where the layers are trained, less a part for everything else."""
        free = memory_free() if self.device == "cpu" else torch.cuda.mem_get_info(self.device)[0]
        return SPARE * free

    def _check_memory(self, trainee: Trainee, config: Config) -> None:
        check_memory(
            self.needed(trainee, config) if self.device == "cpu" else 0,
            f"--train {config.way.text} with --batch-size {config.batch_size} may",
            "use --accumulate, a smaller --batch-size, --train last or top:K, or --gradient-checkpointing",
        )


ALIKE = 0.98  # cosine of stored states and those that are made now: bfloat16 and int8 round


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))
