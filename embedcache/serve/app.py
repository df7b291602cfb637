"""The routes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException

from embedcache import __version__
from embedcache.cache.notes import data_notes
from embedcache.cache.where import rows_where
from embedcache.errors import EmbedcacheError
from embedcache.labelling.opened import notes_of
from embedcache.prediction.classifier import Prediction
from embedcache.search.searcher import Answer, Query
from embedcache.serve import limits as lim
from embedcache.serve import schema as m
from embedcache.serve.embeddings import add_embeddings
from embedcache.serve.label_routes import add_labelling
from embedcache.serve.limits import LimitRequests
from embedcache.serve.map_colors import MapColors
from embedcache.serve.micro_batches import QueueFullError
from embedcache.serve.prometheus import Metrics, Record
from embedcache.serve.security import ROLE, Guard, SecureHeaders, error_document
from embedcache.serve.served_run import ServedRun
from embedcache.serve.service import NoEncoderError, Search, Service

STATIC = Path(__file__).with_name("static")
SHOWN_FAULTS = 3  # of a body that breaks several rules
BUSY_SECONDS = 1
BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
MEANING = {
    400: "Not a request of this machine (Host), or not HTTP as it should be.",
    401: "A token is needed.",
    403: "Another web site's page sent it, or a token that may only label.",
    404: "No such row, column, model or path.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    422: "The request cannot be answered: detail says why.",
    429: "Too much is waiting: try again after Retry-After seconds.",
    503: "Not there yet, or not on this server.",
    504: "Not done in time.",
}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {
        code: {"model": m.ErrorAnswer, "description": MEANING[code]} for code in sorted({400, 401, 403, 504, *codes})
    }


ASKED = _errors(408, 413, 422, 429, 503)


def log_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def create_app(
    service: Service,
    *,
    token: str | None = None,
    label_token: str | None = None,
    verbose: bool = False,
    log: Callable[[str], None] = log_to_stderr,
) -> FastAPI:
    """The application of a service.

    ``token``: what Authorization: Bearer must say; None where nobody needs one. ``label_token``: a second
    one, which may only label.
    """
    app = FastAPI(
        title="embedcache",
        version=__version__,
        summary="The rows of a cache by meaning, and what the run's best head says of texts.",
        docs_url=None,  # FastAPI's own load scripts from elsewhere; /docs is a page of ours
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    metrics = Metrics(service)
    _add_errors(app)
    _add_questions(app, service)
    _add_rows(app, service)
    _add_map(app, service)
    add_embeddings(app, service, ASKED, _errors(404))
    if service.labelling is not None:
        add_labelling(app, service.labelling, ASKED, _errors(422))
    _add_pages(app, metrics)
    # The last one added is the first that a request meets.
    app.add_middleware(LimitRequests, limits=service.limits)
    app.add_middleware(Guard, token=token, label_token=label_token)
    app.add_middleware(Record, metrics=metrics, log=log, verbose=verbose)
    app.add_middleware(SecureHeaders)
    if token is not None:
        _describe_token(app)
    return app


def _add_errors(app: FastAPI) -> None:
    def answer(request: Request, status: int, detail: str, headers: Any = None) -> JSONResponse:
        return JSONResponse(error_document(request.url.path, detail), status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return answer(request, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(request, 422, _faults(error.errors()))

    @app.exception_handler(EmbedcacheError)
    async def _cannot(request: Request, error: EmbedcacheError) -> JSONResponse:
        return answer(request, 503 if isinstance(error, NoEncoderError) else 422, str(error))

    @app.exception_handler(QueueFullError)
    async def _busy(request: Request, error: QueueFullError) -> JSONResponse:
        return answer(request, 429, "too much is waiting: try again in a moment", {"Retry-After": str(BUSY_SECONDS)})


def _faults(errors: Sequence[Any]) -> str:
    """What is wrong and where, without what was sent."""
    lines = []
    for error in errors[:SHOWN_FAULTS]:
        place = ".".join(str(part) for part in error["loc"][1:])
        message = error["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    more = len(errors) - SHOWN_FAULTS
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _add_pages(app: FastAPI, metrics: Metrics) -> None:
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html", media_type="text/html; charset=utf-8")

    @app.get("/healthz", tags=["server"], summary="Whether the server is up", responses=_errors())
    async def healthz() -> m.HealthAnswer:
        return m.HealthAnswer(status="ok")

    @app.get(
        "/metrics",
        tags=["server"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={**_errors(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def read_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/predict", tags=["questions"], summary="Label texts", responses=ASKED, response_model_exclude_unset=True)
    async def predict(asked: m.PredictRequest) -> list[m.PredictionAnswer]:
        how: dict[str, Any] = {"threshold": asked.threshold, "reject": asked.reject, "sure": asked.sure}
        if asked.vectors is not None:
            found = service.predict_vectors(asked.vectors, runs=asked.runs, **how)
        else:
            found = await service.predict(asked.texts or [], runs=asked.runs, explain=asked.explain, **how)
        by_text = zip(*found.values(), strict=True)
        named = asked.runs is not None
        has_text = asked.texts is not None
        return [_predicted(service, dict(zip(found, said, strict=True)), named, has_text) for said in by_text]

    @app.post("/search", tags=["questions"], summary="Find similar rows", responses=ASKED)
    async def search(asked: m.SearchRequest) -> m.SearchAnswer:
        where = (asked.where,) if isinstance(asked.where, str) else tuple(asked.where or ())
        first = [one for one in (asked.query, asked.row) if one is not None]
        query = Query((*first, *asked.like), tuple(asked.unlike))
        rows = None if asked.among is None else tuple(asked.among)
        search = Search(query, asked.k, where, asked.dedupe, rows=rows)
        if asked.vector is not None:
            return _found(await service.search_vector(asked.vector, search))
        return _found(await service.search(search))


def _found(answer: Answer) -> m.SearchAnswer:
    return m.SearchAnswer(query=answer.query, results=[m.FoundAnswer(**vars(one)) for one in answer.results])


def _predicted(
    service: Service, found: Mapping[str, Prediction], named: bool, has_text: bool = True
) -> m.PredictionAnswer:
    """What runs say of one text, the first one's in the answer's own fields; named: whether each has its own, too."""
    every = {name: _by_run(service.runs[name], one, has_text) for name, one in found.items()}
    first = next(iter(found))
    document = {"text": found[first].text, **every[first], **({"runs": every} if named else {})}
    return m.PredictionAnswer(**document)


def _by_run(run: ServedRun, prediction: Prediction, has_text: bool) -> dict[str, Any]:
    """The fields of a RunPrediction, with the sides of the split that the text was on, where it was on one."""
    known = run.sides.of(prediction.text) if has_text else dict.fromkeys(run.run.columns)
    sides: dict[str, dict[str, Any]] = {name: {"side": side} if side else {} for name, side in known.items()}
    document: dict[str, Any] = prediction.to_dict()
    del document["text"]
    for name, one in document.get("columns", {}).items():
        one |= sides[name]
    return document | next(iter(sides.values()))


def _add_rows(app: FastAPI, service: Service) -> None:
    cache = service.cache

    @app.get("/rows/{id}", tags=["cache"], summary="One row of the cache", responses=_errors(404, 422, 429))
    async def row(
        id: Annotated[int, PathParameter(ge=0, le=2**62, description="The row's number, counted from 0.")],
    ) -> m.RowAnswer:
        if id >= cache.rows:
            raise HTTPException(404, f"no row {id}: the cache has {cache.rows:,} rows, counted from 0")
        said = await service.predict_row(id)
        return m.RowAnswer(
            row=id,
            text=cache.texts[id],
            labels=service.searcher.labels(id),
            id=None if cache.ids is None else cache.ids[id],
            columns={name: cache.column(name)[id] for name in cache.column_names},
            prediction=_predicted(service, said, len(service.runs) > 1) if said else None,
        )

    info = _info(service)

    @app.get("/info", tags=["cache"], summary="What is served", responses=_errors())
    async def read_info(request: Request) -> m.InfoAnswer:
        return info.model_copy(update={"role": request.scope.get(ROLE, "all")})

    boards = {
        name: {column: m.BoardAnswer(**one) for column, one in run.board.items()} for name, run in service.runs.items()
    }

    @app.get("/leaderboard", tags=["run"], summary="The runs' heads and learning curves", responses=_errors(422))
    def leaderboard() -> m.LeaderboardAnswer:
        others = dict(boards)
        first = others.pop(service.first.name) if service.first is not None else {}
        compared = {name: m.ComparisonAnswer(**one) for name, one in service.comparisons.items()}
        return m.LeaderboardAnswer(columns=first, others=others, comparisons=compared)


def _add_map(app: FastAPI, service: Service) -> None:
    cache = service.cache
    colors = MapColors(service)

    @app.get("/map", tags=["map"], summary="Whether the map is there, and its colors", responses=_errors())
    def read_map() -> m.MapAnswer:
        found = colors.now().items()
        groups = {name: [m.GroupAnswer(**asdict(group)) for group in of] for name, (of, _) in found}
        return m.MapAnswer(status=service.map.status, problem=service.map.problem, rows=cache.rows, groups=groups)

    @app.get(
        "/map/points",
        tags=["map"],
        summary="Where each row lies: x and y, float32, little-endian, within -1 and 1",
        response_class=Response,
        responses={**_errors(503), 200: {"content": BYTES}},
    )
    async def points() -> Response:
        if service.map.points is None:
            raise HTTPException(503, service.map.problem or "the map is being computed", {"Retry-After": "2"})
        return Response(service.map.points.astype("<f4").tobytes(), media_type="application/octet-stream")

    @app.get(
        "/map/groups/{column}",
        tags=["map"],
        summary="The group of each row by a label or kept column, one byte each",
        response_class=Response,
        responses={**_errors(404, 422), 200: {"content": BYTES}},
    )
    def read_groups(column: str) -> Response:
        if column not in (found := colors.now()):
            raise HTTPException(404, "no such column to colour by")
        return Response(found[column][1].astype(np.uint8).tobytes(), media_type="application/octet-stream")

    @app.post(
        "/map/among",
        tags=["map"],
        summary="Which rows meet conditions, one byte each: 1 or 0",
        response_class=Response,
        responses={**ASKED, 200: {"content": BYTES}},
    )
    def among(asked: m.AmongRequest) -> Response:
        found = rows_where(cache, asked.where) if asked.where else np.ones(cache.rows, bool)
        return Response(found.astype(np.uint8).tobytes(), media_type="application/octet-stream")


def _info(service: Service) -> m.InfoAnswer:
    about, index = service.cache.info(), service.searcher.index
    runs = [_about_run(one) for one in service.runs.values()]
    return m.InfoAnswer(
        **{name: about[name] for name in ("rows", "dim", "poolings", "labels", "columns", "id_column", "fingerprint")},
        kept={
            name: m.KeptColumn(kind=one.kind, values=one.values, low=one.low, high=one.high)
            for name, one in service.kept.items()
        },
        version=__version__,
        cache=service.cache.path.name,
        encoder=Path(service.cache.encoder["source"]).name,
        texts=service.encoder is not None,
        why_no_texts=service.no_encoder,
        notes=notes_of(service.cache.labels_from) + data_notes(service.cache),
        index=m.IndexAnswer(
            kind=getattr(index, "kind", "exact"),
            recall=getattr(index, "recall", None),
            pooling=index.pooling,
            layer=index.layer,
        ),
        run=runs[0] if runs else None,
        runs=runs,
        labelling=service.labelling is not None,
        limits={
            "body_bytes": service.limits.body,
            "texts": lim.MAX_TEXTS,
            "characters": lim.MAX_CHARACTERS,
            "k": lim.MAX_K,
        },
    )


def _about_run(one: ServedRun) -> m.RunAnswer:
    return m.RunAnswer(
        name=one.name,
        columns={name: column.best.kind for name, column in one.run.columns.items()},
        levels=(one.run.info.get("hierarchy") or {}).get("levels"),
        pooling=one.run.info["pooling"],
        layer=one.run.info["layer"],
    )


def _describe_token(app: FastAPI) -> None:
    """Say in the OpenAPI document that a token is needed."""
    make = app.openapi

    def with_token() -> dict[str, Any]:
        document = make()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"]["/healthz"]["get"]["security"] = []
        return document

    app.openapi = with_token  # type: ignore[method-assign]
