"""next: from a cache and its journal to a table, and what stands in the way."""

from __future__ import annotations

import csv
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.active_learning.estimates import estimates_of
from embedcache.active_learning.from_cache import labelled_rows_of, pool_of, snapshot_of
from embedcache.active_learning.queue import QUEUES
from embedcache.errors import EmbedcacheError
from embedcache.labelling import LabelEntry, LabelJournal, open_labelled
from embedcache.runs.folder import load_run
from embedcache.runs.split import places
from tests.active_learning.conftest import make_blobs
from tests.conftest import FOUR_HEADS, document, fails, invoke, make_cache

BLOBS = make_blobs([200, 200])
NAMES = ["fresh", "rotten"]
TEXTS = [f"text {i}" for i in range(400)]


def entry(row: int, after: Any, **more: Any) -> LabelEntry:
    digest = blake2b(TEXTS[row].encode(), digest_size=16).hexdigest()
    return LabelEntry(row_hash=digest, column="label", after=after, **{"who": "ada", **more})


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """400 rows, the first 100 with a label; ids r0, r1, ..."""
    labels = [NAMES[BLOBS.truth[i]] if i < 100 else None for i in range(400)]
    ids = {"n": [f"r{i}" for i in range(400)], "stars": [f"{x:.3f}" for x in BLOBS.x[:, 0]]}
    return make_cache(tmp_path / "c.h5", TEXTS, BLOBS.x, {"label": labels}, columns=ids, id="n")


def test_the_table_has_what_people_need(partly: Path, tmp_path: Path) -> None:
    report = ec.next_rows(partly, tmp_path / "next.csv", count=20)
    with (tmp_path / "next.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "id", "text", "guess", "probability", "queue", "reason", "label"]
    assert len(rows) == 20
    for row, one in zip(rows, report.rows, strict=True):
        number = int(row["row"])
        assert (row["id"], row["text"]) == (f"r{number}", TEXTS[number])
        assert row["label"] == (NAMES[BLOBS.truth[number]] if number < 100 else "")
        assert (row["guess"], row["queue"], row["reason"]) == (one.guess, one.queue, one.reason)
        assert float(row["probability"]) == pytest.approx(one.probability, rel=1e-5)
    right = [NAMES[BLOBS.truth[one.row]] == one.guess for one in ec.next_rows(partly, count=200, queue="random").rows]
    assert np.mean(right) > 0.9
    assert (report.labelled, report.unlabelled) == (100, 300)
    assert report.score is not None
    assert report.score.value > 0.9
    learned = int((places(ec.open_cache(partly).hashes)[:100] >= 0.1).sum())  # a tenth of the texts tests
    assert report.heads == f"trained on {learned} labels"
    assert report.to_pandas().shape == (20, 8)
    assert "rows to label next" in report._repr_html_()


def test_the_screen_and_json(partly: Path, tmp_path: Path) -> None:
    screen = invoke("next", partly, "-n", 12)
    assert screen.exit_code == 0
    assert "100 rows with a label in label, 300 without; heads: trained on" in screen.output
    assert "uncertain: the heads are unsure" in screen.output
    assert "... and 2 more" in screen.output
    found = document("next", partly, "-n", 12, "-o", tmp_path / "next.jsonl", "--json")
    assert len(found["rows"]) == 12
    assert found["label"] == "label"
    assert found["score"]["metric"] == "accuracy"
    assert len((tmp_path / "next.jsonl").read_text().splitlines()) == 12
    assert "fill in the column label" in invoke("next", partly, "-n", 2, "-o", tmp_path / "n.csv").output


def test_what_people_gave_counts_and_is_not_shown_again(partly: Path) -> None:
    journal = LabelJournal.beside(partly)
    others = [row for row in range(100, 400) if row != 300]
    journal.append([entry(row, NAMES[BLOBS.truth[row]]) for row in others])
    journal.append([entry(300, None, action="skip"), entry(5, "new class")])
    report = ec.next_rows(partly, count=400, queue="random")
    assert {one.row for one in report.rows} == set(range(100)) - {5}
    assert report.labels is not None
    assert report.labels["labels"] == 300
    without = ec.next_rows(partly, count=400, queue="random", labels="none")
    assert len(without.rows) == 400
    assert "300 labels from c.h5.labels.jsonl" in invoke("next", partly).output


def test_a_run_gives_column_vectors_and_test_rows(partly: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    invoke("train-head", partly, "-o", run, *FOUR_HEADS)
    report = ec.next_rows(partly, run=run, count=300, queue="uncertain")
    assert (report.label, report.pooling) == ("label", "cls")
    # Of a cache in which nothing has a label the run's heads guess.
    bare = make_cache(tmp_path / "bare.h5", TEXTS, BLOBS.x, columns={"n": ["x"] * 400})
    assert "has no label column" in fails("next", bare)
    guessed = ec.next_rows(bare, run=run, count=100, queue="random")
    assert guessed.heads == f"of {run}"
    assert np.mean([NAMES[BLOBS.truth[one.row]] == one.guess for one in guessed.rows]) > 0.9
    with pytest.raises(EmbedcacheError, match="heads for label, not for 'genre'"):
        ec.next_rows(partly, run=run, label="genre")


def test_from_nothing(tmp_path: Path) -> None:
    bare = make_cache(tmp_path / "bare.h5", TEXTS, BLOBS.x)
    proba = np.full((400, 2), 0.5)
    proba[7] = [0.501, 0.499]
    proba[:7, 0] += 0.3
    proba[8:, 0] += 0.3

    def start(cache: ec.Cache, pooling: str) -> tuple[list[str], np.ndarray]:
        assert (cache.rows, pooling) == (400, "cls")
        return NAMES, proba

    report = ec.next_rows(bare, labels_of=start, count=3, queue="uncertain")
    assert report.rows[0].row == 7
    assert (report.rows[0].guess, report.rows[0].label) == ("fresh", None)
    assert report.label == "label"
    assert report.heads.startswith("none yet")
    assert report.notes[0].startswith("0 rows have a label")
    LabelJournal.beside(bare).append([entry(row, NAMES[BLOBS.truth[row]]) for row in range(60)])
    assert ec.next_rows(bare, labels_of=start).heads.startswith("trained on")


def test_lists_and_numbers(tmp_path: Path) -> None:
    lists = [None if i >= 100 else [NAMES[BLOBS.truth[i]]] for i in range(400)]
    lists[3] = ["fresh", "rotten"]
    cache = make_cache(tmp_path / "lists.h5", TEXTS, BLOBS.x, {"topics": lists})
    report = ec.next_rows(cache, tmp_path / "next.csv", count=5)
    assert all(isinstance(one.guess, list) for one in report.rows)
    assert any(note.startswith("errors: only labels of one class") for note in report.notes)
    fails("next", cache, "--queue", "errors")


def test_the_snapshot_and_the_estimates_of_a_journal(partly: Path) -> None:
    """30 rows drawn by chance, 6 of which had a wrong label; two people on 20 texts, who agree on all but 5."""
    drawn = [entry(row, "x" if row < 6 else "y", before="y", queue="random") for row in range(30)]
    times = [f"2026-01-01T10:{row:02d}:00Z" for row in range(20)]
    same = [entry(row, "y" if row < 25 else "x", who="bob", time=times[row - 10]) for row in range(10, 30)]
    LabelJournal.beside(partly).append([*same, *drawn])
    with open_labelled(partly) as cache:
        people = labelled_rows_of(cache, "label")
        pool = pool_of(cache, "label", "cls")
        snapshot = snapshot_of(cache, "label", pool, people, ["more"])
        np.testing.assert_array_equal(pool.test, places(cache.hashes) < 0.1)
    assert snapshot.classes == ["fresh", "rotten", "x", "y", "more"]
    assert snapshot.chance.sum() == snapshot.checked.sum() == snapshot.settled.sum() == 30
    texts = {one.entry.row_hash: one for one in people.given}
    found = estimates_of(list(texts.values()), int((snapshot.labelled & ~snapshot.checked).sum()))
    assert found.wrong is not None
    assert (found.wrong.share, found.wrong.rows, found.wrong.left) == (0.2, 30, 14)  # of 70 labels nobody checked
    assert found.agreement is not None
    assert (found.agreement.rows, found.agreement.same) == (20, 0.75)
    assert found.advice.stop is None
    assert found.to_dict()["wrong"]["source"] == "chance"


def test_rows_of_one_group(tmp_path: Path) -> None:
    """The group's rows take turns, and test together, as train-head deals them; a run's groups are taken unasked."""
    films = [f"film {i % 30}" if i < 200 else "the one" for i in range(400)]
    labels = [NAMES[BLOBS.truth[i]] if i % 4 == 0 else None for i in range(400)]
    cache = make_cache(tmp_path / "c.h5", TEXTS, BLOBS.x, {"label": labels}, columns={"film": films})
    report = document("next", cache, "--group", "film", "-n", 20, "-o", tmp_path / "next.csv")
    shown = [films[one["row"]] for one in report["rows"]]
    assert len(set(shown)) == 20
    assert len({films[one["row"]] for one in document("next", cache, "-n", 20)["rows"]}) < 16
    document("train-head", cache, "-o", tmp_path / "run", "--group", "film", *FOUR_HEADS)
    with ec.open_cache(cache) as opened:
        pool = pool_of(opened, "label", "cls", group="film")
        mine = pool_of(opened, "label", "cls", run=load_run(tmp_path / "run").columns["label"])
    np.testing.assert_array_equal(pool.group, mine.group)
    for name in set(films):
        assert len(set(pool.test[[film == name for film in films]].tolist())) == 1
    run = document("next", cache, "--run", tmp_path / "run", "-n", 20)
    assert len({films[one["row"]] for one in run["rows"]}) == 20
    assert "keeps no column 'author'" in fails("next", cache, "--group", "author")
    assert "that is the label itself" in fails("next", cache, "--group", "label")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--queue", "rare"], "no rows to show (rare): no class is rare"),
        (["--label", "genre"], "no label column 'genre'"),
        (["-o", "next.doc"], "tables are not written as '.doc'"),
        (["--labels", "no.jsonl"], "no such labels journal"),
        (["--run", "nowhere"], "no run at nowhere"),
    ],
)
def test_what_cannot_be_had_is_told(partly: Path, arguments: list[str], says: str) -> None:
    assert says in fails("next", partly, *arguments)


def test_every_queue_by_its_name(partly: Path) -> None:
    for queue in set(QUEUES) - {"rare"}:
        result = invoke("next", partly, "--queue", queue, "-n", 3)
        assert result.exit_code == 0 or "no label looks wrong" in result.output
    assert "is not one of" in fails("next", partly, "--queue", "best", code=2)
