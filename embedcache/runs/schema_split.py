"""What run.json may say of a split, and of a head beside its baselines; schema.py has the rest."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from embedcache.common.checked import Count, Digest, Interval, Number, Share
from embedcache.runs.intervals import JACKKNIFE
from embedcache.runs.scores import SCORES

Metric = Annotated[str, Meta(pattern=f"^({'|'.join(JACKKNIFE)})$")]  # has an interval
ScoreName = Annotated[str, Meta(pattern=f"^({'|'.join(SCORES)})$")]


class Fold(msgspec.Struct):
    train: Count
    val: Count


class Digests(msgspec.Struct):
    train: Digest
    val: Digest
    test: Digest


class Shares(msgspec.Struct):
    val: Share
    test: Share


class Split(msgspec.Struct):
    train: Count
    val: Count
    test: Count
    unlabelled: Count = 0
    duplicates: Count = 0
    conflicts: Count = 0
    left_out: Count = 0
    unsided: Count = 0
    rule: Literal["hash", "column", "run", "article"] | None = None
    column: str | None = None
    run: str | None = None
    shares: Shares | None = None
    group: str | None = None
    folds: list[Fold] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    digests: Digests | UnsetType = UNSET


class Comparison(msgspec.Struct, rename={"baseline": "with"}):
    """intervals.Difference, and with which baseline."""

    baseline: str
    side: Literal["val", "test"]
    metric: Metric
    difference: Number
    interval: Interval | None
    p: Share | None
    rows: Count
    groups: Count | None
    within_noise: bool
