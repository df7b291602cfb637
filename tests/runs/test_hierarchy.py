"""train-head --hierarchy: the tree, its probabilities against brute force, scores per level, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.runs.folder import load_run
from embedcache.runs.hierarchy import Hierarchy
from embedcache.runs.hierarchy_labels import AskedHierarchy, read_hierarchy
from embedcache.runs.intervals import score_interval
from embedcache.runs.level_scores import score_levels
from tests.conftest import document, fails, invoke, make_cache, make_reviews

LEAVES = ("Arts>Film>Crime", "Arts>Film>Drama", "Arts>Music", "News>Film", "News", "News>Sport>Ball>Foot")
TREE = Hierarchy(("a", "b", "c", "d"), tuple(tuple(leaf.split(">")) for leaf in LEAVES), ">")
SETTINGS: dict[str, Any] = {"hidden": [0], "lr": 1e-2, "epochs": 6, "threads": 1}


def leaves_below(name: str) -> list[int]:
    return [i for i, leaf in enumerate(LEAVES) if leaf == name or leaf.startswith(f"{name}>")]


def test_a_node_is_as_probable_as_its_leaves_together() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(len(LEAVES)), 50)
    found = TREE.probabilities(p)
    assert sorted(TREE.names) == sorted(
        ["Arts", "News", "Arts>Film", "Arts>Music", "News>Film", "News>Sport", "Arts>Film>Crime", "Arts>Film>Drama",
         "News>Sport>Ball", "News>Sport>Ball>Foot"]
    )  # fmt: skip
    for i, name in enumerate(TREE.names):
        np.testing.assert_allclose(found[:, i], p[:, leaves_below(name)].sum(axis=1), atol=1e-12)
    assert [TREE.names[i] for i in TREE.own] == list(LEAVES)


@pytest.mark.parametrize("least", [0.2, 0.5, 0.8, 0.999])
def test_the_deepest_sure_node(least: float) -> None:
    p = np.random.default_rng(1).dirichlet(np.full(len(LEAVES), 0.3), 200)
    every = TREE.probabilities(p)
    for node, row in zip(TREE.deepest(every, least).tolist(), every, strict=True):
        sure = [(name.count(">"), row[i], i) for i, name in enumerate(TREE.names) if row[i] >= least]
        assert node == (max(sure)[2] if sure else -1)
        if node >= 0:  # what is above the answer is no less sure
            assert (row[[i for i in TREE.chains[node] if i >= 0]] >= least).all()


def test_scores_of_levels_are_those_of_cut_paths() -> None:
    rng = np.random.default_rng(2)
    y, said = rng.integers(0, len(LEAVES), (2, 300))
    said = np.where(rng.random(300) < 0.5, y, said)
    found = score_levels(TREE, y, said, interval=True)
    for i, level in enumerate(found.levels):
        cut = [[">".join(LEAVES[k].split(">")[: i + 1]) for k in one] for one in (y, said)]
        assert level.accuracy == pytest.approx(accuracy_score(*cut))
        assert level.nodes == len({name for name in TREE.names if name.count(">") == i})
    assert found.levels[-1].accuracy == pytest.approx(accuracy_score(y, said))
    ancestors = np.array([[leaf == name or leaf.startswith(f"{name}>") for name in TREE.names] for leaf in LEAVES])
    assert found.hierarchical_f1 == pytest.approx(f1_score(ancestors[y], ancestors[said], average="micro"))
    low, high = found.hierarchical_f1_interval or (1, 0)
    assert low < found.hierarchical_f1 < high


def test_the_interval_of_hierarchical_f1_is_the_jackknifes() -> None:
    """The standard error behind it, against leaving each group out by hand; the score moves as the interval says."""
    rng = np.random.default_rng(3)
    y, said = rng.integers(0, len(LEAVES), (2, 60))
    said = np.where(rng.random(60) < 0.6, y, said)
    groups = np.arange(60) // 3
    chains = TREE.chains[TREE.own[y]], TREE.chains[TREE.own[said]]
    without = []
    for one in range(20):
        left = groups != one
        without.append(score_levels(TREE, y[left], said[left]).hierarchical_f1)
    value = score_levels(TREE, y, said).hierarchical_f1
    error = np.sqrt(19 / 20 * ((np.array(without) - np.mean(without)) ** 2).sum())
    low, high = score_interval("hierarchical_f1", *chains, groups) or (0, 0)
    assert high - low == pytest.approx(2 * 2.093 * error, rel=0.06)  # Student's quantile of 19 degrees of freedom
    assert low < value < high


def test_what_can_be_asked_for() -> None:
    assert read_hierarchy("a > b>c") == AskedHierarchy(("a", "b", "c"))
    assert read_hierarchy(["a>b", "c"]) == AskedHierarchy(("a>b", "c"))
    assert read_hierarchy(" > ") == AskedHierarchy(separator=">")
    assert read_hierarchy("::") == AskedHierarchy(separator="::")
    for wrong in ("genre", "a>", "", " ", "a>a", ["a"]):
        with pytest.raises(EmbedcacheError, match="--hierarchy"):
            read_hierarchy(wrong)


# ---- runs ----

FINE = {"crime": "film", "drama": "film", "jazz": "music", "rock": "music"}


def tree_cache(path: Path, change: Any = None, n: int = 400) -> Path:
    """Columns fine, coarse (kept), media (kept) and paths: two coarse nodes that the vectors tell, fine ones less so.

    Every eighth path ends above its leaf. change: of rows {"fine", "coarse", "media", "path"}.
    """
    rng = np.random.default_rng(0)
    names = list(FINE)
    rows = []
    for i in range(n):
        fine = names[i % 4]
        coarse = FINE[fine]
        path_ = f"arts / {coarse}" if i % 8 == 7 else f"arts / {coarse} / {fine}"
        rows.append({"fine": fine, "coarse": coarse, "media": "arts", "path": path_})
    x = rng.normal(size=(n, 6))
    x[:, 0] += [3 if row["coarse"] == "film" else -3 for row in rows]
    x[:, 1] += [1 if row["fine"] in ("crime", "jazz") else -1 for row in rows]
    if change:
        change(rows)
    texts = [f"{i} {text}" for i, (text, _) in enumerate(make_reviews(n))]
    labels = {name: [row[name] or None for row in rows] for name in ("fine", "path")}
    labels["several"] = [[row["fine"] or "none"] for row in rows]
    kept = {name: [row[name] for row in rows] for name in ("coarse", "media")}
    return make_cache(path, texts, {"cls": x.astype(np.float16)}, labels, columns=kept)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree_cache(tmp_path_factory.mktemp("tree") / "c.h5")


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree_runs") / "run"
    ec.train_run(cache, folder, hierarchy="media>coarse>fine", val=0.3, test=0.3, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def paths(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path_runs") / "paths"
    document("train-head", cache, "-o", folder, "--label", "path", "--hierarchy", "/", "--hidden", 0, "--epochs", 6,
             "--lr", 1e-2, "--val", 0.3)  # fmt: skip
    return folder


def test_the_heads_are_those_of_the_leaves(cache: Path, run: Path, tmp_path: Path) -> None:
    ec.train_run(cache, tmp_path / "flat", label="fine", val=0.3, test=0.3, **SETTINGS)
    flat, tree = load_run(tmp_path / "flat"), load_run(run)
    assert tree.classes == flat.classes == sorted(FINE)
    assert (flat.best.weights["w2"] == tree.best.weights["w2"]).all()
    assert tree.info["options"]["hierarchy"] == ["media", "coarse", "fine"]
    paths = dict(zip(tree.classes, tree.info["hierarchy"]["paths"], strict=True))
    assert paths == {fine: ["arts", coarse, fine] for fine, coarse in FINE.items()}
    assert "hierarchy" not in flat.info and "levels" not in flat.info["evaluation"]["test"]


def test_levels_are_scored_wherever_heads_are(cache: Path, run: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    info = load_run(run).info
    for side in ("val", "test"):
        scored = info["evaluation"][side]
        stored = pq.read_table(run / "predictions.parquet").to_pylist()
        rows = [row for row in stored if row["side"] == side]
        right = np.mean([FINE[row["label"]] == FINE[row["predicted"]] for row in rows])
        media, coarse, fine = scored["levels"]
        assert (media["accuracy"], coarse["accuracy"]) == (1.0, pytest.approx(right))
        assert fine["accuracy"] == scored["accuracy"] < coarse["accuracy"]
        assert scored["hierarchical_f1"] == pytest.approx((1 + right + fine["accuracy"]) / 3)
    assert info["evaluation"]["test"]["levels"][1]["accuracy_interval"][0] < right
    with (run / "leaderboard.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["val_accuracy_coarse"]) == info["evaluation"]["val"]["levels"][1]["accuracy"]
    assert float(row["val_hierarchical_f1"]) == info["evaluation"]["val"]["hierarchical_f1"]
    invoke("report", run, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Right down to each level" in page and "hierarchical F1" in page
    options = ("--hierarchy", "media>coarse>fine", "--epochs", 1)
    shown = invoke("train-head", cache, "-o", tmp_path / "run", *options).output
    assert "Right down to each level" in shown and "hierarchical F1" in shown


def test_evaluate_scores_levels_of_labels_that_are_new_too(cache: Path, run: Path, tmp_path: Path) -> None:
    from embedcache.cache import open_cache

    def some_new(rows: list[dict[str, str]]) -> None:
        for row in rows[::10]:
            row["fine"] = "opera" if row["coarse"] == "music" else "thriller"

    other = tree_cache(tmp_path / "other.h5", some_new)
    found = document("evaluate", run, other, "--label", "fine", "-o", tmp_path / "page.html")["runs"][0]["evaluation"]
    with open_cache(other) as opened:
        said = load_run(run).best.predict(opened.embeddings("cls").astype(np.float32))
        coarse, fine = opened.column("coarse"), [opened.labels("fine").classes[i] for i in opened.labels("fine").codes]
    assert found["levels"][2]["accuracy"] == pytest.approx(np.mean(said == np.array(fine)))
    assert found["levels"][1]["accuracy"] == pytest.approx(
        np.mean([FINE[a] == b for a, b in zip(said, coarse, strict=True)])
    )
    assert "Right down to each level" in (tmp_path / "page.html").read_text()
    assert "hierarchical F1" in invoke("evaluate", run, other, "--label", "fine").output


def test_paths_may_end_on_any_level(paths: Path) -> None:
    info = load_run(paths).info
    assert info["hierarchy"]["separator"] == " / "  # as the labels are written
    assert info["hierarchy"]["levels"] == ["level_1", "level_2", "level_3"]
    assert "arts / music" in info["classes"] and ["arts", "music"] in info["hierarchy"]["paths"]


def test_what_is_refused(cache: Path, tmp_path: Path) -> None:
    def said(path: Path, *more: Any) -> str:
        assert not (tmp_path / "run").exists()
        return fails("train-head", path, "-o", tmp_path / "run", "--epochs", 1, *more)

    def two_parents(rows: list[dict[str, str]]) -> None:
        rows[5]["coarse"] = "film" if rows[5]["coarse"] == "music" else "music"

    def empty(rows: list[dict[str, str]]) -> None:
        rows[6]["coarse"] = " "

    def odd_path(rows: list[dict[str, str]]) -> None:
        rows[6]["path"] = "arts / / rock"

    def two_spellings(rows: list[dict[str, str]]) -> None:
        rows[6]["path"] = "arts/music/jazz"

    tree = ("--hierarchy", "coarse>fine")
    line = said(tree_cache(tmp_path / "two.h5", two_parents), *tree)
    assert "'drama' in 'fine' has two parents in 'coarse', 'film' (row 1) and 'music' (row 5)" in line
    assert "like film>drama" in line
    line = said(tree_cache(tmp_path / "empty.h5", empty), *tree)
    assert "row 6 of" in line and "has 'jazz' in 'fine' and nothing in 'coarse'" in line
    slash = ("--label", "path", "--hierarchy", "/")
    assert "'arts / / rock', with an empty level" in said(tree_cache(tmp_path / "odd.h5", odd_path), *slash)
    line = said(tree_cache(tmp_path / "spelled.h5", two_spellings), *slash)
    assert "one path in two spellings" in line and "'arts/music/jazz'" in line
    assert "no '|' in any label" in said(cache, "--label", "path", "--hierarchy", "|")
    assert "leave --label out" in said(cache, "--label", "path", *tree)
    assert "is of one label column" in said(cache, "--label", "path,fine", "--hierarchy", "/")
    assert "keeps no column 'nope'; it has coarse, media" in said(cache, "--hierarchy", "nope>fine")
    assert "no label column 'nope'" in said(cache, "--hierarchy", "coarse>nope")
    assert "is a multilabel" in said(cache, "--hierarchy", "coarse>several")
    assert "name label columns from the top down, like genre>subgenre" in said(cache, "--hierarchy", "fine")


def test_rows_without_a_leaf_are_told(tmp_path: Path) -> None:
    def some(rows: list[dict[str, str]]) -> None:
        for row in rows[:9]:
            row["fine"] = ""

    made = tree_cache(tmp_path / "c.h5", some)
    report = ec.train_run(made, tmp_path / "run", hierarchy=["coarse", "fine"], **SETTINGS)
    assert any("with a value above 'fine' and none in it: 9; one column of paths" in note for note in report.notes)


def test_from_takes_the_hierarchy_over(cache: Path, run: Path, tmp_path: Path) -> None:
    ec.train_run(cache, tmp_path / "next", from_run=run, lr=1e-3, epochs=2, threads=1)
    assert load_run(tmp_path / "next").info["hierarchy"] == load_run(run).info["hierarchy"]


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["paths"].pop(),
        lambda tree: tree["paths"].__setitem__(0, tree["paths"][1]),
        lambda tree: tree["levels"].append("more"),
        lambda tree: tree["paths"].__setitem__(0, []),
        lambda tree: tree.__setitem__("separator", 3),
    ],
)
def test_a_damaged_tree_is_one_line(run: Path, tmp_path: Path, change: Any) -> None:
    import shutil

    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    info = json.loads((copy / "run.json").read_text())
    change(info["hierarchy"])
    (copy / "run.json").write_text(json.dumps(info))
    with pytest.raises(EmbedcacheError, match=r"run.json is damaged: .*hierarchy"):
        load_run(copy)
