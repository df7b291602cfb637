"""What the rungs of a ladder will take, in the units of this machine (speed.py)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedcache.common.machine import size
from embedcache.finetune.config import EPOCHS
from embedcache.ladder.rungs import HEAD, Rung
from embedcache.ladder.speed import MachineSpeed

# What a row or a process costs, as measured on two cores: benchmarks say so of the machine that they ran on, and the
# end of every ladder shows what was predicted beside what was taken.
START = 4.0  # seconds until a process has loaded torch and the encoder, and written a run
HEAD_ROW = 5e-4  # seconds a row, for the baselines, beside which all heads of the default recipe take next to nothing
TEXT_ROW = 4e-4  # seconds a row, of TF-IDF at three strengths
FORWARD = 1 / 3  # of a forward and backward pass
SHARE = {"lora": 0.8, "adapter": 0.8, "tensors": 1.0}  # of a full step; they need no gradients of weights
ROW_BYTES = 64  # of a row beside its text and vectors


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


def rung_cost(rung: Rung, encoder: str | None, known: MachineSpeed, train: float, val: float) -> RungCost:
    """Of one rung; train, val: shares of the rows."""
    if rung.shared:
        return RungCost(rung.name, None, known.rows * TEXT_ROW if rung.name == "tfidf" else 1.0, 0.0)
    if rung.name == HEAD:
        return RungCost(rung.name, encoder, START + known.rows * HEAD_ROW, 2e6)
    if rung.way is None:
        return RungCost(rung.name, encoder, START, 0.0)
    share = SHARE[rung.way.method] * (rung.depth or known.layers) / max(known.layers, 1)
    tokens = known.rows * known.tokens * EPOCHS * (train + val * FORWARD)
    configs = 1.2 if rung.name == "last" else 1  # the whole layer, and the CLS row alone
    if rung.way.method == "tensors" and rung.depth and known.native:
        trained = tokens * rung.depth / known.native
    else:
        trained = tokens * share / (known.train or np.inf)
    weights = known.parameters * share if rung.way.method == "tensors" else 0.02 * known.parameters
    seconds = START + known.rows * HEAD_ROW + configs * trained
    return RungCost(rung.name, encoder, seconds, weights * 4 + 2e6)


def keep_room(folder: Path, plan: LadderPlan) -> str | None:
    """Why the disk is too small for the plan, or None."""
    there = next(one for one in (folder, *folder.resolve().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if plan.disk <= free:
        return None
    needs = f"the ladder needs about {size(plan.disk)} in {folder}, and {size(free)} are free"
    return f"{needs}: name another -o, or fewer --rungs"
