"""The choice of an index, as a table of tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.index.kinds import KINDS
from embedcache.index.kinds.ivf import lists_of
from embedcache.index.kinds.ivfpq import code_numbers
from embedcache.index.plan import MEMORY_SHARE, choose, human_bytes

GB = 1e9


@pytest.mark.parametrize(
    ("rows", "dim", "given", "kind"),
    [
        (1, 1, {}, "exact"),
        (200_000, 768, {}, "exact"),
        (200_000, 768, {"memory": 0}, "exact"),  # straight from the file
        (200_001, 768, {}, "ivfpq"),
        (400_000, 50, {}, "ivfpq"),
        (400_000, 50, {"recall": 0.5}, "ivfpq"),
        (400_000, 50, {"recall": 0.999}, "ivfpq"),
        (400_000, 50, {"recall": 1.0}, "exact"),
        (400_000, 50, {"recall": 1.0, "memory": 1}, "exact"),
        (1_000_000, 384, {"memory": 24 * GB}, "ivfpq"),
        (1_000_000, 384, {"memory": 0.3 * GB}, "ivfpq"),  # re-ranked from the file
        (1_000_000, 384, {"memory": 0.1 * GB}, "exact"),
        (1_000_000, 384, {"memory": 0.3 * GB, "recall": 0.999}, "ivfpq"),
        (1_000_000_000, 768, {"memory": 64 * GB}, "exact"),
        (1_000_000_000, 768, {"memory": 4000 * GB}, "ivfpq"),
        (1_000_000, 384, {"device": "cuda"}, "exact"),
        (5_000_000, 384, {"device": "cuda"}, "ivf"),
        (100, 8, {"kind": "hnsw"}, "hnsw"),
        (100, 8, {"kind": "ivf"}, "ivf"),
        (5_000_000, 384, {"kind": "exact", "memory": 1}, "exact"),
        (1_000_000, 384, {"kind": "ivfpq", "memory": 0.3 * GB}, "ivfpq"),
    ],
)
def test_kind(rows: int, dim: int, given: dict[str, Any], kind: str) -> None:
    plan = choose(rows, dim, **given)
    assert plan.kind == kind
    assert plan.why
    assert kind == "exact" or plan.bytes <= MEMORY_SHARE * given.get("memory", math.inf)
    assert plan == choose(rows, dim, **given), "a pure function"


def test_reranking_from_the_file_takes_less_memory() -> None:
    large, small = (choose(1_000_000, 384, memory=memory) for memory in (24 * GB, 0.3 * GB))
    assert (large.parameters["rerank"], small.parameters["rerank"]) == ("memory", "stored")
    assert small.bytes < large.bytes / 4
    assert "too much memory" in small.why


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("exact", "ivfpq")])
def test_a_kind_that_does_not_fit_is_refused(kind: str) -> None:
    with pytest.raises(EmbedcacheError, match="choose another --kind") as error:
        choose(1_000_000, 384, memory=0.3 * GB, kind=kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "dim", "given", "words"),
    [
        (10, 4, {"kind": "best"}, "unknown index kind 'best'"),
        (10, 4, {"recall": 0.0}, "recall 0.0 is out of range"),
        (10, 4, {"recall": 1.01}, "is out of range"),
        (10, 4, {"recall": math.nan}, "is out of range"),
        (0, 4, {}, "nothing to index"),
        (4, 0, {}, "nothing to index"),
    ],
)
def test_bad_values(rows: int, dim: int, given: dict[str, Any], words: str) -> None:
    with pytest.raises(EmbedcacheError, match=words):
        choose(rows, dim, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_grow_with_the_task(kind: str) -> None:
    small, large = (choose(rows, 64, kind=kind) for rows in (10_000, 1_000_000))
    assert large.bytes > 50 * small.bytes
    assert kind == "exact" or large.seconds > 50 * small.seconds
    fast = choose(1_000_000, 64, kind=kind, speed=1e12)
    assert fast.seconds == pytest.approx(large.seconds / 10)


def test_sizes() -> None:
    assert [lists_of(rows) for rows in (1, 50, 1000, 400_000, 1_000_000)] == [1, 1, 25, 2048, 4096]
    assert [code_numbers(dim) for dim in (1, 50, 97, 384, 768)] == [1, 50, 97, 192, 384]
    assert [human_bytes(count) for count in (2_000, 3_500_000, 12e9)] == ["2 kB", "3.5 MB", "12.0 GB"]
