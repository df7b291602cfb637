"""Vectors of texts, as programs ask OpenAI's API for them: /v1/embeddings and /v1/models."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from fastapi import FastAPI, HTTPException, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field, StrictInt, StrictStr, field_validator

from embedcache.errors import EmbedcacheError
from embedcache.serve.limits import MAX_EMBEDDED
from embedcache.serve.schema import RequestBody, Text
from embedcache.serve.service import Service

WIDEST = 1 << 20  # dimensions
Errors = dict[int | str, dict[str, Any]]


class EmbeddingsRequest(RequestBody):
    """Texts to encode, each by itself. ``user`` is taken, and not looked at."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_EMBEDDED)]
    model: StrictStr = Field(description="One of /v1/models.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: of the numbers as float32, little-endian."
    )
    dimensions: Annotated[StrictInt, Field(ge=1, le=WIDEST)] | None = Field(
        None, description="Only the first so many numbers, scaled to unit length again, where the model declares it."
    )
    user: StrictStr | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _texts_not_tokens(cls, given: Any) -> Any:
        if isinstance(given, list) and any(isinstance(one, (int, list)) for one in given):
            raise ValueError("send texts: lists of tokens are not taken here")
        return given


class EmbeddingAnswer(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class UsageAnswer(BaseModel):
    """Tokens that the encoder read, special ones included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingAnswer]
    model: str
    usage: UsageAnswer


class ModelAnswer(BaseModel):
    """A kind of vector: the encoder's name is what is searched; others have their pooling, or the name of a run."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[ModelAnswer]


class Models:
    """The kinds of vectors that the service makes of a text, by name."""

    def __init__(self, service: Service) -> None:
        self.service = service
        encoder = Path(service.cache.encoder["source"]).name
        tuned = {one.output: one.name for one in service.runs.values() if one.tuned is not None}
        self.places: dict[str, int] = {}
        for place, (pooling, layer) in enumerate(service.outputs if service.encoder is not None else ()):
            name = f"{encoder}:{pooling}" + (f":{layer}" if layer != -1 else "")
            self.places[encoder if place == 0 else tuned.get((pooling, layer), name)] = place
        self.created = int(service.cache.path.stat().st_mtime)

    def answer(self, name: str) -> ModelAnswer:
        return ModelAnswer(id=name, object="model", created=self.created, owned_by="embedcache")

    def place(self, name: str) -> int:
        """Where its vector is among ``Service.outputs``. Raises HTTPException: 404."""
        if name not in self.places:
            known = ", ".join(self.places) or f"none ({self.service.no_encoder})"
            raise HTTPException(404, f"no such model; there is {known}")
        return self.places[name]

    def cut(self, vectors: np.ndarray, name: str, dimensions: int | None) -> np.ndarray:
        """The first dimensions [n, dimensions], of unit length. Raises EmbedcacheError where the model cannot."""
        if dimensions is None or dimensions == vectors.shape[1]:
            return vectors
        widths = self._widths(name)
        if dimensions > vectors.shape[1] or (widths is not None and dimensions not in widths):
            can = f"it can be cut to {', '.join(map(str, widths))}" if widths else "it cannot be cut"
            raise EmbedcacheError(f"dimensions: vectors of this model are {vectors.shape[1]} wide, and {can}")
        part = vectors[:, :dimensions]
        return np.asarray(part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12))

    def _widths(self, name: str) -> tuple[int, ...] | None:
        """To which the model's authors say that its vectors may be cut; None: to any."""
        from embedcache.encoder.folder import find_root
        from embedcache.encoder.poolings import MODEL
        from embedcache.encoder.prescription import read_prescription

        encoder, (pooling, _) = self.service.encoder, self.service.outputs[self.places[name]]
        if encoder is None or pooling != MODEL:
            return ()
        says = read_prescription(find_root(encoder.source, False)[0], name)
        return () if says is None else says.matryoshka


def add_embeddings(app: FastAPI, service: Service, asked_errors: Errors, errors: Errors) -> None:
    """The routes. errors: what each of them may answer, and what may follow a body."""
    models = Models(service)

    @app.post(
        "/v1/embeddings",
        tags=["OpenAI"],
        summary="Vectors of texts, as OpenAI's clients ask for them",
        response_model=EmbeddingsAnswer,
        responses={**asked_errors, **errors},
    )
    async def embeddings(asked: EmbeddingsRequest) -> Response:
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        place = models.place(asked.model)
        encoded = await service.embed(texts)
        vectors = np.stack([encoded[text].vectors[place] for text in texts]).astype("<f4")
        vectors = models.cut(vectors, asked.model, asked.dimensions)
        tokens = sum(encoded[text].tokens for text in texts)
        document = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": one}
                for index, one in enumerate(_written(vectors, asked.encoding_format))
            ],
            "model": asked.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Response(msgspec.json.encode(document), media_type="application/json")  # many numbers: not one by one

    @app.get("/v1/models", tags=["OpenAI"], summary="The kinds of vectors", responses=asked_errors)
    async def list_models() -> ModelsAnswer:
        return ModelsAnswer(object="list", data=[models.answer(name) for name in models.places])

    @app.get("/v1/models/{model}", tags=["OpenAI"], summary="One kind of vectors", responses={**errors})
    async def read_model(model: Annotated[str, PathParameter(description="One of /v1/models.")]) -> ModelAnswer:
        models.place(model)
        return models.answer(model)


def _written(vectors: np.ndarray, encoding: str) -> Sequence[list[float] | str]:
    if encoding == "float":
        return vectors.tolist()
    return [base64.b64encode(one.astype("<f4").tobytes()).decode("ascii") for one in vectors]
