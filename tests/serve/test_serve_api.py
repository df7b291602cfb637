"""Each endpoint: what it answers, and how it refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.prediction.classifier import Classifier
from embedcache.search.searcher import Query, Searcher
from embedcache.serve.limits import MAX_CHARACTERS, MAX_TEXTS, Limits
from tests.conftest import make_cache
from tests.serve.serving import detail, listening, make_client

TEXT = "a wonderful film with a superb story"


# ---- what it answers ----


def test_info_says_what_is_served(client: Any) -> None:
    info = client.get("/info").json()
    assert (info["cache"], info["rows"], info["dim"], info["run"]["name"]) == ("reviews.h5", 162, 32, "run")
    assert info["run"]["columns"] == {"label": "classification"}
    assert info["labels"]["label"]["classes"] == {"<b>odd</b>": 12, "negative": 75, "positive": 75}
    assert info["texts"] is True and info["limits"]["texts"] == MAX_TEXTS


def test_health_and_metrics(client: Any) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    client.get("/rows/3")
    client.get("/no/such/path")
    lines = client.get("/metrics").text.splitlines()
    assert "embedcache_cache_rows 162.0" in lines
    assert any(line.startswith('embedcache_requests_total{route="/rows/{id}",status="200"}') for line in lines)
    assert any(line.startswith('embedcache_requests_total{route="other",status="404"}') for line in lines)
    assert not any("/rows/3" in line or "/no/such" in line for line in lines), "a path may hold anything"


def test_predictions_are_those_of_the_command(client: Any, shown: Path) -> None:
    texts = [TEXT, "", "a dull, boring mess", TEXT]
    asked = client.post("/predict", json={"texts": texts}).json()
    expected = Classifier.load(shown / "run", "cpu").predict(texts)
    assert [one["text"] for one in asked] == texts
    assert [one["label"] for one in asked] == [one.label for one in expected]
    for one, other in zip(asked, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-5)
    assert client.post("/predict", json={"texts": []}).json() == []


def test_predictions_with_limits_and_reasons(client: Any, shown: Path) -> None:
    texts = [TEXT, "a dull, boring mess", "!?"]
    how: dict[str, Any] = {"reject": 0.9}
    asked = client.post("/predict", json={"texts": texts, **how, "explain": True}).json()
    expected = Classifier.load(shown / "run", "cpu", **how).predict(texts, explain=True)
    for one, other in zip(asked, expected, strict=True):
        assert one["label"] == other.label and one.get("reason", "") == other.reason
        why = other.explanation
        assert why is not None
        mine = [[word["word"] for word in found["words"]] for found in (one["explanation"], why)]
        assert mine[0] == mine[1]
        assert [near["row"] for near in one["explanation"]["opposing"]] == [near["row"] for near in why["opposing"]]
    assert any(one["label"] is None for one in asked)
    assert "reason" not in client.post("/predict", json={"texts": texts}).json()[0]
    for body, said in (
        ({"texts": texts, "reject": 1.5}, "less than 1"),
        ({"texts": ["x"] * 9, "explain": True}, "explain takes 8 texts at most"),
        ({"texts": texts, "threshold": "tuned"}, "no column of two classes"),
    ):
        assert said in detail(client.post("/predict", json=body), 422)


@pytest.mark.parametrize(
    ("asked", "query", "options"),
    [
        ({"query": TEXT, "k": 3}, Query((TEXT,)), {"k": 3}),
        ({"row": 7, "k": 5, "where": "label=positive"}, Query((7,)), {"k": 5, "where": "label=positive"}),
        ({"row": 0, "where": ["label=positive", "id!=id 3"]}, Query((0,)), {"where": ["label=positive", "id!=id 3"]}),
        ({"like": [3, TEXT], "unlike": [4, "dull"]}, Query((3, TEXT), (4, "dull")), {}),
        ({"row": 151, "dedupe": True}, Query((151,)), {"dedupe": True}),
    ],
)  # fmt: skip
def test_searches_are_those_of_the_command(
    client: Any, shown: Path, asked: dict[str, Any], query: Query, options: dict[str, Any]
) -> None:
    answer = client.post("/search", json=asked).json()
    with Searcher.open(shown / "reviews.h5", device="cpu") as searcher:
        (expected,) = searcher.search([query], **options)
    assert answer["query"] == expected.query
    assert [one["row"] for one in answer["results"]] == [one.row for one in expected.results]
    for one, other in zip(answer["results"], expected.results, strict=True):
        assert one["score"] == pytest.approx(other.score, abs=1e-5)
        assert (one["text"], one["labels"], one["id"], one["rank"]) == (other.text, other.labels, other.id, other.rank)


def test_a_search_among_some_rows_alone(client: Any) -> None:
    every = client.post("/search", json={"query": TEXT, "k": 162}).json()["results"]
    among = [one["row"] for one in every][::3]
    found = client.post("/search", json={"query": TEXT, "k": 5, "among": among[::-1]}).json()["results"]
    assert [one["row"] for one in found] == among[:5]
    where = {"among": among, "where": "label=positive", "k": 5}
    found = client.post("/search", json={"row": 7, **where}).json()["results"]
    assert len(found) == 5 and all(one["row"] in among and one["labels"]["label"] == "positive" for one in found)
    assert "choose among those" in detail(client.post("/search", json={"row": 7, "among": [3, 162]}), 422)


def test_a_row_is_shown_with_its_prediction(client: Any, shown: Path) -> None:
    row = client.get("/rows/3").json()
    with open_cache(shown / "reviews.h5") as cache:
        expected = Classifier.load(shown / "run", "cpu").answers(cache.embeddings()[3:4])["label"].label(0)
        assert row["text"] == cache.texts[3]
    assert (row["row"], row["id"], row["labels"], row["columns"]) == (3, "id 3", {"label": "positive"}, {"id": "id 3"})
    assert row["prediction"]["label"] == expected


def test_the_leaderboard_has_heads_and_curves(client: Any) -> None:
    board = client.get("/leaderboard").json()["columns"]["label"]
    assert board["count"] == 4 and [head["rank"] for head in board["heads"]] == [1, 2, 3, 4]
    assert set(board["settings"]) == {"hidden", "lr"}
    best = board["heads"][0]
    losses = board["curves"][best["name"]]["val_loss"]
    assert len(losses) == best["epochs_run"]
    assert losses[best["best_epoch"] - 1] == pytest.approx(best["val_loss"])
    assert {"majority", "tfidf_logreg"} <= set(board["baselines"])
    assert board["scores"] == ["val_accuracy", "val_macro_f1", "val_loss", "val_ece"]
    assert board["drawn"] == ["val_loss", "val_accuracy", "val_macro_f1", "train_loss"]
    shown = {*board["settings"], *board["scores"], *board["drawn"], *board["baselines"], "best_epoch"}
    assert set(board["titles"]) == shown, "the page needs a title for each, and knows no others"
    assert board["titles"]["val_macro_f1"] == "validation macro F1" and board["titles"]["lr"] == "lr"
    assert board["titles"]["tfidf_logreg"] == "TF-IDF + logistic regression"


def test_the_openapi_document_describes_every_answer(client: Any) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/search", "/predict", "/rows/{id}", "/info", "/healthz", "/metrics", "/map", "/leaderboard"} <= set(paths)
    for methods in paths.values():
        for about in methods.values():
            for status, answer in about["responses"].items():
                schemas = [content["schema"] for content in answer["content"].values()]
                assert schemas and all(schemas), (about["summary"], status)


def test_the_pages_and_their_files_name_nothing_outside(client: Any) -> None:
    static = Path(__file__).parents[2] / "embedcache" / "serve" / "static"
    for path in ["/", "/docs", *(f"/static/{file.name}" for file in static.iterdir())]:
        answer = client.get(path)
        assert answer.status_code == 200
        outside = answer.text.replace("http://www.w3.org/2000/svg", "")  # the name of a format, not an address
        assert "http:" not in outside and "https:" not in outside and "//cdn" not in outside, path
        assert "innerHTML" not in outside and "insertAdjacentHTML" not in outside and "eval(" not in outside, path


# ---- how it refuses ----


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/search", {}, "at least one of query, row, like and vector"),
        ("/search", {"query": "   "}, "blank"),
        ("/search", {"query": 3}, "query: "),
        ("/search", {"query": "x" * (MAX_CHARACTERS + 1)}, "at most 20000 characters"),
        ("/search", {"row": "7"}, "row: "),
        ("/search", {"row": True}, "row: "),
        ("/search", {"row": -1}, "greater than or equal to 0"),
        ("/search", {"row": 5000}, "no row 5000"),
        ("/search", {"row": 10**30}, "row: "),
        ("/search", {"row": 1, "k": 0}, "k: "),
        ("/search", {"row": 1, "k": 10**6}, "k: "),
        ("/search", {"row": 1, "where": "nonsense"}, "not a condition"),
        ("/search", {"row": 1, "where": "label=nonsense"}, "no row has label=nonsense"),
        ("/search", {"row": 1, "where": "x=1"}, "no column 'x'"),
        ("/search", {"row": 1, "where": ["label=positive"] * 9}, "where"),
        ("/search", {"row": 1, "like": list(range(20))}, "like"),
        ("/search", {"row": 1, "wehre": "label=positive"}, "wehre: Extra inputs"),
        ("/search", [1], "dictionary"),
        ("/predict", {}, "give texts or vectors"),
        ("/predict", {"texts": "a text"}, "texts: "),
        ("/predict", {"texts": [None]}, "texts.0: "),
        ("/predict", {"texts": ["x"] * (MAX_TEXTS + 1)}, "at most 256 items"),
    ],
)
def test_what_cannot_be_asked(client: Any, path: str, body: Any, says: str) -> None:
    assert says in detail(client.post(path, json=body), 422)


def test_a_body_that_is_no_json(client: Any) -> None:
    for content in (b"", b"{", b"\xff\xfe", b'{"texts": ["\\ud800"]}', b"[" * 100_000, b'{"row": NaN}'):
        for path in ("/predict", "/search"):
            answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
            detail(answer, 400 if answer.status_code == 400 else 422)
    detail(client.post("/predict", content=b'{"texts": []}', headers={"Content-Type": "text/plain"}), 422)


def test_nothing_of_what_was_sent_comes_back_in_an_error(client: Any) -> None:
    line = detail(client.post("/search", json={"query": {"secret text": 1}, "also secret": 2}), 422)
    assert "secret text" not in line


def test_paths_that_are_not_there(client: Any) -> None:
    assert "no row 162" in detail(client.get("/rows/162"), 404)
    detail(client.get("/rows/seven"), 422)
    detail(client.get("/rows/-1"), 422)
    detail(client.get("/nothing"), 404)
    detail(client.get("/map/groups/nothing"), 404)
    detail(client.get("/static/nothing.js"), 404)
    detail(client.get("/static/../app.py"), 404)
    detail(client.get("/static/%2e%2e/app.py"), 404)
    detail(client.get("/search"), 405)
    detail(client.post("/info"), 405)


def test_a_body_that_is_too_large(service: Any) -> None:
    limits, service.limits = service.limits, Limits(body=1000)
    try:
        small = make_client(service)
    finally:
        service.limits = limits
    with small:
        assert "1,000 bytes" in detail(small.post("/predict", json={"texts": ["x" * 1000]}), 413)
        assert small.post("/predict", json={"texts": ["x" * 900]}).status_code == 200


def test_work_that_takes_too_long(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    limits, service.limits = service.limits, Limits(seconds=0.2)
    try:
        hasty = make_client(service)
    finally:
        service.limits = limits
    search = service.searcher.search

    def slow_search(*arguments: Any, **options: Any) -> Any:
        free.wait(20)
        return search(*arguments, **options)

    monkeypatch.setattr(service.searcher, "search", slow_search)
    try:
        assert "0.2 seconds" in detail(hasty.post("/search", json={"row": 1}), 504)
    finally:
        free.set()


def test_a_body_that_does_not_come(service: Any) -> None:
    limits, service.limits = service.limits, Limits(seconds=0.3)
    try:
        with listening(service) as url, socket.create_connection(url.split("//")[1].rstrip("/").split(":")) as one:
            one.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
            answer = ""
            while not answer.endswith("}"):
                answer += one.recv(65536).decode()
    finally:
        service.limits = limits
    assert answer.startswith("HTTP/1.1 408") and '"detail"' in answer


def test_many_long_texts_leave_room_for_others(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = service.encoder.encode_tokens
    monkeypatch.setattr(
        service.encoder,
        "encode_tokens",
        lambda tokens, outputs: sizes.append(len(tokens.rows)) or encode(tokens, outputs),
    )
    texts = [f"{i} " + "good " * 300 for i in range(40)]
    found = make_client(service).post("/predict", json={"texts": texts}).json()
    assert [one["text"] for one in found] == texts
    assert len(sizes) >= 3 and sum(sizes) == 40, "in parts"


def test_a_row_without_a_usable_vector(made: Path, tmp_path: Path, open_service: Callable[..., Any]) -> None:
    with open_cache(made / "reviews.h5") as cache:
        vectors, encoder = np.array(cache.embeddings()), cache.encoder
        vectors[1], vectors[2] = np.nan, 0
        odd = make_cache(tmp_path / "odd.h5", list(cache.texts), vectors, encoder=encoder)
    client = make_client(open_service(odd, made / "run"))
    assert client.get("/rows/1").json()["prediction"] is None
    (expected,) = Classifier.load(made / "run", "cpu").predict(vectors=vectors[2:3])  # 0 is a vector like any other
    assert client.get("/rows/2").json()["prediction"]["label"] == expected.label
    for row in (1, 2):
        assert "no usable vector" in detail(client.post("/search", json={"row": row}), 422)
    assert client.post("/search", json={"row": 0}).status_code == 200


def test_more_than_may_wait_is_turned_away(
    shown: Path, open_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_service(shown / "reviews.h5", limits=Limits(waiting_searches=2))
    client, free, begun = make_client(service), threading.Event(), threading.Event()
    search = service.searcher.search

    def slow_search(*arguments: Any, **options: Any) -> Any:
        begun.set()
        free.wait(20)
        return search(*arguments, **options)

    monkeypatch.setattr(service.searcher, "search", slow_search)
    answers: list[Any] = []
    with client:
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/search", json={"row": 1}))) for _ in range(6)
        ]
        threads[0].start()
        assert begun.wait(20)
        for thread in threads[1:]:
            thread.start()
        while sum(not thread.is_alive() for thread in threads) < 3:
            threads[-1].join(0.01)
        free.set()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 3
    busy = next(answer for answer in answers if answer.status_code == 429)
    assert busy.headers["Retry-After"] == "1" and "try again" in detail(busy, 429)


def test_what_nobody_expected_is_no_stack_trace(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"something about {TEXT}")

    lines: list[str] = []
    monkeypatch.setattr(service.searcher, "search", broken)
    client = make_client(service, log=lines.append)
    line = detail(client.post("/search", json={"row": 3}), 500)
    assert "RuntimeError" not in line
    assert len(lines) == 1 and "RuntimeError" in lines[0] and "POST /search" in lines[0]
    assert TEXT not in lines[0], "no text in the log"


def test_the_log_has_no_texts(service: Any) -> None:
    lines: list[str] = []
    client = make_client(service, log=lines.append, verbose=True)
    client.post("/search", json={"query": "a secret text"})
    client.get("/rows/3?also=secret")
    client.get("/secret")
    assert [line.split()[:3] for line in lines] == [
        ["POST", "/search", "200"], ["GET", "/rows/{id}", "200"], ["GET", "other", "404"],
    ]  # fmt: skip
    assert "secret" not in " ".join(lines)
