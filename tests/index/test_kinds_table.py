"""What is said of the kinds of index follows from their classes; one more is one class and one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from embedcache.index.approximate import Approximate
from embedcache.index.kinds import KINDS
from embedcache.index.kinds.ivf import Ivf
from embedcache.index.plan import human_bytes
from tests.conftest import document, fails, invoke, make_cache

PAGE = Path(__file__).resolve().parents[2] / "docs" / "search.md"
ROWS, DIM = 1_000_000, 384


def table_of_kinds() -> str:
    """The table of docs/search.md."""
    lines = [
        f"| kind | what it is | when `auto` takes it | memory, {ROWS:,} x {DIM} | tuned | on a GPU |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for name, one in KINDS.items():
        tuned, on_gpu = "-", "yes"
        if issubclass(one, Approximate):
            tuned = one.effort_name + (", rerank_factor" if len(one.factors) > 1 else "")
            on_gpu = "yes" if one.on_gpu else "no"
        memory = human_bytes(one.cost(ROWS, DIM).bytes)
        if (small := one.cost_without_copies(ROWS, DIM)) is not None:
            memory += f", or {human_bytes(small.bytes)}"
        lines.append(f"| {name} | {one.what} | {one.when} | {memory} | {tuned} | {on_gpu} |")
    return "\n".join(lines)


def test_the_page_has_every_kind() -> None:
    assert table_of_kinds() in PAGE.read_text("utf-8"), f"put this into docs/search.md:\n{table_of_kinds()}"


def test_the_help_has_every_kind() -> None:
    shown = re.sub(r"\s+", "", invoke("index", "--help").stdout)
    assert f"[auto|{'|'.join(KINDS)}]" in shown


class Coarse(Ivf):
    """IVF whose copies are brain floats."""

    kind, what, when, auto_on = "ivf-bf16", "IVF over bfloat16 copies", "never", ()
    quantizer = "QT_bf16"


def test_one_more_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes it, tunes it, writes it, reads it and extends it."""
    X = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float16)
    cache = make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(2000)], X[:2000])
    assert "ivf-bf16" in fails("index", cache, "--kind", "ivf-bf16", code=2)
    monkeypatch.setitem(KINDS, Coarse.kind, Coarse)
    made = document("index", cache, "--kind", "ivf-bf16", "--recall", 0.9)
    assert (made["action"], made["kind"], made["reached"]) == ("built", "ivf-bf16", True)
    assert made["parameters"]["probes"] >= 1
    assert document("search", cache, "--row", 7, "-k", 5)["results"]
    make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(3000)], X)
    assert document("index", cache, "--kind", "ivf-bf16", "--recall", 0.9)["action"] == "extended"
    assert "ivf-bf16" in invoke("index", "--help").stdout and "ivf-bf16" in table_of_kinds()
    monkeypatch.delitem(KINDS, Coarse.kind)
    assert "unknown index kind 'ivf-bf16'" in fails("search", cache, "--row", 7)
