"""Vectors instead of texts: of a cache whose encoder is elsewhere, and of one whose encoder is here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.cache import open_cache
from tests.serve.serving import detail, make_client

ROWS, DIM = 60, 8
VECTORS = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
LABELS = ["high" if one[0] > 0 else "low" for one in VECTORS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    table = {"text": [f"text {i}" for i in range(ROWS)], "label": LABELS}
    ec.import_vectors(VECTORS, folder / "c.h5", table=table, encoder="e")
    ec.train_run(folder / "c.h5", folder / "run", hidden=0, epochs=20, lr=1e-1)
    return folder


def test_imported_vectors_are_labelled_and_searched(place: Path, open_service: Callable[..., Any]) -> None:
    client = make_client(open_service(place / "c.h5", place / "run"))
    expected = ec.Classifier.load(place / "run", encode=False).predict(vectors=VECTORS)
    found = client.post("/predict", json={"vectors": VECTORS.tolist()}).json()
    assert [one["label"] for one in found] == expected.labels and {one["text"] for one in found} == {""}
    assert [one["probabilities"] for one in found] == [pytest.approx(one.probabilities, abs=1e-6) for one in expected]
    assert all("side" not in one for one in found)
    assert client.post("/predict", json={"vectors": []}).json() == []

    asked = [client.post("/search", json={"vector": one, "k": 5}).json() for one in VECTORS[:4].tolist()]
    rows = [client.post("/search", json={"row": i, "k": 4}).json() for i in range(4)]
    for i, (by_vector, by_row) in enumerate(zip(asked, rows, strict=True)):
        numbers = [one["row"] for one in by_vector["results"]]
        assert numbers[0] == i and numbers[1:] == [one["row"] for one in by_row["results"]]
    low = client.post("/search", json={"vector": VECTORS[0].tolist(), "where": "label=low"}).json()
    assert {one["labels"]["label"] for one in low["results"]} == {"low"}
    said = detail(client.post("/predict", json={"texts": ["good"]}), 503)
    assert "were imported (e), so no text can be encoded here: give vectors" in said


def test_vectors_of_texts_are_labelled_as_the_texts(made: Path, open_service: Callable[..., Any]) -> None:
    client = make_client(open_service(made / "reviews.h5", made / "run"))
    run = ec.load_run(made / "run")
    with open_cache(made / "reviews.h5") as cache:
        vectors = cache.embeddings(run.info["pooling"])[:3].astype(np.float32)
    stored = [client.get(f"/rows/{i}").json()["prediction"] for i in range(3)]
    plain = client.post("/predict", json={"vectors": vectors.tolist()}).json()
    assert [one["probabilities"] for one in plain] == [pytest.approx(one["probabilities"], abs=1e-6) for one in stored]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/predict", {}, "give texts or vectors, one of the two"),
        ("/predict", {"texts": [], "vectors": []}, "give texts or vectors, one of the two"),
        ("/predict", {"vectors": [[1.0] * DIM, [1.0]]}, "vector 1 has 1 numbers; run reads 8"),
        ("/predict", {"vectors": [[1e300] * DIM]}, "vector 0 holds NaN or infinity"),
        ("/predict", {"vectors": [["1"] * DIM]}, "vectors.0.0: Input should be a valid number"),
        ("/predict", {"vectors": [[1.0] * DIM], "explain": True}, "explain needs texts"),
        ("/search", {"vector": [1.0, 2.0]}, "the vector has 2 numbers; those that are searched have 8"),
        ("/search", {"vector": [0.0] * DIM}, "has no direction"),
        ("/search", {"vector": [1e300] * DIM}, "has no direction"),
        ("/search", {"vector": [1.0] * DIM, "row": 1}, "vector stands alone"),
        ("/search", {"k": 3}, "give at least one of query, row, like and vector"),
    ],
)
def test_what_cannot_be(
    place: Path, open_service: Callable[..., Any], path: str, body: dict[str, Any], said: str
) -> None:
    client = make_client(open_service(place / "c.h5", place / "run"))
    assert said in detail(client.post(path, json=body), 422)
