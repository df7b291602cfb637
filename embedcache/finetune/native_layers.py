"""The last layers by the native engine: what it can train of a run, and some trainings at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embedcache.common.machine import check_memory, memory_free, usable_cores
from embedcache.common.progress import Progress as Told
from embedcache.encoder import Encoder
from embedcache.encoder.families import FAMILIES, Family
from embedcache.encoder.poolings import MODEL
from embedcache.finetune import engine_native
from embedcache.finetune.bench import SPARE, Bench
from embedcache.finetune.blocks import Block, Shape, TunedBlock
from embedcache.finetune.checkpoint import Progress, State
from embedcache.finetune.config import Config, Way
from embedcache.finetune.first_row import distances
from embedcache.finetune.inputs import States
from embedcache.finetune.layer_tensors import ACTIVATIONS, parameters_of, shape_of, tensors_of
from embedcache.finetune.loop import CLIP
from embedcache.finetune.top import known_by_parts, layers_of
from embedcache.heads.engine import NativeUnavailableError
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.task import Task
from embedcache.heads.train import HISTORY, r2_of

WAYS = "it trains the last layers themselves (--train last, top:K) of BERT's kin, on a CPU"
QUERIES = {"cls": "first", "last": "last", "mean": "mean"}  # poolings: whose row is a text's vector
HEAD = {"w1": "head1", "b1": "head1_bias", "w2": "head2", "b2": "head2_bias"}  # a head's weights: the engine's tensors
WEIGHT = 20  # bytes of each: itself, two moments, the best epoch's, the gradient that clipping keeps


def why_not_model(encoder: Encoder) -> str:
    """ "" where it can train the model's last layers, on a CPU, else why it cannot."""
    if not known_by_parts(encoder.model):
        return WAYS
    activation = getattr(encoder.model.config, family_of(encoder).keys.get("hidden_act", "hidden_act"))
    if activation not in ACTIVATIONS:
        return f"it knows no activation {activation!r}"
    try:
        engine_native.library()
    except NativeUnavailableError as error:
        return str(error)
    return ""


def family_of(encoder: Encoder) -> Family:
    return FAMILIES[encoder.model.config.model_type]


def shape_of_model(encoder: Encoder, longest: int) -> Shape:
    """Of its last layer, for texts of so many tokens at most."""
    relative = distances(encoder.model, family_of(encoder), 1 - longest, longest)
    return shape_of(encoder.model.config, family_of(encoder), None if relative is None else relative.numpy())


def last_tensors(encoder: Encoder, depth: int) -> dict[str, np.ndarray]:
    """The engine's tensors of the model's last layers."""
    layers = layers_of(encoder.model)[1][-depth:]
    some = (tensors_of(dict(layer.named_parameters()), family_of(encoder)) for layer in layers)
    return {f"{k}.{name}": array for k, one in enumerate(some) for name, array in one.items()}


@dataclass(frozen=True)
class Trial:
    """One configuration on the rows of one task, from that head on."""

    config: Config
    task: Task
    start: TrainedHead
    identity: str
    number: int


@dataclass
class NativeLayers:
    """Made once. choose: loss, accuracy or macro_f1; compute: float32 or bfloat16; threads: None means all cores."""

    bench: Bench
    early_stop: int
    choose: str
    compute: str
    threads: int | None
    _shapes: dict[tuple[int, str], Shape] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Of the engine, as run.json has it."""
        return f"native-{engine_native.backend(self.compute)}"

    def why_not(self, way: Way, pooling: str) -> str:
        """ "" where it can train that, else why it cannot."""
        if way.method != "tensors" or way.depth is None or self.bench.device != "cpu":
            return WAYS
        if self._vector(pooling) is None:
            return f"it knows the vectors {', '.join(QUERIES)}, and the model's own where that is one of these"
        if self.bench.accumulate > 1 and (way.depth > 1 or self._query(pooling) == "mean"):
            return "it computes a step of whole layers in one part, without --accumulate"
        return why_not_model(self.bench.encoder)

    def together(self, one: Trial, later: Sequence[Trial]) -> list[Trial]:
        """It, and those of the same layers and vectors: one on each thread, as many as there is memory for."""
        wanted = (one.config.way.depth, one.config.pooling)
        alike = [other for other in later if (other.config.way.depth, other.config.pooling) == wanted]
        found, room = [one], SPARE * memory_free() - self._needed(one)
        for other in alike[: (self.threads or usable_cores()) - 1]:
            room -= self._needed(other)
            if room < 0:
                break
            found.append(other)
        return found

    def train(self, trainings: Sequence[Trial], progress: Told | None) -> list[State]:
        """Those of ``together`` to their end; after Ctrl-C some have the status "cancelled".

        Raises:
            EmbedcacheError: too little memory.
        """
        first = trainings[0]
        inputs = self.bench.inputs(first.config.way)
        assert isinstance(inputs, States)
        # The check that the stored states are the model's is the bench's own.
        self.bench.trainee(first.config, first.start, check=False)
        check_memory(
            sum(map(self._needed, trainings)),
            f"--train {first.config.way.text} with --batch-size {first.config.batch_size} may",
            "use a smaller --batch-size, or --engine torch with --accumulate",
        )
        blocks = [self._block(one, place) for place, one in enumerate(trainings)]
        outcomes = engine_native.train(
            inputs.in_place(), self.shape(first.config), [one.task for one in trainings], blocks, self.choose,
            self.compute, self.threads or usable_cores(), progress,
        )  # fmt: skip
        return [self._state(one, outcome) for one, outcome in zip(trainings, outcomes, strict=True)]

    def shape(self, config: Config) -> Shape:
        """Of the layers."""
        key = config.way.depth or 1, config.pooling
        if key not in self._shapes:
            shape = shape_of_model(self.bench.encoder, self.bench.longest)
            vector = self._vector(config.pooling)
            assert vector is not None
            self._shapes[key] = replace(shape, query=vector[0], unit=vector[1], layers=key[0])
        return self._shapes[key]

    def _vector(self, pooling: str) -> tuple[str, bool] | None:
        """(whose row, whether it is scaled to length 1); None where it is made in another way."""
        prescribed = self.bench.encoder.prescribed if pooling == MODEL else None
        if prescribed is None:
            return (QUERIES[pooling], False) if pooling in QUERIES else None
        steps = [step["step"] for step in prescribed.about["steps"]]
        known = len(prescribed.pooling) == 1 and prescribed.pooling[0] in QUERIES and set(steps) <= {"normalize"}
        return (QUERIES[prescribed.pooling[0]], bool(steps)) if known else None

    def _query(self, pooling: str) -> str:
        vector = self._vector(pooling)
        return "" if vector is None else vector[0]

    def _needed(self, one: Trial) -> int:
        """Bytes: of the weights, and of what a batch leaves behind in whole layers (csrc/block/memory.h)."""
        shape, config = self.shape(one.config), one.config
        layer = 4 * shape.dim**2 + 2 * shape.dim * shape.inner
        whole = shape.layers - (shape.query != "mean")
        tokens = int(np.sort(self.bench.stored.lengths)[-config.batch_size :].sum()) if whole else 0
        kept = whole * (8 * shape.dim + shape.inner) + 11 * shape.dim + 2 * shape.inner
        return WEIGHT * layer * shape.layers + 4 * tokens * kept

    def _block(self, one: Trial, place: int) -> Block:
        config, task = one.config, one.task
        head = {HEAD[name]: array for name, array in one.start.weights.items()}
        if task.target_mean is not None and task.target_std is not None:  # y has mean 0 and spread 1, the head not
            head["head2"] = head["head2"] / task.target_std[:, None]
            head["head2_bias"] = (head["head2_bias"] - task.target_mean) / task.target_std
        drop = config.layer_dropout
        layers = last_tensors(self.bench.encoder, config.way.depth or 1)
        return Block(
            config.spec, place, layers | head, config.head_lr, config.batch_size, config.epochs, self.early_stop, drop,
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
        return State(progress, self._best(outcome, task, one.config.way.depth or 1), self._outputs(outcome, task))

    def _best(self, outcome: TunedBlock, task: Task, depth: int) -> dict[str, np.ndarray]:
        encoder = self.bench.encoder
        family = family_of(encoder)
        path, first = layers_of(encoder.model)[0], encoder.layers - depth
        keys_bias = f"{family.names.attention[1]}.bias"  # which no gradient reaches
        found: dict[str, np.ndarray] = {}
        for k in range(depth):
            own = {name.removeprefix(f"{k}."): one for name, one in outcome.weights.items() if name.startswith(f"{k}.")}
            place = f"{path}.{first + k}"
            found |= {f"{place}.{name}": array for name, array in parameters_of(own, family).items()}
            bias = encoder.model.get_parameter(f"{place}.{keys_bias}")
            found[f"{place}.{keys_bias}"] = bias.detach().float().numpy().copy()
        weights = {name: outcome.weights[ours] for name, ours in HEAD.items() if ours in outcome.weights}
        if task.target_mean is not None and task.target_std is not None:
            weights["w2"] = (weights["w2"] * task.target_std[:, None]).astype(np.float32)
            weights["b2"] = (weights["b2"] * task.target_std + task.target_mean).astype(np.float32)
        head = {f"head/{name}": array for name, array in weights.items()}
        return found | head

    @staticmethod
    def _outputs(outcome: TunedBlock, task: Task) -> np.ndarray | None:
        if task.val is None:
            return None
        if task.target_mean is None or task.target_std is None:
            return outcome.val_logits
        return (outcome.val_logits * task.target_std + task.target_mean).astype(np.float32)
