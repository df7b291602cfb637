"""Where the sides come from: a seed, a column, another run; and that a run of 07bcc49's kind keeps its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.runs.data import load_data
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from embedcache.runs.sides import load_sides, stored_sides
from embedcache.runs.split import SIDES, rows_digest
from embedcache.runs.split_before import split_before
from tests.conftest import make_cache
from tests.runs.caches import labelled

N = 300
SETTINGS: dict[str, Any] = {"hidden": 0, "lr": 1e-2, "epochs": 1}


def make(path: Path, rows: Any = range(N), n: int = N, **columns: list[str]) -> Path:
    """The rows of n reviews, with a kept column "part" of train, dev and TEST, blank in every tenth."""
    texts, x, labels = labelled(n)
    part = ["" if i % 10 == 0 else ["train", "train", "dev", "TEST"][i % 4] for i in range(n)]
    kept = {"part": part, "film": [f"film {i // 8}" for i in range(n)], **columns}
    pick = list(rows)
    return make_cache(
        path,
        [texts[i] for i in pick],
        x[pick],
        {"label": [labels[i] for i in pick]},
        columns={name: [values[i] for i in pick] for name, values in kept.items()},
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sides") / "cache.h5")


def sides_of(run: str | Path) -> np.ndarray:
    stored = load_sides(load_run(run))
    assert stored is not None
    return stored.side


def test_a_seed_deals_anew_and_is_part_of_what_resume_compares(cache: Path, tmp_path: Path) -> None:
    first = train_head(cache, tmp_path / "a", **SETTINGS)
    assert first.split["rule"] == "hash" and first.split["seed"] == 42
    assert train_head(cache, tmp_path / "a", resume=True, split=42, **SETTINGS).kept == 1
    other = train_head(cache, tmp_path / "b", split=7, **SETTINGS)
    assert other.split["seed"] == 7 and (sides_of(tmp_path / "a") != sides_of(tmp_path / "b")).any()
    assert train_head(cache, tmp_path / "a", resume=True, split=7, **SETTINGS).kept == 0


def test_a_column_says_the_sides(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", split_column="part", **SETTINGS)
    expected = [-1 if i % 10 == 0 else [0, 0, 1, 2][i % 4] for i in range(N)]
    assert sides_of(report.run).tolist() == expected
    assert report.split["unsided"] == N // 10 and report.split["column"] == "part" and report.split["rule"] == "column"
    assert any("'part' is blank: 30" in note for note in report.notes)


def test_a_column_without_validation_rows(tmp_path: Path) -> None:
    own = ["train" if i % 3 else "test" for i in range(N)]
    path = make(tmp_path / "c.h5", own=own, odd=[*own[:250], *["extra"] * 50])
    report = train_head(path, tmp_path / "run", split_column="own", **SETTINGS)
    codes = sides_of(report.run)
    assert (codes[::3] == 2).all() and 8 < report.split["val"] < 35
    assert any("marks no validation rows" in note for note in report.notes)
    folded = train_head(path, tmp_path / "folds", split_column="own", folds=3, **SETTINGS)
    assert folded.split["val"] == 0 and folded.split["test"] == 100 and folded.split["train"] == 200
    report = train_head(path, tmp_path / "odd", split_column="odd", **SETTINGS)
    assert any("blank or not a side ('extra'): 50" in note for note in report.notes)


def test_with_folds_the_validation_rows_of_a_column_train(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", split_column="part", folds=3, **SETTINGS)
    assert report.split["val"] == 0 and any("marks for validation, trained on" in note for note in report.notes)
    assert sum(fold["val"] for fold in report.split["folds"]) == report.split["train"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split_column": "nope"}, "keeps no such column; it has film, part"),
        ({"split_column": "label"}, "the label itself"),
        ({"split_column": "film"}, "no row with a label is marked train; its values are 'film 0', .*, \\.\\.\\.,"),
        ({"split_column": "part", "split": 3}, "--split and --split-column: give one"),
        ({"split_column": "part", "test": 0.2}, "--test and --split-column: give one"),
        ({"same_split": "gone"}, "no run at gone"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(cache: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        train_head(cache, tmp_path / "run", **settings, **SETTINGS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("grouped", [None, "film"])
def test_the_same_split_as_a_run(cache: Path, tmp_path: Path, grouped: str | None) -> None:
    """The rows in another order, some gone, some new: new ones stand where the run's seed and shares put them."""
    first = train_head(cache, tmp_path / "a", split=5, test=0.3, val=0.2, group=grouped, **SETTINGS)
    order = np.random.default_rng(0).permutation(N + 40)[: N + 10]
    other = make(tmp_path / "other.h5", order, N + 40)
    again = train_head(other, tmp_path / "b", same_split=first.run, val=0.2, group=grouped, **SETTINGS)
    everything = train_head(
        make(tmp_path / "all.h5", n=N + 40, rows=range(N + 40)), tmp_path / "c", split=5, test=0.3, val=0.2,
        group=grouped, **SETTINGS,
    )  # fmt: skip
    assert np.array_equal(sides_of(again.run), sides_of(everything.run)[order])
    new = int((order >= N).sum())
    assert any(f"dealt by its seed 5: {new}" in note for note in again.notes)
    assert again.split["rule"] == "run" and again.split["run"] == first.run and again.split["seed"] == 5
    chained = train_head(other, tmp_path / "d", same_split=again.run, val=0.2, group=grouped, **SETTINGS)
    assert np.array_equal(sides_of(chained.run), sides_of(again.run)) and chained.split["shares"]["test"] == 0.3


def test_the_same_split_takes_over_the_groups(cache: Path, tmp_path: Path) -> None:
    """Rows that are new to the run go where the rest of their group is, without being told to."""
    first = train_head(cache, tmp_path / "a", test=0.3, group="film", **SETTINGS)
    films = [f"film {i // 8 if i < N else i % 30}" for i in range(N + 60)]  # the new rows are of known films
    more = make(tmp_path / "more.h5", range(N + 60), N + 60, film=films)
    again = train_head(more, tmp_path / "b", same_split=first.run, **SETTINGS)
    assert again.split["group"] == "film" and not any("several sides" in note for note in again.notes)
    of_film: dict[str, set[int]] = {}
    for film, side in zip(films, sides_of(again.run).tolist(), strict=True):
        of_film.setdefault(film, set()).add(side)
    assert all(len(found) == 1 for found in of_film.values())
    texts, x, labels = labelled(N + 60)
    bare = make_cache(tmp_path / "bare.h5", texts, x, {"label": labels})
    without = train_head(bare, tmp_path / "c", same_split=first.run, **SETTINGS)
    assert any("extract with --keep film" in note for note in without.notes) and without.split["group"] is None
    assert np.array_equal(sides_of(without.run)[:N], sides_of(first.run))


def test_the_same_split_with_and_without_folds(cache: Path, tmp_path: Path) -> None:
    plain = train_head(cache, tmp_path / "a", **SETTINGS)
    folds = train_head(cache, tmp_path / "b", same_split=plain.run, folds=3, **SETTINGS)
    assert np.array_equal(sides_of(folds.run) == 2, sides_of(plain.run) == 2) and folds.split["val"] == 0
    back = train_head(cache, tmp_path / "c", same_split=folds.run, **SETTINGS)
    assert np.array_equal(sides_of(back.run), sides_of(plain.run))
    assert any("has no validation rows" in note for note in back.notes)


def test_the_same_split_of_a_run_of_other_texts(cache: Path, tmp_path: Path) -> None:
    run = train_head(cache, tmp_path / "a", **SETTINGS).run
    other = make_cache(
        tmp_path / "o.h5", [f"{i}" for i in range(40)], np.eye(40, dtype=np.float32), {"label": ["a", "b"] * 20}
    )
    with pytest.raises(EmbedcacheError, match="trained on other texts"):
        train_head(other, tmp_path / "b", same_split=run, **SETTINGS)


@pytest.mark.parametrize("group", [None, "film"])
def test_a_run_that_does_not_hold_its_sides(cache: Path, tmp_path: Path, group: str | None) -> None:
    """As 07bcc49 wrote them: the old dealing, known again by the digests of its rows."""
    run = Path(train_head(cache, tmp_path / "run", group=group, **SETTINGS).run)
    with open_cache(cache) as opened:
        data = load_data(opened, None, None, -1, group)
        old = split_before(data.codes, opened.hashes, data.keys, val=0.1, test=0.1)
        assert abs(len(old.test) - 30) < 10 and (old.codes(N) != sides_of(run)).any()
        info = json.loads((run / "run.json").read_text("utf-8"))
        info["split"]["digests"] = {side: rows_digest(getattr(old, side)) for side in SIDES}
        for new in ("rule", "seed", "shares", "column", "run", "unsided"):
            del info["split"][new]
        del info["files"]["predictions.parquet"]
        (run / "run.json").write_text(json.dumps(info), "utf-8")
        (run / "predictions.parquet").unlink()
        assert np.array_equal(stored_sides(opened, load_run(run), "--run"), old.codes(N))
    same = train_head(cache, tmp_path / "same", same_split=run, group=group, **SETTINGS)
    assert np.array_equal(sides_of(same.run), old.codes(N))
    fewer = make(tmp_path / "fewer.h5", range(N - 1))
    with pytest.raises(EmbedcacheError, match="does not hold its sides"):
        train_head(fewer, tmp_path / "other", same_split=run, **SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "3", "--split-column", "part"], ["--split and --split-column: give one of them"]),
        (["--same-split", "r", "--split-column", "part"], ["--split-column and --same-split: give one of them"]),
        (["--split-column", "part", "--test", "0.2"], ["--test and --split-column: give one of them"]),
        (["--same-split", "r", "--test", "0.2"], ["--test and --same-split: give one of them"]),
        (["--split", "-1"], ["--split"]),
        (["--choose", "f1"], ["--choose"]),
    ],
    ids=" ".join,
)
def test_options_that_exclude_each_other_are_wrong_usage(cache: Path, arguments: list[str], words: list[str]) -> None:
    from click.testing import CliRunner

    from embedcache.cli import main

    result = CliRunner().invoke(main, ["train-head", str(cache), "-o", str(cache.parent / "no"), *arguments])
    assert result.exit_code == 2 and not (cache.parent / "no").exists()
    for word in words:
        assert word in result.output
