"""The last layer, first token alone, by the native engine: what it can train, and some trainings at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embedcache.common.machine import check_memory, usable_cores
from embedcache.common.progress import Progress as Told
from embedcache.encoder.families import FAMILIES
from embedcache.finetune import engine_native
from embedcache.finetune.bench import Bench
from embedcache.finetune.blocks import Block, Shape, TunedBlock
from embedcache.finetune.checkpoint import Progress, State
from embedcache.finetune.config import Config, Way
from embedcache.finetune.first_row import first_distances
from embedcache.finetune.inputs import States
from embedcache.finetune.layer_tensors import ACTIVATIONS, parameters_of, shape_of, tensors_of
from embedcache.finetune.loop import CLIP
from embedcache.finetune.top import first_alone, layers_of
from embedcache.heads.engine import NativeUnavailableError
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.task import Task
from embedcache.heads.train import HISTORY, r2_of

ALONE = "it trains the last layer (--train last) for the first token alone (pooling cls), on a CPU"
HEAD = {"w1": "head1", "b1": "head1_bias", "w2": "head2", "b2": "head2_bias"}  # a head's weights: the engine's tensors
WEIGHT = 20  # bytes of each: itself, two moments, the best epoch's, the gradient that clipping keeps


@dataclass(frozen=True)
class Trial:
    """One configuration on the rows of one task, from that head on."""

    config: Config
    task: Task
    start: TrainedHead
    identity: str
    number: int


@dataclass
class NativeLast:
    """Made once. choose: loss, accuracy or macro_f1; compute: float32 or bfloat16; threads: None means all cores."""

    bench: Bench
    early_stop: int
    choose: str
    compute: str
    threads: int | None
    _shape: Shape | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """Of the engine, as run.json has it."""
        return f"native-{engine_native.backend(self.compute)}"

    @property
    def at_a_time(self) -> int:
        """Trainings: one on each thread."""
        return self.threads or usable_cores()

    def why_not(self, way: Way, pooling: str) -> str:
        """ "" where it can train that, else why it cannot."""
        model = self.bench.encoder.model
        alone = way.text == "last" and self.bench.device == "cpu" and first_alone(model, pooling)
        if not alone:
            return ALONE
        family = FAMILIES[model.config.model_type]
        activation = getattr(model.config, family.keys.get("hidden_act", "hidden_act"))
        if activation not in ACTIVATIONS:
            return f"it knows no activation {activation!r}"
        try:
            engine_native.library()
        except NativeUnavailableError as error:
            return str(error)
        return ""

    def train(self, trainings: Sequence[Trial], progress: Told | None) -> list[State]:
        """Every one to its end; after Ctrl-C some have the status "cancelled".

        Raises:
            EmbedcacheError: too little memory.
        """
        first = trainings[0]
        inputs = self.bench.inputs(first.config.way)
        assert isinstance(inputs, States)
        # The check that the stored states are the model's, and its memory, are the bench's own.
        self.bench.trainee(first.config, first.start)
        shape = self.shape
        model, family = self.bench.encoder.model, FAMILIES[self.bench.encoder.model.config.model_type]
        layer = tensors_of(dict(layers_of(model)[1][-1].named_parameters()), family)
        blocks = [self._block(one, layer, place) for place, one in enumerate(trainings)]
        weights = sum(array.size for array in blocks[0].start.values())
        check_memory(
            WEIGHT * weights * len(blocks),
            f"{len(blocks)} last layers at a time",
            "use fewer --threads",
        )
        outcomes = engine_native.train(
            inputs.in_place(), shape, [one.task for one in trainings], blocks, self.choose, self.compute,
            self.at_a_time, progress,
        )  # fmt: skip
        return [self._state(one, outcome) for one, outcome in zip(trainings, outcomes, strict=True)]

    @property
    def shape(self) -> Shape:
        """Of the layer."""
        if self._shape is None:
            model = self.bench.encoder.model
            family = FAMILIES[model.config.model_type]
            relative = first_distances(model, family, self.bench.longest)
            self._shape = shape_of(model.config, family, None if relative is None else relative.numpy())
        return self._shape

    def _block(self, one: Trial, layer: dict[str, np.ndarray], place: int) -> Block:
        config, task = one.config, one.task
        head = {HEAD[name]: array for name, array in one.start.weights.items()}
        if task.target_mean is not None and task.target_std is not None:  # y has mean 0 and spread 1, the head not
            head["head2"] = head["head2"] / task.target_std[:, None]
            head["head2_bias"] = (head["head2_bias"] - task.target_mean) / task.target_std
        drop = config.layer_dropout
        return Block(
            config.spec, place, layer | head, config.head_lr, config.batch_size, config.epochs, self.early_stop, drop,
            drop, CLIP,
        )  # fmt: skip

    def _state(self, one: Trial, outcome: TunedBlock) -> State:
        """As the loop in torch leaves one: tensors by their names in the model, scores without NaN."""
        task, run = one.task, outcome.epochs_run
        scores = {name: np.full(run, np.nan) for name in HISTORY}
        for name in HISTORY[:4]:
            scores[name] = getattr(outcome, name)[:run]
        if task.val is not None and not kind_of(task.kind).has_classes:
            scores["val_r2"] = r2_of(scores["val_loss"], task.val.y[task.val.rows].astype(np.float64))
        history = {name: [float(s) if np.isfinite(s) else None for s in values] for name, values in scores.items()}
        progress = Progress(
            one.identity, run, best_epoch=outcome.best_epoch, status=outcome.status, history=history
        )  # fmt: skip
        if outcome.best_epoch < 0:
            return State(progress)
        return State(progress, self._best(outcome, task), self._outputs(outcome, task))

    def _best(self, outcome: TunedBlock, task: Task) -> dict[str, np.ndarray]:
        encoder = self.bench.encoder
        family = FAMILIES[encoder.model.config.model_type]
        path = f"{layers_of(encoder.model)[0]}.{encoder.layers - 1}"
        keys_bias = f"{family.names.attention[1]}.bias"  # which no gradient reaches
        tensors = parameters_of(outcome.weights, family)
        tensors[keys_bias] = encoder.model.get_parameter(f"{path}.{keys_bias}").detach().float().numpy().copy()
        weights = {name: outcome.weights[ours] for name, ours in HEAD.items() if ours in outcome.weights}
        if task.target_mean is not None and task.target_std is not None:
            weights["w2"] = (weights["w2"] * task.target_std[:, None]).astype(np.float32)
            weights["b2"] = (weights["b2"] * task.target_std + task.target_mean).astype(np.float32)
        head = {f"head/{name}": array for name, array in weights.items()}
        return {f"{path}.{name}": array for name, array in tensors.items()} | head

    @staticmethod
    def _outputs(outcome: TunedBlock, task: Task) -> np.ndarray | None:
        if task.val is None:
            return None
        if task.target_mean is None or task.target_std is None:
            return outcome.val_logits
        return (outcome.val_logits * task.target_std + task.target_mean).astype(np.float32)
