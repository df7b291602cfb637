"""Which kind of index, how large and how long: a pure function of the task and the machine.

Why these kinds, as measured (docs/search.md): up to EXACT_ROWS every row is compared in some milliseconds, with nothing
to train and nothing lost. Above, IVF with 4-bit product quantization (FAISS's "fast scan": Andre, Kermarrec, Le
Scouarnec, "Quicker ADC", 2019) and exact re-ranking answers three times the queries a second of the graphs at every
recall from 0.9 to 0.999, and is built in a fraction of the time. IVF alone is the choice on a GPU, which has no fast
scan; HNSW is there for those who ask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from embedcache.errors import EmbedcacheError

KINDS = ("exact", "hnsw", "ivf", "ivfpq")
EXACT_ROWS = 200_000
EXACT_ROWS_CUDA = 2_000_000  # a GPU compares as many in the time that two cores take for EXACT_ROWS
MEMORY_SHARE = 0.7  # of what is free
TRAIN_PER_LIST = 64  # rows for each list, in k-means; FAISS asks for 39 at least
ITERATIONS = 10  # of k-means
HNSW_LINKS, HNSW_DEPTH = 32, 80  # M and efConstruction of Malkov & Yashunin, 2016
HELD_OUT = 1000  # rows that are looked for when recall is measured
SPEED = 1e11  # FLOP/s of matrix products where nobody has measured
SCATTERED = 40  # how much slower HNSW's single, scattered comparisons are


@dataclass(frozen=True)
class Plan:
    """What will be built.

    Attributes:
        parameters: lists, code_bits (per row), links, rerank ("memory" or "stored") ... of the kind.
        seconds: predicted, of building and measuring.
        bytes: predicted, of memory that the index takes.
        why: in a few words.
    """

    kind: str
    rows: int
    dim: int
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0
    why: str = ""


def choose(
    rows: int,
    dim: int,
    *,
    memory: float = math.inf,
    device: str = "cpu",
    recall: float = 0.99,
    kind: str = "auto",
    speed: float = SPEED,
) -> Plan:
    """The kind of index for N rows of D numbers.

    Args:
        memory: bytes that are free; an index may take MEMORY_SHARE of them.
        device: "cpu" or "cuda".
        recall: the recall@10 asked, above 0 to 1.
        kind: "auto", or one of KINDS that must be taken.
        speed: FLOP/s of this machine's matrix products, for the prediction of time.

    Raises:
        EmbedcacheError: no such kind, a recall that makes no sense, or the kind asked does not fit the memory.
    """
    if kind not in ("auto", *KINDS):
        raise EmbedcacheError(f"there is no index kind {kind!r}: choose auto, {', '.join(KINDS)}")
    if not 0 < recall <= 1:
        raise EmbedcacheError(f"recall {recall} makes no sense: ask for more than 0 and at most 1, such as 0.99")
    if rows < 1 or dim < 1:
        raise EmbedcacheError(f"{rows} rows of {dim} numbers: nothing to index")
    plans = {name: _plan(name, rows, dim, speed) for name in KINDS}
    plans["exact"] = _with(plans["exact"], why="asked for" if kind == "exact" else "")
    room = MEMORY_SHARE * memory
    if kind != "auto":
        if kind == "ivfpq" and plans[kind].bytes > room:
            plans[kind] = _reranked_from_disk(plans[kind], speed)
        if kind != "exact" and plans[kind].bytes > room:
            raise EmbedcacheError(
                f"an {kind} index of {rows:,} x {dim} takes {human_bytes(plans[kind].bytes)}, and {human_bytes(room)} "
                "may be used: choose another --kind, or a machine with more memory"
            )
        return _with(plans[kind], why="asked for")
    if recall == 1:
        return _with(plans["exact"], why="recall 1 means exact")
    limit = EXACT_ROWS_CUDA if device == "cuda" else EXACT_ROWS
    if rows <= limit:
        return _with(plans["exact"], why=f"up to {limit:,} rows nothing else is needed")
    disk = _reranked_from_disk(plans["ivfpq"], speed)
    wanted = [plans["ivf" if device == "cuda" else "ivfpq"]]
    for plan in (*wanted, disk):
        if plan.bytes <= room:
            why = "measured best for this many rows" if plan is wanted[0] else f"{wanted[0].kind} takes too much memory"
            return _with(plan, why=why)
    return _with(plans["exact"], why="nothing else fits the memory")


def lists_of(rows: int) -> int:
    """How many lists IVF cuts the rows into: 4 sqrt(N) rounded to a power of 2, each with rows to train on."""
    wanted = 2 ** round(math.log2(4 * math.sqrt(rows)))
    return max(1, min(wanted, rows // 39))


def code_numbers(dim: int) -> int:
    """Sub-quantizers of 4 bits: one for each number of narrow vectors, for each pair of wide ones."""
    return dim // 2 if dim > 96 and dim % 2 == 0 else dim


def _plan(kind: str, rows: int, dim: int, speed: float) -> Plan:
    product = 2.0 * rows * dim  # FLOP of comparing every row once
    measuring = product * min(HELD_OUT, rows) * 2  # exact, and what tuning tries
    half = 2 * rows * dim  # float16 copies
    if kind == "exact":
        return Plan(kind, rows, dim, {}, 0.0, half)
    if kind == "hnsw":
        compared = rows * HNSW_DEPTH * HNSW_LINKS * 0.6  # neighbours looked at, some of them twice
        work = compared * 2 * dim * SCATTERED + measuring
        size = half + rows * (8 * HNSW_LINKS + 16)
        return Plan(kind, rows, dim, {"links": HNSW_LINKS, "depth": HNSW_DEPTH}, work / speed, size)
    lists = lists_of(rows)
    training = 2.0 * min(rows, TRAIN_PER_LIST * lists) * lists * dim * ITERATIONS
    work = training + product * lists + measuring
    centroids = 4 * lists * dim
    if kind == "ivf":
        return Plan(kind, rows, dim, {"lists": lists}, work / speed, half + 8 * rows + centroids)
    codes = code_numbers(dim)
    encoding = product * 16 * 4  # each of 16 codewords, without matrix products
    parameters = {"lists": lists, "code_bits": 4 * codes, "rerank": "memory"}
    size = half + rows * (-(-codes // 2) + 8) + centroids
    return Plan(kind, rows, dim, parameters, (work + encoding) / speed, size)


def _reranked_from_disk(plan: Plan, speed: float) -> Plan:
    """ivfpq without copies of the vectors: those of the cache are read for each query."""
    parameters = {**plan.parameters, "rerank": "stored"}
    return _with(plan, parameters=parameters, bytes=plan.bytes - 2 * plan.rows * plan.dim)


def _with(plan: Plan, **changes: Any) -> Plan:
    return Plan(**{**vars(plan), **changes})


def human_bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"
