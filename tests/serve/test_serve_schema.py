"""The OpenAPI document against the server: what it allows is answered as it says, what it forbids is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from embedcache.serve.app import create_app
from embedcache.serve.label_column import open_session
from tests.serve.serving import start_map

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
HOST = {"Host": "127.0.0.1"}
EXAMPLES = 25  # of each operation


def test_every_operation_keeps_to_the_document(copy: Path, open_service: Callable[..., Any]) -> None:
    service = start_map(open_service(copy / "reviews.h5", copy / "run"))
    open_session(service).begin()
    lines: list[str] = []
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service, log=lines.append), headers=HOST)
    seen: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @_given(operation)
        def check(case: Any) -> None:
            answer = case.call(headers=HOST)
            seen.setdefault(case.operation.label, set()).add(answer.status_code)
            refused = [] if answer.status_code == 413 else [negative_data_rejection]  # which does not know "too large"
            case.validate_response(answer, checks=CHECKS + refused)

        check()
    assert 422 in seen["POST /search"] and {200, 422} <= seen["POST /predict"]
    search = schema["/search"]["POST"]
    for body in ({"query": "a film"}, {"row": 3, "where": "label=positive"}, {"like": ["good", 5], "unlike": [6]}):
        answer = search.Case(body=body, media_type="application/json").call_and_validate(headers=HOST)
        assert answer.status_code == 200, "few random bodies name a column that there is"
    model = service.cache.encoder["source"].rsplit("/", 1)[-1]
    for body in ({"input": "a film"}, {"input": ["a", ""], "encoding_format": "base64"}):
        case = schema["/v1/embeddings"]["POST"].Case(body={"model": model, **body}, media_type="application/json")
        assert case.call_and_validate(headers=HOST).status_code == 200, "few random bodies name a model that there is"
    labels = schema["/labelling/labels"]["POST"]
    one = {"id": "x", "row": 3, "label": "positive", "who": "ada"}
    for path, body in ((labels, {"labels": [one]}), (schema["/labelling/next"]["POST"], {"who": "ada", "count": 2})):
        answer = path.Case(body=body, media_type="application/json").call_and_validate(headers=HOST)
        assert answer.status_code == 200
    every = schema["/predict"]["POST"].Case(body={"texts": ["a film"], "runs": "all"}, media_type="application/json")
    assert every.call_and_validate(headers=HOST).status_code == 200
    assert len(seen) >= 16 and lines == [], "nothing unexpected was logged"


def _given(operation: Any) -> Any:
    """Cases that the document allows, and some that it forbids."""
    from hypothesis import given, strategies
    from schemathesis import GenerationMode

    both = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    allowed, forbidden = both
    return given(case=strategies.one_of(allowed, forbidden) if operation.body or operation.path_parameters else allowed)
