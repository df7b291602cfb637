"""Several runs of one encoder, served by one process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.prediction.classifier import Classifier
from embedcache.runs.folder import load_run
from embedcache.serve.comparison import compare_runs
from embedcache.serve.limits import MAX_RUNS
from tests.conftest import document, fails
from tests.serve.page import needs_chromium
from tests.serve.serving import detail, make_client

TEXTS = ["a wonderful film with a superb story", "a dull, boring mess"]


@pytest.fixture(scope="module")
def folder(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reviews.h5; first, of the cls vectors; second, of the mean vectors on the same split; apart, of another split."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(made / "run", folder / "first")
    shutil.copy(made / "reviews.h5", folder / "reviews.h5")
    cache, few = folder / "reviews.h5", ("--epochs", 2, "--lr", "1e-4")
    document("train-head", cache, "-o", folder / "second", "--pooling", "mean", *few)
    document("train-head", cache, "-o", folder / "apart", "--split", 5, "--pooling", "mean", *few)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path, open_service: Callable[..., Any]) -> Any:
    return open_service(folder / "reviews.h5", folder / "first", folder / "second")


@pytest.fixture(scope="module")
def client(service: Any) -> Any:
    return make_client(service)


def test_the_first_run_answers_by_default(client: Any, folder: Path) -> None:
    alone = client.post("/predict", json={"texts": TEXTS}).json()
    expected = Classifier.load(folder / "first", "cpu").predict(TEXTS)
    assert [one["label"] for one in alone] == [one.label for one in expected]
    assert all("runs" not in one for one in alone)


def test_all_and_named_runs_answer_and_each_text_is_encoded_once(
    client: Any, service: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = service.encoder.encode_tokens
    monkeypatch.setattr(
        service.encoder,
        "encode_tokens",
        lambda tokens, outputs: sizes.append(len(tokens.rows)) or encode(tokens, outputs),
    )
    every = client.post("/predict", json={"texts": TEXTS, "runs": "all"}).json()
    assert sizes == [len(TEXTS)]
    for name in ("first", "second"):
        expected = Classifier.load(folder / name, "cpu").predict(TEXTS)
        for one, other in zip(every, expected, strict=True):
            # Two poolings in one pass are computed another way than one: they agree as bfloat16 does.
            assert one["runs"][name]["probabilities"] == pytest.approx(other.probabilities, abs=5e-3)
    assert list(every[0]["runs"]) == ["first", "second"]
    assert every[0]["label"] == every[0]["runs"]["first"]["label"]
    (turned, _) = client.post("/predict", json={"texts": TEXTS, "runs": ["second", "first", "second"]}).json()
    assert list(turned["runs"]) == ["second", "first"]
    assert turned["probabilities"] == turned["runs"]["second"]["probabilities"]
    (why, _) = client.post("/predict", json={"texts": TEXTS, "runs": "all", "explain": True}).json()
    assert all(one["explanation"]["words"] for one in why["runs"].values())


def test_names_that_no_run_has(client: Any) -> None:
    for runs in (["third"], ["first", "third"]):
        assert "choose from first, second" in detail(client.post("/predict", json={"texts": [], "runs": runs}), 422)
    for runs in ([], ["first"] * (MAX_RUNS + 1), "first", 3):
        assert "runs" in detail(client.post("/predict", json={"texts": [], "runs": runs}), 422)
    assert client.post("/predict", json={"texts": [], "runs": "all"}).json() == []


def test_what_is_served_is_told(client: Any) -> None:
    info = client.get("/info").json()
    assert [one["name"] for one in info["runs"]] == ["first", "second"] and info["run"]["name"] == "first"
    row = client.get("/rows/3").json()["prediction"]
    assert list(row["runs"]) == ["first", "second"] and row["label"] == row["runs"]["first"]["label"]


def test_runs_are_compared_on_the_same_test_rows(client: Any, folder: Path) -> None:
    board = client.get("/leaderboard").json()
    assert list(board["columns"]) == ["label"] and list(board["others"]) == ["second"]
    compared = board["comparisons"]["label"]
    tables = [pd.read_parquet(folder / name / "predictions.parquet") for name in ("first", "second")]
    tests = [table[table.side == "test"].set_index("text_hash") for table in tables]
    both = tests[0].merge(tests[1], left_index=True, right_index=True, suffixes=("", "_2"))
    assert compared["texts"] == len(both) == len(tests[0]) > 0 and compared["problem"] == ""
    shares = [(both.label == both.predicted).mean(), (both.label == both.predicted_2).mean()]
    assert [one["score"] for one in compared["runs"]] == pytest.approx(shares)
    assert all(one["interval"][0] <= one["score"] <= one["interval"][1] for one in compared["runs"])
    (pair,) = compared["pairs"]
    assert (pair["first"], pair["second"]) == ("first", "second")
    assert pair["difference"] == pytest.approx(shares[0] - shares[1])
    assert pair["within_noise"] == (pair["interval"][0] <= 0 <= pair["interval"][1])


def test_only_rows_that_are_test_rows_in_all_of_them_count(folder: Path) -> None:
    runs = {name: load_run(folder / name) for name in ("second", "apart")}
    tables = [pd.read_parquet(folder / name / "predictions.parquet") for name in runs]
    shared = set.intersection(*(set(table[table.side == "test"].text_hash) for table in tables))
    compared = compare_runs(runs)["label"]
    assert compared["texts"] == len(shared)
    assert (compared["problem"] == "") == (len(shared) > 0)


def test_a_label_that_has_changed_between_the_runs_is_left_out(folder: Path, tmp_path: Path) -> None:
    """As if the second run had been trained after a correction."""
    from embedcache.serve import comparison

    runs = {name: load_run(folder / name) for name in ("first", "second")}
    told = {name: comparison._tested(run) for name, run in runs.items()}
    changed = next(iter(told["second"].said))
    label, predicted = told["second"].said[changed]
    told["second"].said[changed] = ("negative" if label == "positive" else "positive", predicted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_tested", lambda run: told[run.path.name])
        compared = compare_runs(runs)["label"]
    assert compared["changed"] == 1 and compared["texts"] == len(told["first"].said) - 1


def test_lists_and_numbers_are_compared_too() -> None:
    from embedcache.heads.kinds import kind_of
    from embedcache.serve.comparison import _arrays

    y, guess = _arrays(kind_of("multilabel"), [[["a"], [], ["b", "a"]], [["a"], ["b"], ["c"]]])
    assert y.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]] and guess.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    (numbers,) = _arrays(kind_of("regression"), [[1.5, -2.0]])
    assert numbers.shape == (2, 1) and np.allclose(numbers[:, 0], [1.5, -2.0])


@needs_chromium
def test_the_page_shows_the_runs_side_by_side(open_page: Callable[..., Any], client: Any) -> None:
    page = open_page("q=a+wonderful+film")
    page.wait_for_selector(".by-run .label")
    assert page.locator(".by-run h4").all_text_contents() == ["first", "second"]
    assert "runs first, second" in page.text_content("#about")
    page.click("nav a[data-view=board]")
    page.wait_for_selector(".compared table")
    compared = client.get("/leaderboard").json()["comparisons"]["label"]
    assert f"On {compared['texts']} texts" in page.text_content(".compared .note >> nth=1")
    assert page.locator(".compared tbody th").all_text_contents() == ["first", "second", "first \u2212 second"]
    assert page.locator("table.heads tbody tr").count() == 4
    page.select_option("#board-run", "second")
    assert page.locator("table.heads tbody tr").count() == 1


def test_runs_that_do_not_fit_are_refused(folder: Path, open_service: Callable[..., Any], shown: Path) -> None:
    with pytest.raises(EmbedcacheError, match="given 2 times"):
        open_service(folder / "reviews.h5", folder / "first", folder / ".." / folder.name / "first")
    line = fails("serve", folder / "reviews.h5", "--run", folder / "first", "--run", folder / "no", "--port", 0)
    assert "no run at" in line


def test_two_folders_of_one_name(folder: Path, tmp_path: Path, open_service: Callable[..., Any]) -> None:
    shutil.copytree(folder / "first", tmp_path / "second")
    service = open_service(folder / "reviews.h5", folder / "second", tmp_path / "second")
    assert list(service.runs) == [str(folder / "second"), str(tmp_path / "second")]
