"""A barrier that is left out is noticed: a sample of what ``python -m tests.heads.weaken_barriers`` does for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.heads.cuda_emulation import COMPILER, THREAD_FLAGS, build_library
from tests.heads.weaken_barriers import CASES, cases_of, sites, weaken
from tests.sanitizers import preloaded


def test_sites() -> None:
    """Every kernel file has its barriers, and every barrier has cases."""
    found = sites()
    assert len(found) >= 40 and len({site for site, _ in found}) == len(found)
    assert {site.split(".")[0] for site, _ in found} >= {"cluster", "cluster_math", "stacked_tile", "tile", "shuffle"}
    assert all(cases_of(site) in CASES.values() for site, _ in found)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_a_sample_is_noticed(tmp_path: Path) -> None:
    preloaded("libtsan.so")
    shown = dict(weaken(build_library(tmp_path, THREAD_FLAGS), "^(shuffle|tile|stacked_tile).cuh"))
    noticed = [site for site, how in shown.items() if how != "not noticed"]
    assert len(shown) >= 10 and len(noticed) >= len(shown) - 2, shown
    assert {site.split(":")[0] for site in noticed} == {"shuffle.cuh", "tile.cuh", "stacked_tile.cuh"}
