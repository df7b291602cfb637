"""Search in a whole cache: filters, files of queries, and what must be refused. Of the index: tests/index/."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from embedcache.cli import main
from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex
from embedcache.search.job import search_cache
from embedcache.search.searcher import Query, Searcher
from tests.conftest import make_cache, make_reviews
from tests.search.brute_force import cosines

REVIEWS = make_reviews(60)
TEXTS = [text for text, _ in REVIEWS]
LABELS = [None if i % 10 == 9 else label for i, (_, label) in enumerate(REVIEWS)]
MOVIES = [["Alien", "Me, Myself & Irene", "七人の侍", ""][i % 4] for i in range(60)]


# A whole cache, with the tiny BERT that made it.


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    from embedcache.encoder import Encoder

    encoder = Encoder.load(tiny_bert, max_length=64, device="cpu", dtype="float32")
    cls, mean = encoder.encode_texts(TEXTS, [("cls", -1), ("mean", -1)])
    return make_cache(
        tmp_path_factory.mktemp("search") / "reviews.h5",
        TEXTS,
        {"cls": cls, "mean": mean},
        {"label": LABELS},
        columns={"movie": MOVIES, "key": [f"r{i}" for i in range(60)]},
        id="key",
        encoder={"source": encoder.source, "identity": encoder.identity},
    )


@pytest.mark.parametrize("pooling", [None, "cls", "mean"])
def test_a_text_finds_itself(cache: Path, pooling: str | None) -> None:
    report = search_cache(cache, query=TEXTS[12], k=3, pooling=pooling, device="cpu")
    document = report.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["query"] == TEXTS[12]
    assert (report.k, report.candidates) == (3, 60)
    first = document["results"][0]
    assert first.pop("score") == pytest.approx(1, abs=1e-5)
    about = {"labels": {"label": "negative"}, "id": "r12", "columns": {"movie": "Alien"}}
    assert first == {"rank": 1, "row": 12, "text": TEXTS[12], **about}
    assert [found["rank"] for found in document["results"]] == [1, 2, 3]


def test_a_row_is_not_its_own_neighbour(cache: Path) -> None:
    (answer,) = search_cache(cache, row=12, k=100).answers
    assert (answer.query, answer.row) == (TEXTS[12], 12)
    assert sorted(found.row for found in answer.results) == [i for i in range(60) if i != 12]
    assert [found.labels["label"] for found in answer.results if found.row == 9] == [None]
    direct = SearchIndex.build(cache).search(TEXTS[12], k=60)
    assert direct.rows[0, 1:].tolist() == [found.row for found in answer.results]


@pytest.mark.parametrize("name", ["queries", "queries.txt", "queries.csv"])
def test_a_file_of_queries(cache: Path, tmp_path: Path, name: str) -> None:
    blank = '" "' if name.endswith("csv") else " "
    header = "text\n" if name.endswith("csv") else ""
    (tmp_path / name).write_text(f"{header}{TEXTS[3]}\n{blank}\n{TEXTS[5]}\n")
    document = search_cache(cache, file=tmp_path / name, k=2, device="cpu").to_dict()
    assert [[found["row"] for found in one["results"]][:1] for one in document["queries"]] == [[3], [], [5]]
    (tmp_path / name).write_text(f"{header}{blank}\n")
    assert search_cache(cache, file=tmp_path / name, k=2, device="cpu").to_dict()["queries"][0]["results"] == []


def test_where(cache: Path) -> None:
    def rows(where: Any) -> list[int]:
        return sorted(found.row for found in search_cache(cache, row=0, k=60, where=where).answers[0].results)

    everything = range(1, 60)
    assert rows("label=positive") == [i for i in everything if LABELS[i] == "positive"]
    assert rows(["label=positive,movie=Alien"] if LABELS[4] == "positive" else "movie=Alien") == list(range(4, 60, 4))
    assert rows("movie=Me, Myself & Irene,label=positive") == [i for i in range(1, 60, 4) if LABELS[i]]
    assert rows(["movie=七人の侍", "movie=Alien"]) == [i for i in everything if i % 4 in (0, 2)]
    assert rows("movie=") == list(range(3, 60, 4))
    assert rows("key=r0") == []
    assert rows([]) == rows(()) == rows(None) == list(everything)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("positive", r'"positive" is not a condition: write COLUMN=VALUE'),
        ("stars=5", r"no column 'stars' to filter by; it has: label, key, movie"),
        ("label=positive,stars=5", r"no row has label=positive,stars=5 .*; there is no column 'stars'"),
        ("label=postive", r"no row has label=postive \(did you mean 'positive'\?\); .*: negative, positive"),
        ("movie=Aliens", r"no row has movie=Aliens \(did you mean 'Alien'\?\)"),
        ("movie=Alien,label=positive", r"no row of .* matches --where"),
    ],
)
def test_where_that_names_nothing(cache: Path, where: str, message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        search_cache(cache, row=0, where=where)


def test_where_not(cache: Path) -> None:
    def rows(where: Any) -> list[int]:
        return sorted(found.row for found in search_cache(cache, row=0, k=60, where=where).answers[0].results)

    labelled = [i for i in range(1, 60) if LABELS[i] is not None]
    assert rows("label!=positive") == [i for i in labelled if LABELS[i] != "positive"]
    assert rows("movie!=Alien,movie != 七人の侍") == [i for i in range(1, 60) if i % 4 in (1, 3)]
    assert rows(["movie!=", "label=positive"]) == [i for i in range(60) if i % 4 != 3 and LABELS[i] == "positive" and i]


def test_where_and_labels_of_a_column_of_lists(tmp_path: Path) -> None:
    X = np.random.default_rng(5).normal(size=(7, 8)).astype(np.float32)
    topics = [["a", "b"], [], None, ["b"], ["c", "a"], ["[x"], ["a"]]
    path = make_cache(tmp_path / "c.h5", list("tuvwxyz"), X, {"topics": topics})

    def rows(*where: str) -> dict[int, Any]:
        found = search_cache(path, row=6, where=where).answers[0].results
        return {one.row: one.labels["topics"] for one in sorted(found, key=lambda one: one.row)}

    assert rows() == {0: ["a", "b"], 1: [], 2: None, 3: ["b"], 4: ["a", "c"], 5: ["[x"]}
    assert list(rows("topics=a")) == [0, 4] and list(rows("topics!=a")) == [1, 3, 5]
    assert list(rows("topics=b,topics=c")) == [0, 3, 4] and list(rows("topics!=b,topics!=c")) == [1, 5]
    assert list(rows("topics=[]")) == [1] and list(rows("topics!=[]", "topics!=a")) == [3, 5]
    assert list(rows("topics=[x")) == [5]
    with pytest.raises(EmbedcacheError, match=r"topics holds lists, .*: write topics=LABEL .*topics=\[\]"):
        rows('topics=["a", "b"]')
    with pytest.raises(EmbedcacheError, match=r"no row has topics=d; values of topics: .*a, b, c"):
        rows("topics=d")
    shown = CliRunner().invoke(main, ["search", str(path), "--row", "6"])
    assert "a, c" in shown.stdout and "none" in shown.stdout and shown.exit_code == 0


def test_where_with_commas_equals_signs_and_blanks_in_names_and_values(tmp_path: Path) -> None:
    X = np.random.default_rng(5).normal(size=(6, 8)).astype(np.float32)
    labels = {"label": ["a,b", "k=v,z=w", " lead", "l1\nl2", "a", None], "x,y": list("pqpqpq")}
    path = make_cache(tmp_path / "c.h5", list("abcdef"), X, labels, columns={"mo=vie": ["=", "2", "2 ", "2", "2", "3"]})

    def rows(*where: str) -> list[int]:
        return sorted(found.row for found in search_cache(path, row=5, where=where).answers[0].results)

    assert [rows(f"label={value}") for value in labels["label"][:5]] == [[0], [1], [2], [3], [4]]
    assert rows("label= a ") == rows(" label = a") == [4]
    assert rows("x,y=p") == [*rows("x,y=p,mo=vie=2 ", "mo=vie=="), 4] == [0, 2, 4]
    assert rows("mo=vie=2,x,y=q,label=k=v,z=w") == [1]


def test_a_table_of_queries_with_another_column_in_another_encoding(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(f"review\n{TEXTS[3]} é\n", encoding="cp1252")
    report = search_cache(cache, file=tmp_path / "q.csv", text="review", encoding="cp1252", k=1, device="cpu")
    assert report.answers[0].query == f"{TEXTS[3]} é"


def test_duplicates_are_found_and_blank_texts_are_not(tmp_path: Path) -> None:
    X = np.random.default_rng(4).normal(size=(7, 8)).astype(np.float32)
    X[3] = X[4] = X[1]
    path = make_cache(tmp_path / "c.h5", ["a", "b", "", "b", " \n", "\u3000\u2003", "　日本"], X)
    report = search_cache(path, row=1)
    (answer,) = report.answers
    assert (answer.results[0].row, answer.results[0].labels, answer.results[0].id) == (3, {}, None)
    assert sorted(found.row for found in answer.results) == [0, 3, 6]
    assert report.candidates == 3
    with pytest.raises(EmbedcacheError, match=r"row 2 of .* has a blank text"):
        search_cache(path, row=2)


def test_what_cannot_be_searched(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="one query"):
        search_cache(cache)
    with pytest.raises(EmbedcacheError, match="query is blank"):
        search_cache(cache, query=" ")
    for row in (60, -1):
        with pytest.raises(EmbedcacheError, match=f"no row {row}: it has 60, counted from 0 to 59"):
            search_cache(cache, row=row)
    with pytest.raises(EmbedcacheError, match="has no"):
        search_cache(cache, row=0, pooling="cls", layer=-2)
    with pytest.raises(EmbedcacheError, match="has no rows"):
        search_cache(make_cache(tmp_path / "empty.h5", [], np.zeros((0, 8), np.float32)), row=0)
    zero = make_cache(tmp_path / "zero.h5", ["a", "b"], np.zeros((2, 8), np.float32))
    with pytest.raises(EmbedcacheError, match=r"row 1 .* no usable vector"):
        search_cache(zero, row=1)
    with pytest.raises(EmbedcacheError, match="no such file"):
        search_cache(tmp_path / "none.h5", row=0)


def test_an_encoder_that_changed(tmp_path: Path, bert_copy: Path) -> None:
    from embedcache.encoder import Encoder

    encoder = Encoder.load(bert_copy, max_length=64, device="cpu")
    made_by = {"source": encoder.source, "identity": encoder.identity}
    X = encoder.encode_texts(TEXTS[:5], [("mean", -1)])[0]
    path = make_cache(tmp_path / "c.h5", TEXTS[:5], {"mean": X}, encoder=made_by)
    assert search_cache(path, query=TEXTS[2], device="cpu").answers[0].results[0].row == 2
    config = json.loads((bert_copy / "config.json").read_text())
    (bert_copy / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    with pytest.raises(EmbedcacheError, match=r"is not the one that made .*c\.h5: its config changed; .*extract"):
        search_cache(path, query=TEXTS[2], device="cpu")
    shutil.rmtree(bert_copy)
    with pytest.raises(EmbedcacheError, match="no such folder"):
        search_cache(path, query=TEXTS[2], device="cpu")
    assert search_cache(path, row=2).answers[0].results


# ---- conditions on numbers and dates, several examples, what is shown once ----


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Ten rows with years, dates and classes that are numbers; the vectors are corners of a cube, more or less."""
    X = np.random.default_rng(8).normal(size=(10, 8)).astype(np.float32)
    years = ["1990", "2010", "2010.5", " 2020 ", "unknown", "", "nan", "1e3", "-5", "2009"]
    dates = [f"2010-0{1 + i % 9}-15" for i in range(9)] + ["2011-01-01T10:00"]
    stars: list[str | None] = ["1", "2", "3", "4", "5", None, "1", "2", "10", "4"]
    texts = [f"text {chr(97 + i) * 9}" for i in range(10)]
    return make_cache(tmp_path / "kept.h5", texts, X, {"stars": stars}, columns={"year": years, "day": dates})


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("year>=2010", [1, 2, 3]),
        ("year<2010", [0, 7, 8, 9]),
        ("year > 2010 and year<=2020", [2, 3]),
        ("not year>=2010", [0, 4, 5, 6, 7, 8, 9]),
        ("day>=2010-09-01", [8, 9]),
        ("day<2010-02-01", [0]),
        ("stars>3", [3, 4, 8, 9]),
        ("not stars>3", [0, 1, 2, 6, 7]),
        ("stars=1 or year==2010", [0, 1, 6]),
        ("(stars=1 or stars=2) and not (year<2000 or year=nan)", [1]),
        ("stars=1,stars=2,year<2010", [0, 7]),
        ('year=" 2020 "', [3]),
    ],
)
def test_conditions(kept: Path, where: str, rows: list[int]) -> None:
    with Searcher.open(kept) as searcher:
        assert np.flatnonzero(searcher.among(where)).tolist() == rows
        found = searcher.search([Query((5,))], 10, where=where)[0].results
        assert sorted(one.row for one in found) == [row for row in rows if row != 5]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("year>new", "'new' is neither a number .12.5. nor a date"),
        ("year>", "'' is neither a number .12.5. nor a date"),
        ("stars=1 and yeer>3", "no column 'yeer'"),
        ("yeer>3", "no column 'yeer' to filter by; it has: stars, day, year"),
        ("year>2030", "no row of .* matches --where"),
        ("stars=1 and (year=2010", "is not a condition"),
    ],
)
def test_conditions_that_fail(kept: Path, where: str, message: str) -> None:
    with Searcher.open(kept) as searcher, pytest.raises(EmbedcacheError, match=message) as error:
        searcher.among(where)
    assert "\n" not in str(error.value)


def test_several_examples_and_unlike_ones(kept: Path) -> None:
    with Searcher.open(kept) as searcher:
        X = searcher.cache.embeddings("cls").astype(np.float64)
        (answer,) = searcher.search([Query((1, 2), (3, 4))], 10)
        p, n = X[[1, 2]].mean(axis=0), X[[3, 4]].mean(axis=0)
        wanted = cosines((2 * p - n)[None], X)[0]
        order = [int(row) for row in np.argsort(-wanted) if row not in (1, 2, 3, 4)]
        assert [found.row for found in answer.results] == order
        np.testing.assert_allclose([found.score for found in answer.results], wanted[order], atol=1e-6)
        assert (answer.query, answer.row) == ("row 1, row 2; unlike row 3, row 4", None)
        many = searcher.search([Query((1, 2), (3, 4)), Query((7,))], 10)
        for together, alone in zip(many, (answer, *searcher.search([Query((7,))], 10)), strict=True):
            assert [found.row for found in together.results] == [found.row for found in alone.results]
            scores = [[found.score for found in one.results] for one in (together, alone)]
            np.testing.assert_allclose(*scores, atol=1e-6)
        with pytest.raises(EmbedcacheError, match="give at least one example to be like"):
            searcher.search([Query((), (3,))])
        with pytest.raises(EmbedcacheError, match="blank"):
            searcher.search([Query((3, " "))])
        with pytest.raises(EmbedcacheError, match="no row 10"):
            searcher.search([Query((3,), (10,))])


def test_texts_among_the_examples(cache: Path) -> None:
    with Searcher.open(cache, device="cpu") as searcher:
        by_text = searcher.search([Query((TEXTS[3],), (TEXTS[4],))], 60)[0]
        by_row = searcher.search([Query((3,), (4,))], 60)[0]
        scores = {found.row: found.score for found in by_text.results}
        assert {found.row for found in by_row.results} == scores.keys() - {3, 4}
        assert all(abs(scores[found.row] - found.score) < 1e-3 for found in by_row.results)
        assert by_text.query == f'"{TEXTS[3]}"; unlike "{TEXTS[4]}"'


def test_dedupe_shows_near_identical_texts_once_and_finds_k(tmp_path: Path) -> None:
    texts = [f"a long enough review number {'abcdefghij'[i // 50] * 12}" + "!" * (i % 50) for i in range(500)]
    X = np.random.default_rng(9).normal(size=(10, 8))[np.arange(500) // 50]
    X = (X + 0.01 * np.random.default_rng(10).normal(size=X.shape)).astype(np.float32)
    path = make_cache(tmp_path / "c.h5", texts, X)
    with Searcher.open(path) as searcher:
        (answer,) = searcher.search([Query((0,))], 5, dedupe=True)
        assert [found.rank for found in answer.results] == [1, 2, 3, 4, 5]
        assert len({texts[found.row].rstrip("!") for found in answer.results}) == 5
        assert not any(texts[found.row].startswith(texts[0]) for found in answer.results)
        assert len(searcher.search([Query((0,))], 50, dedupe=True)[0].results) == 9
        best = [found.row for found in searcher.search([Query((0,))], 500)[0].results]
        assert [found.row for found in answer.results] == sorted((f.row for f in answer.results), key=best.index)
        assert answer.results[0].row == next(row for row in best if row >= 50)


def test_many_threads_get_the_same(cache: Path) -> None:
    with Searcher.open(cache) as searcher:
        wanted = {row: searcher.search([Query((row,))], 5) for row in range(60)}
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda row: searcher.search([Query((row % 60,))], 5), range(240))
            assert all(answer == wanted[i % 60] for i, answer in enumerate(found))
