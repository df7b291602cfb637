"""Which kind of index, how large and how long: a pure function of the task and the machine.

Why these kinds, as measured (docs/search.md): up to EXACT_ROWS every row is compared in some milliseconds, with nothing
to train and nothing lost. Above, IVF with 4-bit product quantization (FAISS's "fast scan": Andre, Kermarrec, Le
Scouarnec, "Quicker ADC", 2019) and exact re-ranking answers three times the queries a second of the graphs at every
recall from 0.9 to 0.999, and is built in a fraction of the time. IVF alone is the choice on a GPU, which has no fast
scan; HNSW is there for those who ask.
"""

from __future__ import annotations

import math
from dataclasses import replace

from embedcache.common.display import human_bytes
from embedcache.errors import EmbedcacheError
from embedcache.index.kind import Cost, IndexPlan
from embedcache.index.kinds import KINDS

EXACT_ROWS = 200_000
EXACT_ROWS_CUDA = 2_000_000  # a GPU compares as many in the time that two cores take for EXACT_ROWS
MEMORY_SHARE = 0.7  # of what is free
HELD_OUT = 1000  # rows that are looked for when recall is measured
SPEED = 1e11  # FLOP/s of matrix products where nobody has measured


def choose(
    rows: int,
    dim: int,
    *,
    memory: float = math.inf,
    device: str = "cpu",
    recall: float = 0.99,
    kind: str = "auto",
    speed: float = SPEED,
) -> IndexPlan:
    """The kind of index for N rows of D numbers.

    Args:
        rows: N, from 1.
        dim: D, from 1.
        memory: bytes that are free; an index may take MEMORY_SHARE of them.
        device: "cpu" or "cuda".
        recall: the recall@10 asked, above 0 to 1.
        kind: "auto", or one of KINDS that must be taken.
        speed: FLOP/s of this machine's matrix products, for the prediction of time.

    Raises:
        EmbedcacheError: an unknown kind, a recall out of range, or the kind asked for does not fit the memory.
    """
    if kind not in ("auto", *KINDS):
        raise EmbedcacheError(f"unknown index kind {kind!r}: choose auto, {', '.join(KINDS)}")
    if not 0 < recall <= 1:
        raise EmbedcacheError(f"recall {recall} is out of range: ask for more than 0 and at most 1, such as 0.99")
    if rows < 1 or dim < 1:
        raise EmbedcacheError(f"{rows} rows of {dim} numbers: nothing to index")
    room = MEMORY_SHARE * memory
    exact = _plan("exact", rows, dim, speed)
    if kind != "auto":
        plan = _plan(kind, rows, dim, speed)
        if plan.bytes > room:
            plan = _without_copies(kind, rows, dim, speed) or plan
        if kind != "exact" and plan.bytes > room:
            raise EmbedcacheError(
                f"an {kind} index of {rows:,} x {dim} takes {human_bytes(plan.bytes)}, and {human_bytes(room)} "
                "may be used: choose another --kind, or a machine with more memory"
            )
        return replace(plan, why="asked for")
    if recall == 1:
        return replace(exact, why="recall 1 means exact")
    limit = EXACT_ROWS_CUDA if device == "cuda" else EXACT_ROWS
    if rows <= limit:
        return replace(exact, why=f"up to {limit:,} rows nothing else is needed")
    first = [_plan(name, rows, dim, speed) for name, one in KINDS.items() if device in one.auto_on]
    smaller = [one for name in KINDS if (one := _without_copies(name, rows, dim, speed)) is not None]
    for plan in (*first, *smaller):
        if plan.bytes <= room:
            why = "measured best for this many rows" if plan in first else f"{first[0].kind} takes too much memory"
            return replace(plan, why=why)
    return replace(exact, why="nothing else fits the memory")


def _plan(kind: str, rows: int, dim: int, speed: float) -> IndexPlan:
    return _planned(kind, rows, dim, speed, KINDS[kind].cost(rows, dim))


def _without_copies(kind: str, rows: int, dim: int, speed: float) -> IndexPlan | None:
    cost = KINDS[kind].cost_without_copies(rows, dim)
    return None if cost is None else _planned(kind, rows, dim, speed, cost)


def _planned(kind: str, rows: int, dim: int, speed: float, cost: Cost) -> IndexPlan:
    # What is built is measured: every row is compared with each query, and tuning tries as much again.
    measuring = 2.0 * rows * dim * min(HELD_OUT, rows) * 2 if cost.work else 0.0
    return IndexPlan(kind, rows, dim, cost.parameters, (cost.work + measuring) / speed, cost.bytes)
