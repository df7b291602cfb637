"""A table that changes at random, and its cache after every step: every row has its own text, label and vector."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from tests.conftest import WORDS, document, write_csv

LABELS = ("good", "bad", "", "so so")
Row = tuple[str, str, str]  # text, label, film


def make_row(chance: random.Random) -> Row:
    text = " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))
    return text, chance.choice(LABELS), f"film {chance.randint(0, 9)}"


def step(rows: list[Row], chance: random.Random) -> list[Row]:
    """The table after one change of a kind drawn at random."""
    kind = chance.choice(("append", "insert", "delete", "shuffle", "relabel", "rewrite", "repeat"))
    rows, some = list(rows), sorted(chance.sample(range(len(rows)), min(len(rows), chance.randint(1, 8))))
    if kind == "append":
        rows += [make_row(chance) for _ in some]
    elif kind == "insert":
        for at in some:
            rows.insert(at, make_row(chance))
    elif kind == "delete" and len(rows) > 20:
        rows = [row for i, row in enumerate(rows) if i not in some]
    elif kind == "shuffle":
        chance.shuffle(rows)
    elif kind == "relabel":
        for at in some:
            rows[at] = (rows[at][0], chance.choice(LABELS), f"film {chance.randint(0, 9)}")
    elif kind == "rewrite":
        for at in some:
            rows[at] = (make_row(chance)[0], *rows[at][1:])
    else:
        rows += [rows[at] for at in some]
    return rows


def walk(folder: Path, encoder: Path, steps: int, seed: int) -> None:
    chance = random.Random(seed)
    table, path = folder / "table.csv", folder / "cache.h5"
    rows = [make_row(chance) for _ in range(60)]
    vectors: dict[str, bytes] = {}  # of each text, as it was first encoded
    there: set[str] = set()  # texts of the cache before a step
    for number in range(steps):
        write_csv(table, rows, ("text", "label", "film"))
        report = document("extract", table, "-o", path, "--model", encoder, "--keep", "film", "--pooling", "mean")
        texts = {row[0] for row in rows}
        assert (report["rows"], report["encoded"]) == (len(rows), len(texts - there)), number
        there = texts
        with ec.open_cache(path) as cache:
            assert list(cache.texts) == [row[0] for row in rows], number
            assert list(cache.labels("label").names) == [row[1] or None for row in rows], number
            assert list(cache.column("film")) == [row[2] for row in rows], number
            for (text, *_), vector in zip(rows, np.array(cache.embeddings("mean")), strict=True):
                assert vectors.setdefault(text, vector.tobytes()) == vector.tobytes(), (number, text)
        rows = step(rows, chance)
    assert document("verify", path)["damaged"] == []


def test_a_short_walk(tiny_bert: Path, tmp_path: Path) -> None:
    walk(tmp_path, tiny_bert, 30, 0)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(1, 5))
def test_160_steps(tiny_bert: Path, tmp_path: Path, seed: int) -> None:
    walk(tmp_path, tiny_bert, 160, seed)
