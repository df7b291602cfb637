"""/v1/embeddings and /v1/models, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from embedcache.encoder.load_again import encoder_of
from embedcache.serve.limits import MAX_EMBEDDED
from tests.conftest import document, make_reviews, write_csv
from tests.encoder.sentence_folders import NORMALIZE, make_folder
from tests.serve.serving import listening, make_client

TEXTS = ["a wonderful film with a superb story", "", "a dull, boring mess", "a wonderful film with a superb story"]


@pytest.fixture(scope="module")
def service(made: Path, open_service: Callable[..., Any]) -> Any:
    return open_service(made / "reviews.h5", made / "run", pooling="mean")


@pytest.fixture(scope="module")
def asking(service: Any) -> Iterator[openai.OpenAI]:
    with listening(service, token="open-sesame") as url:
        yield openai.OpenAI(base_url=f"{url}v1", api_key="open-sesame", max_retries=0)


def refused(answer: Any, status: int) -> str:
    """The line of an error, which OpenAI's clients find, too."""
    document = answer.json()
    assert answer.status_code == status, document
    assert document == {"detail": document["detail"], "error": {"message": document["detail"]}}
    return str(document["detail"])


def vectors_of(service: Any, texts: list[str], pooling: str = "mean") -> np.ndarray:
    encoder = encoder_of(service.cache.encoder, "the cache", device="cpu")
    return encoder.encode_texts(texts, [(pooling, -1), *([("cls", -1)] if pooling == "mean" else [])])[0]


def test_models_are_the_encoder_and_the_other_poolings(asking: openai.OpenAI, service: Any) -> None:
    name = Path(service.cache.encoder["source"]).name
    assert [one.id for one in asking.models.list()] == [name, f"{name}:cls"]
    assert asking.models.retrieve(name).owned_by == "embedcache"
    with pytest.raises(openai.NotFoundError, match="no such model; there is"):
        asking.models.retrieve("text-embedding-3-small")


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_vectors_are_the_encoders(asking: openai.OpenAI, service: Any, encoding: Any) -> None:
    name = asking.models.list().data[0].id
    how = {} if encoding is None else {"encoding_format": encoding}
    answer = asking.embeddings.create(model=name, input=TEXTS, **how)
    found = [one.embedding for one in answer.data]
    if encoding == "base64":  # the client decodes what it asked for by itself alone
        found = [np.frombuffer(base64.b64decode(one), "<f4") for one in found]
    np.testing.assert_allclose(np.array(found), vectors_of(service, TEXTS), atol=2e-2)
    assert [one.index for one in answer.data] == [0, 1, 2, 3] and answer.model == name
    tokens = [len(row) for row in service.encoder.tokenize(TEXTS).rows]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(tokens)


def test_one_text_and_another_pooling(asking: openai.OpenAI, service: Any) -> None:
    other = asking.models.list().data[1].id
    (one,) = asking.embeddings.create(model=other, input=TEXTS[0]).data
    np.testing.assert_allclose(one.embedding, vectors_of(service, TEXTS[:1], "cls")[0], atol=2e-2)


def test_the_token_is_the_key(service: Any, asking: openai.OpenAI) -> None:
    stranger = asking.with_options(api_key="wrong")
    assert asking.embeddings.create(model=asking.models.list().data[0].id, input="text").data
    with pytest.raises(openai.AuthenticationError, match="a token is needed"):
        stranger.embeddings.create(model="x", input="text")


def test_what_is_refused(service: Any) -> None:
    client = make_client(service)
    name = client.get("/v1/models").json()["data"][0]["id"]

    def said(status: int = 422, **body: Any) -> str:
        return refused(client.post("/v1/embeddings", json={"model": name, "input": "text", **body}), status)

    for tokens in ([1, 2, 3], [[1, 2], [3]]):
        assert "lists of tokens are not taken" in said(input=tokens)
    assert "input" in said(input=[]) and "input" in said(input=["x"] * (MAX_EMBEDDED + 1)) and "input" in said(input=5)
    assert "no such model" in said(404, model="other")
    assert "it cannot be cut" in said(dimensions=8) and "32 wide" in said(dimensions=64)
    assert "encoding_format" in said(encoding_format="hex") and "temperature" in said(temperature=1)
    assert client.post("/v1/embeddings", json={"model": name, "input": "x", "dimensions": 32}).status_code == 200


def test_dimensions_where_the_model_declares_them(
    tiny_bert: Path, tmp_path: Path, open_service: Callable[..., Any]
) -> None:
    model = make_folder(tiny_bert, tmp_path / "model", {"pooling_mode_mean_tokens": True}, NORMALIZE)
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "matryoshka_dimensions": [8, 16]}))
    write_csv(tmp_path / "reviews.csv", make_reviews(30))
    document("extract", tmp_path / "reviews.csv", "-o", tmp_path / "c.h5", "--model", model, "--pooling", "model")
    client = make_client(open_service(tmp_path / "c.h5"))

    def vector(**more: Any) -> np.ndarray:
        answer = client.post("/v1/embeddings", json={"model": "model", "input": TEXTS[0], **more})
        return np.array(answer.json()["data"][0]["embedding"])

    whole, cut = vector(), vector(dimensions=8)
    np.testing.assert_allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)
    answer = client.post("/v1/embeddings", json={"model": "model", "input": "x", "dimensions": 9})
    assert "it can be cut to 8, 16" in refused(answer, 422)


def test_without_an_encoder_there_are_no_models(copy: Path, open_service: Callable[..., Any], tmp_path: Path) -> None:
    from embedcache.cache import open_cache
    from tests.conftest import make_cache

    with open_cache(copy / "reviews.h5") as cache:
        about = {**cache.encoder, "source": str(tmp_path / "moved")}
        moved = make_cache(tmp_path / "moved.h5", list(cache.texts), np.array(cache.embeddings()), encoder=about)
    client = make_client(open_service(moved))
    assert client.get("/v1/models").json()["data"] == []
    assert "no such model" in refused(client.post("/v1/embeddings", json={"model": "x", "input": "y"}), 404)
