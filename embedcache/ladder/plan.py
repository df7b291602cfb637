"""What the rungs of a ladder will take: a quick measurement of this machine, and what a rung costs in its units."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import open_cache
from embedcache.common.machine import size
from embedcache.encoder import Encoder
from embedcache.encoder.hardware import resolve_device
from embedcache.extraction.vectors import AskedVectors, choose
from embedcache.finetune.config import EPOCHS
from embedcache.finetune.inputs import TokenIds
from embedcache.finetune.top import WholeModel
from embedcache.ladder.rungs import HEAD, Rung
from embedcache.prediction.rows import is_cache
from embedcache.tables.rows import Columns, read_rows

SAMPLE, BATCH = 128, 32  # texts that are encoded, and trained on
# What a row or a process costs, as measured on two cores: benchmarks say so of the machine that they ran on, and the
# end of every ladder shows what was predicted beside what was taken.
START = 6.0  # seconds until a process has loaded torch and the encoder, and written a run
HEAD_ROW = 4e-3  # seconds a row, for all heads of the default recipe and its baselines
JUDGED_ROW = 2.5e-3  # of these without the heads, where they are those of another rung
TEXT_ROW = 1e-3  # seconds a row, of TF-IDF at three strengths
FORWARD = 1 / 3  # of a forward and backward pass
SHARE = {"lora": 0.8, "adapter": 0.8, "tensors": 1.0}  # of a full step; they need no gradients of weights
ROW_BYTES = 64  # of a row beside its text and vectors


@dataclass
class MachineSpeed:
    """A table or a cache, and how fast an encoder reads it here; JSON types.

    Attributes:
        rows: of the input. tokens: of a row, as encoded; text_bytes: of a row.
        encode: tokens a second. train: tokens a second, forward and backward through all layers; None where no rung
            trains layers.
        layers, width: of the encoder. parameters: of all its layers.
        vectors: that are stored of a row.
    """

    rows: int
    tokens: float
    text_bytes: float
    encode: float
    train: float | None
    layers: int
    width: int
    parameters: int
    vectors: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    source: str,
    model: str | None,
    device: str,
    trust_remote_code: bool,
    trains: bool,
    text: str,
    max_length: int | None = None,
) -> MachineSpeed:
    """Encode a few of the texts, and train on them if any rung does.

    Args:
        source: table or cache.
        model: the encoder; None: that of the cache.
        device: see ``Encoder.load``.
        trust_remote_code: see ``Encoder.load``.
        trains: whether layers will be trained.
        text: the table's column.
        max_length: of a table's texts; None is what suits the encoder.
    """
    texts, rows, characters = _sample(source, text)
    settings: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    if is_cache(source):
        with open_cache(source) as cache:
            model, vectors = model or str(cache.encoder["source"]), len(cache.outputs)
            identity = cache.encoder["identity"]
            settings |= {"max_length": identity["max_length"], "dtype": identity["compute_dtype"]}
    else:
        assert model is not None
        chosen = choose(model, AskedVectors(max_length=max_length), None, trust_remote_code)
        vectors, settings = len(chosen.outputs), {**settings, **chosen.settings}
    encoder = Encoder.load(model, **settings)
    tokens = encoder.tokenize(texts)
    outputs = [("mean", -1)] if encoder.kernel != "static" else [("model", -1)]
    encoder.encode_tokens(tokens, outputs)  # loads what is loaded once
    start = time.perf_counter()
    encoder.encode_tokens(encoder.tokenize(texts), outputs)
    lengths = np.asarray(tokens.rows.lengths)
    encode = float(lengths.sum()) / (time.perf_counter() - start)
    train, parameters = None, 0
    if trains and encoder.kernel != "static":
        train, parameters = _train(Encoder.load(model, **{**settings, "dtype": "float32"}), texts, device)
    return MachineSpeed(
        rows=rows, tokens=float(lengths.mean()), text_bytes=characters / max(rows, 1), encode=encode, train=train,
        layers=encoder.layers, width=encoder.dim, parameters=parameters, vectors=vectors,
    )  # fmt: skip


def _sample(source: str, text: str) -> tuple[list[str], int, int]:
    """(some texts, of all rows of a cache or the first ones of a table; rows; bytes of all texts, or characters)."""
    if is_cache(source):
        with open_cache(source) as cache:
            some = range(0, cache.rows, max(1, cache.rows // SAMPLE))[:SAMPLE]
            return [cache.texts[row] for row in some], cache.rows, int(cache.texts.offsets[-1])
    first: list[str] = []
    rows = characters = 0
    for part in read_rows([source], Columns(text=text)):
        texts = [one or "" for one in part.texts.to_pylist()]
        first, rows, characters = first or texts, rows + len(texts), characters + sum(map(len, texts))
    return first[:: max(1, len(first) // SAMPLE)][:SAMPLE], rows, characters


def _train(encoder: Encoder, texts: Sequence[str], device: str) -> tuple[float, int]:
    """(tokens a second of a forward and backward pass through all layers, parameters)."""
    place = resolve_device(device)
    model = WholeModel(encoder.model).to(place).requires_grad_(True)
    rows = encoder.tokenize(texts).rows
    alike = np.argsort(np.asarray(rows.lengths), kind="stable")[max(0, (len(texts) - BATCH) // 2) :][:BATCH]
    x, mask = TokenIds(rows, encoder.pad_id).batch(alike)  # little padding, as in training
    for _ in range(2):  # the first one loads and reserves
        start = time.perf_counter()
        out = model(x.to(place), mask.to(place))
        out.float().square().mean().backward()
        float(out.detach().sum())  # waits for a GPU
        seconds = time.perf_counter() - start
    return float(mask.sum()) / seconds, sum(weight.numel() for weight in model.parameters())


@dataclass
class RungCost:
    """Of a rung, or of the pass (``rung`` "extract"), as predicted; ``seeds`` times."""

    rung: str
    encoder: str | None
    seconds: float
    disk: float
    seeds: int = 1


@dataclass
class LadderPlan:
    """All costs that are still to be paid."""

    costs: list[RungCost] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(cost.seconds * cost.seeds for cost in self.costs)

    @property
    def disk(self) -> float:
        return sum(cost.disk * cost.seeds for cost in self.costs)

    def lines(self) -> list[str]:
        """For people, one a step."""
        found = [f"plan: {_named(one)}: {minutes(one.seconds)}, {size(one.disk)}{_seeds(one)}" for one in self.costs]
        return [*found, f"plan: {minutes(self.seconds)} and {size(self.disk)} in all, as measured on this machine now"]


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _named(cost: RungCost) -> str:
    return cost.rung if cost.encoder is None else f"{cost.rung} ({cost.encoder})"


def _seeds(cost: RungCost) -> str:
    return "" if cost.seeds == 1 else f", for each of {cost.seeds} seeds"


def pass_cost(encoder: str, known: MachineSpeed, depth: int) -> RungCost:
    """Of the one pass over a table, with token states for ``depth`` layers."""
    tokens = known.rows * known.tokens
    disk = known.rows * (known.vectors * known.width * 2 + known.text_bytes + ROW_BYTES)
    disk += tokens * known.width * 2 if depth else 0
    return RungCost("extract", encoder, START + tokens / known.encode, disk)


def rung_cost(
    rung: Rung, encoder: str | None, known: MachineSpeed, train: float, val: float, has_head: bool
) -> RungCost:
    """Of one rung; train, val: shares of the rows. has_head: layers start from the head of a rung below."""
    if rung.shared:
        return RungCost(rung.name, None, known.rows * TEXT_ROW if rung.name == "tfidf" else 1.0, 0.0)
    if rung.name == HEAD:
        return RungCost(rung.name, encoder, START + known.rows * HEAD_ROW, 2e6)
    if rung.way is None:
        return RungCost(rung.name, encoder, START, 0.0)
    share = SHARE[rung.way.method] * (rung.depth or known.layers) / max(known.layers, 1)
    tokens = known.rows * known.tokens * EPOCHS * (train + val * FORWARD)
    configs = 1.2 if rung.name == "last" else 1  # the whole layer, and the CLS row alone
    weights = known.parameters * share if rung.way.method == "tensors" else 0.02 * known.parameters
    own_head = not has_head or (rung.name == "last" and known.vectors > 1)  # the one for the CLS row
    judged = known.rows * (HEAD_ROW if own_head else JUDGED_ROW)
    seconds = START + judged + configs * tokens * share / (known.train or np.inf)
    return RungCost(rung.name, encoder, seconds, weights * 4 + 2e6)


def keep_room(folder: Path, plan: LadderPlan) -> str | None:
    """Why the disk is too small for the plan, or None."""
    there = next(one for one in (folder, *folder.resolve().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if plan.disk <= free:
        return None
    needs = f"the ladder needs about {size(plan.disk)} in {folder}, and {size(free)} are free"
    return f"{needs}: name another -o, or fewer --rungs"
