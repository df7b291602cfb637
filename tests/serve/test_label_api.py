"""The routes by which people label: what is written, to whom rows are shown, who may."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.active_learning.from_cache import labelled_rows_of, pool_of, snapshot_of
from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.labelling import LabelEntry, LabelJournal, Overlay, open_labelled
from embedcache.prompting.start import start_probabilities
from embedcache.serve.label_column import open_session
from embedcache.serve.service import Service
from tests.conftest import document, fails, make_cache, make_reviews
from tests.serve.serving import detail, make_client

WAIT = 60  # seconds, on a busy machine


@pytest.fixture
def labelling(copy: Path) -> Iterator[Callable[..., Any]]:
    """A service whose labels may be written, in a folder of its own: (client, journal, service)."""
    opened: list[Service] = []

    def start(*runs: Any, cache: Path | None = None, options: Any = None, **how: Any) -> tuple[Any, LabelJournal, Any]:
        path = copy / "reviews.h5" if cache is None else cache
        service = Service.open(path, *runs, device="cpu")
        opened.append(service)
        open_session(service, **how).begin()
        return make_client(service, **(options or {})), LabelJournal.beside(path), service

    yield start
    for service in opened:
        service.close()


def rows_for(client: Any, who: str = "ada", count: int = 5, **more: Any) -> list[dict[str, Any]]:
    answer = client.post("/labelling/next", json={"who": who, "count": count, **more})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["rows"])


def give(client: Any, row: int, label: Any = None, who: str = "ada", **more: Any) -> Any:
    one = {"id": f"{who} {row} {label} {more}", "row": row, "who": who, **({"label": label} if label else {}), **more}
    return client.post("/labelling/labels", json={"labels": [one]})


def progress(client: Any, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The progress, once it is what is waited for."""
    deadline = time.monotonic() + WAIT
    while not reached(found := client.get("/labelling/progress?who=ada").json()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return dict(found)


def test_rows_come_with_reasons_and_labels_go_to_the_journal(labelling: Callable[..., Any], copy: Path) -> None:
    client, journal, _ = labelling(copy / "run")
    state = client.get("/labelling").json()
    assert (state["column"], state["kind"], state["rows"]) == ("label", "classification", 162)
    assert state["classes"] == ["<b>odd</b>", "negative", "positive"] and state["checked"] == 0
    assert client.get("/info").json()["labelling"] is True
    one, other = rows_for(client, count=2)
    with open_cache(copy / "reviews.h5") as cache:
        assert one["text"] == cache.texts[one["row"]] and one["reason"] and one["queue"]
        hashes = [cache.hashes[shown["row"]].tobytes().hex() for shown in (one, other)]
    body = {"id": "first", "row": one["row"], "label": "negative", "who": "ada", "queue": one["queue"], "comment": "hm"}
    answer = client.post("/labelling/labels", json={"labels": [body]}).json()
    assert answer["written"][0]["number"] == 1 and answer["state"]["checked"] >= 1
    (entry,) = journal.read()
    assert (entry.row_hash, entry.after, entry.before) == (hashes[0], "negative", one["label"])
    assert (entry.who, entry.queue, entry.comment) == ("ada", one["queue"], "hm")
    again = client.post("/labelling/labels", json={"labels": [body, {**body, "id": "second", "row": other["row"]}]})
    assert [one["number"] for one in again.json()["written"]] == [1, 2]
    assert [entry.id for entry in journal.read()] == ["first", "second"], "what is sent twice is written once"
    clash = client.post("/labelling/labels", json={"labels": [{**body, "label": "positive"}]})
    assert "id" in detail(clash, 422) and len(journal.read()) == 2
    shown = [one["row"] for one in rows_for(client, count=150)]
    assert not {one["row"], other["row"]} & set(shown) and len(set(shown)) == len(shown)


def test_two_people_are_given_different_rows_and_both_labels_of_one_are_kept(labelling: Callable[..., Any]) -> None:
    client, _, service = labelling()
    ada, bob = ({one["row"] for one in rows_for(client, who, 20)} for who in ("ada", "bob"))
    assert len(ada) == len(bob) == 20 and not ada & bob
    row = ada.pop()
    assert give(client, row, "positive", "ada").status_code == give(client, row, "negative", "bob").status_code == 200
    assert client.get("/labelling/progress").json()["disagreements"] == 1
    assert client.get("/labelling").json()["people"] == {"ada": 1, "bob": 1}
    key = service.labelling.arrays.key_of(row)
    given = Overlay.of(service.labelling.journal).given("label", key)
    assert given.label == "negative" and {who: one.after for who, one in given.by.items()} == {
        "ada": "positive", "bob": "negative",
    }  # fmt: skip


def test_now_and_then_a_row_that_others_have_labelled_comes_again(labelling: Callable[..., Any]) -> None:
    client, _, _ = labelling()
    labelled = [one["row"] for one in rows_for(client, "bob", 30)]
    for row in labelled:
        give(client, row, "positive", "bob")
    shown = rows_for(client, "ada", 30)
    again = [one for one in shown if one["queue"] == "second"]
    assert len(again) == 2 and {one["row"] for one in again} <= set(labelled)
    assert all(one["label"] is None for one in again), "the other's label must not lead"


def test_undo_skip_and_comment(labelling: Callable[..., Any]) -> None:
    client, journal, service = labelling()
    one, two = (shown["row"] for shown in rows_for(client, count=2))
    before = service.labelling.arrays.label_of(one)
    other = "negative" if before != "negative" else "positive"
    give(client, one, other, id="a")
    assert service.labelling.arrays.label_of(one) == other
    assert give(client, one, action="undo", undoes="a", id="b").status_code == 200
    assert service.labelling.arrays.label_of(one) == before and client.get("/labelling").json()["checked"] == 0
    give(client, two, action="skip", id="c")
    give(client, one, action="comment", comment="look at it", id="d")
    progress(client, lambda found: not found["training"])  # a row that is free again is in the next ranking
    shown = {row["row"]: row for row in rows_for(client, count=150)}
    assert two not in shown and shown[one]["comments"] == [{"who": "ada", "comment": "look at it"}]
    assert [entry.action for entry in journal.read()] == ["label", "undo", "skip", "comment"]
    assert len(journal.read()) == 4


def test_labels_that_cannot_be(labelling: Callable[..., Any]) -> None:
    client, journal, _ = labelling()
    assert '"new": true' in detail(give(client, 0, "brilliant"), 422)
    assert "no row 9999" in detail(give(client, 9999, "positive"), 422)
    assert "one label a row" in detail(give(client, 0, ["positive"]), 422)
    assert "not numbers" in detail(give(client, 0, 3.5), 422)
    assert "skip takes no label" in detail(give(client, 0, "positive", action="skip"), 422)
    assert "no entry" in detail(give(client, 0, action="undo", undoes="zz"), 422)
    assert "not a label" in detail(give(client, 0, "NA", new=True), 422)
    assert "no such queue" in detail(client.post("/labelling/next", json={"queue": "best"}), 422)
    for body in ({"labels": []}, {"labels": [{"id": "", "row": 1}]}, {"labels": [{"id": "x", "row": -1}]}, {}):
        assert "labels" in detail(client.post("/labelling/labels", json=body), 422)
    mixed = [{"id": "good", "row": 1, "label": "positive"}, {"id": "bad", "row": 2, "label": "brilliant"}]
    assert client.post("/labelling/labels", json={"labels": mixed}).status_code == 422
    assert journal.read() == [], "nothing of a request that is refused"


def test_a_new_class_at_once(labelling: Callable[..., Any], copy: Path) -> None:
    client, _, _ = labelling(copy / "run")
    row = rows_for(client, count=1)[0]["row"]
    state = give(client, row, "brilliant", new=True).json()["state"]
    assert state["classes"][-1] == "brilliant" and state["counts"]["brilliant"] >= 1
    assert give(client, rows_for(client, count=1)[0]["row"], "brilliant").status_code == 200, "now it is known"
    progress(client, lambda found: not found["training"] and found["round"] > 0)
    assert client.get(f"/rows/{row}").json()["labels"]["label"] == "brilliant", "rows and searches show it"


def test_progress_scores_the_same_test_rows_before_and_after(labelling: Callable[..., Any], copy: Path) -> None:
    client, _, service = labelling(copy / "run")
    first = progress(client, lambda found: found["after"] is not None)
    tested = int((service.labelling.arrays.pool.test & service.labelling.arrays.labelled).sum())
    assert first["before"] == first["after"] and first["after"]["rows"] == tested > 0
    assert first["validation"]["rows"] == first["learned"] and first["curve"] == [], "nobody has given a label"
    for one in rows_for(client, count=12, queue="random"):
        give(client, one["row"], one["label"] or "positive", queue="random")
    later = progress(client, lambda found: found["round"] > first["round"] and not found["training"])
    assert later["gain"]["rows"] == tested and later["before"] == first["before"]
    assert later["estimates"]["wrong"]["share"] == 0 and later["estimates"]["wrong"]["rows"] >= 10
    assert later["curve"][-1]["labels"] == service.labelling.arrays.checked.sum() and later["chance"]["rows"] > 0
    assert later["estimates"]["rows_per_minute"] > 0 and later["estimates"]["advice"]["reason"]


def test_from_nothing_but_names(labelling: Callable[..., Any], made: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text("text\n" + "\n".join(text for text, _ in make_reviews(460)) + "\n", encoding="utf-8")
    with open_cache(made / "reviews.h5") as cache:
        document("extract", source, "-o", tmp_path / "new.h5", "--model", cache.encoder["source"])
    with pytest.raises(EmbedcacheError, match="--labels-of"):
        labelling(cache=tmp_path / "new.h5")
    described = "good: a fine film; bad: a dull film"
    client, journal, service = labelling(cache=tmp_path / "new.h5", labels_of=described)
    assert client.get("/labelling").json()["classes"] == ["good", "bad"]
    shown = rows_for(client, count=20)
    names, found = start_probabilities(service.cache, described, device="cpu")
    assert names == ["good", "bad"] and all(one["label"] is None for one in shown)
    for one in shown:  # by similarity with the descriptions, as `embedcache next` guesses
        assert one["guess"] == names[found[one["row"]].argmax()]
        assert one["probability"] == pytest.approx(found[one["row"]].max(), abs=1e-5)
    for i, one in enumerate(shown):
        give(client, one["row"], ("good", "bad")[i % 2])
    assert len(journal.read()) == 20
    learned = int((~service.labelling.arrays.pool.test[[one["row"] for one in shown]]).sum())
    assert progress(client, lambda found: found["learned"] == learned and not found["training"])["problem"] == ""
    assert learned >= 17, "test rows are shown by chance alone"


def test_the_page_and_next_have_the_same_rows_and_labels(labelling: Callable[..., Any], tmp_path: Path) -> None:
    """Blank texts and vectors of zeros are left out, copies are one text, and what people said counts alike."""
    rng = np.random.default_rng(0)
    texts = [f"text {i % 180}" for i in range(200)] + ["", " \t"]
    x = rng.standard_normal((202, 8)).astype(np.float32)
    x[7] = 0
    labels = {"label": [["x", "y"][i % 2] if i % 3 else None for i in range(202)]}
    cache = make_cache(tmp_path / "c.h5", texts, x, labels, columns={"film": [f"f{i % 11}" for i in range(202)]})
    with open_cache(cache) as opened:
        keys = [opened.hashes[row].tobytes().hex() for row in range(202)]
    said: list[dict[str, Any]] = [
        {"row_hash": keys[0], "after": "new", "who": "ada"},
        {"row_hash": keys[1], "after": "x", "before": "y", "who": "ada", "queue": "random"},
        {"row_hash": keys[1], "after": "y", "before": "x", "who": "bob", "queue": "second"},
        {"row_hash": keys[2], "action": "skip"},
        {"row_hash": keys[4], "after": None, "before": "x", "who": "ada"},
    ]
    LabelJournal.beside(cache).append([LabelEntry(column="label", **one) for one in said])
    for group in (None, "film"):
        _, _, service = labelling(cache=cache, group=group)
        page = service.labelling.arrays.snapshot()
        with open_labelled(cache) as opened:
            pool, people = pool_of(opened, "label", "cls", group=group), labelled_rows_of(opened, "label")
            mine = snapshot_of(opened, "label", pool, people)
        assert [page.label_of(row) for row in range(202)] == [mine.label_of(row) for row in range(202)]
        assert not page.pool.usable[[7, 200, 201]].any() and page.pool.usable.sum() == 199
        for name in ("unit", "group", "test", "usable"):
            np.testing.assert_array_equal(getattr(page.pool, name), getattr(pool, name), name)
        for name in ("checked", "settled", "chance"):
            np.testing.assert_array_equal(getattr(page, name), getattr(mine, name), name)
        np.testing.assert_array_equal(service.labelling.arrays.skipped, people.skipped)


def test_several_labels_and_numbers(labelling: Callable[..., Any], tmp_path: Path, made: Path) -> None:
    rows = [
        {"text": text, "topics": [["a"], ["a", "b"], []][i % 3], "stars": str(i % 5)}
        for i, (text, _) in enumerate(make_reviews(60))
    ]
    source, cache = tmp_path / "rows.jsonl", tmp_path / "rows.h5"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with open_cache(made / "reviews.h5") as one:
        document("extract", source, "-o", cache, "--model", one.encoder["source"], "--label", "topics,stars")
    with pytest.raises(EmbedcacheError, match="stars, topics: name one with --label"):
        labelling(cache=cache)
    with pytest.raises(EmbedcacheError, match="holds one value a row"):
        labelling(cache=cache, label="stars", task="multilabel")
    client, journal, service = labelling(cache=cache, label="topics")
    assert client.get("/labelling").json()["kind"] == "multilabel"
    assert give(client, 0, ["b", "c"], new=True).json()["state"]["counts"] == {"a": 39, "b": 21, "c": 1}
    assert journal.read()[0].after == ("b", "c") and service.labelling.arrays.label_of(0) == ["b", "c"]
    assert "lists of labels" in detail(give(client, 1, "a"), 422)
    service.close()
    client, journal, service = labelling(cache=cache, label="stars", task="regression")
    assert give(client, 3, 4.5).status_code == 200 and journal.read()[-1].after == 4.5
    assert service.labelling.arrays.label_of(3) == 4.5 and service.labelling.arrays.label_of(4) == 4
    assert "holds numbers" in detail(give(client, 1, "many"), 422)


def test_the_colors_of_the_map_follow_the_labels(labelling: Callable[..., Any]) -> None:
    """A class keeps its number when others come, whatever their names and rows."""
    client, _, _ = labelling()

    def colored() -> tuple[dict[str, tuple[int, int | None]], list[int]]:
        groups = client.get("/map").json()["groups"]["label"]
        rows = list(client.get("/map/groups/label").content)
        assert [one["rows"] for one in groups] == [rows.count(i) for i in range(len(groups))]
        return {one["name"]: (one["rows"], one["place"]) for one in groups}, rows

    before, _ = colored()
    assert [before[name][1] for name in ("<b>odd</b>", "negative", "positive")] == [0, 1, 2]
    give(client, 0, "awful", new=True)
    after, rows = colored()
    assert after["awful"] == (1, 3) and rows[0] == list(after).index("awful")
    assert {name: place for name, (_, place) in after.items() if name != "awful"} == {
        n: p for n, (_, p) in before.items()
    }
    for i in range(8):
        give(client, 1 + i, f"a{i}", new=True)
    many, rows = colored()
    assert many["4 others"][1] is None and many["positive"][1] == 2 and len(many) == 9
    client.post("/labelling/labels", json={"labels": [
        {"id": str(row), "row": row, "label": "a7"} for row in range(20, 40)
    ]})  # fmt: skip
    assert colored()[0]["a7"][1] == 11, "its own, however many rows it has"


def test_rows_that_were_chosen_on_the_map(labelling: Callable[..., Any]) -> None:
    client, _, _ = labelling()
    assert [one["row"] for one in rows_for(client, among=[7, 3, 9], held=[3])] == [7, 9]
    assert "no row 999" in detail(client.post("/labelling/next", json={"among": [999]}), 422)


def test_what_another_process_writes_is_seen(labelling: Callable[..., Any]) -> None:
    client, journal, service = labelling()
    key = service.labelling.arrays.key_of(5)
    LabelJournal(journal.path).append([LabelEntry(row_hash=key, column="label", after="negative", who="elsewhere")])
    assert client.get("/labelling").json()["people"] == {"elsewhere": 1}


def test_a_journal_that_cannot_be_written(labelling: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    client, journal, service = labelling()

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        assert "No space left" in detail(give(client, 0, "positive"), 422)
    assert journal.read() == [] and not service.labelling.arrays.checked.any()
    assert give(client, 0, "positive").status_code == 200


# ---- who may ----


def test_without_the_right_there_is_no_route(client: Any) -> None:
    assert client.get("/info").json()["labelling"] is False
    assert client.get("/labelling").status_code == client.post("/labelling/labels", json={}).status_code == 404
    assert not any(path.startswith("/labelling") for path in client.get("/openapi.json").json()["paths"])


@pytest.mark.parametrize("path", ["/labelling/labels", "/labelling/next"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_other_sites_cannot_write(labelling: Callable[..., Any], path: str, headers: dict[str, str]) -> None:
    client, journal, _ = labelling()
    body = {"labels": [{"id": "x", "row": 1, "label": "positive"}]} if path.endswith("labels") else {}
    assert client.post(path, json=body, headers=headers).status_code == 403
    form = client.post(path, content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert form.status_code == 422, "what a form of another site can send is no JSON"
    assert journal.read() == []


def test_tokens_and_roles(labelling: Callable[..., Any]) -> None:
    client, journal, _ = labelling(options={"token": "all-of-it", "label_token": "labels-alone"})
    body = {"labels": [{"id": "x", "row": 1, "label": "positive"}]}
    for token in (None, "wrong"):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        for path in ("/labelling/labels", "/labelling/next"):
            assert client.post(path, json=body, headers=headers).status_code == 401
        assert client.get("/labelling", headers=headers).status_code == 401
    assert journal.read() == []
    may = {"Authorization": "Bearer labels-alone"}
    assert client.get("/info", headers=may).json()["role"] == "label"
    assert client.post("/labelling/labels", json=body, headers=may).status_code == 200
    assert client.get("/rows/1", headers=may).status_code == 200
    assert client.post("/search", json={"row": 1}, headers=may).status_code == 200
    for path in ("/map", "/map/points", "/leaderboard", "/metrics", "/v1/models", "/nothing"):
        assert "may only label" in client.get(path, headers=may).json()["detail"], path
    assert client.post("/predict", json={"texts": ["x"]}, headers=may).status_code == 403
    full = {"Authorization": "Bearer all-of-it"}
    assert client.get("/info", headers=full).json()["role"] == "all"
    assert client.get("/map", headers=full).status_code == 200


def test_mistakes_of_the_command(shown: Path, copy: Path, tmp_path: Path) -> None:
    cache = copy / "reviews.h5"
    assert "--token" in fails("label", cache, "--label-token", "x", code=2)
    assert "--token" in fails("label", cache, "--label-token", "x", "--token", "x", code=2)
    assert "printable ASCII" in fails("label", cache, "--label-token", "a b", "--token", "x", code=2)
    assert "keeps that column for filters" in fails("label", cache, "--label", "id", "--port", 0, "--device", "cpu")
    plain = make_cache(tmp_path / "plain.h5", ["a", "b"], np.eye(2, dtype=np.float32))
    assert "--labels-of" in fails("label", plain, "--port", 0, "--device", "cpu")
    shutil.copy(cache, tmp_path / "other.h5")
    (tmp_path / "other.h5.labels.jsonl").write_text("not a journal\n")
    assert "not a labels journal" in fails("label", tmp_path / "other.h5", "--port", 0, "--device", "cpu")
