"""`/openapi.json` is valid, names every route, and is true: what is sent by it gets no unexpected answer."""

from __future__ import annotations

import collections
import json
import re
from typing import Any

import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from youtu_client import Client

from frontend import create_app
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
FOR_BROWSERS = {"/", "/page/facts", "/render", "/static/<path:filename>", "/openapi.json"}


def application(fake: FakeTriton, **given: str) -> Any:
    variables = {f"YOUTU_{name.upper()}": value for name, value in given.items()}
    chosen = Settings.load({"YOUTU_GRPC_PORT": str(fake.port)} | variables)
    return create_app(chosen, Client(fake.address, timeout=10))


def document(app: FlaskClient, **headers: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(app.get("/openapi.json", headers=headers).data)
    return value


@pytest.mark.parametrize("given", [{}, {"api_key": "k"}])
def test_it_is_valid(fake: FakeTriton, given: dict[str, str]) -> None:
    promised = document(application(fake, **given).test_client(), Authorization="Bearer k")
    assert promised["openapi"] == "3.1.0"
    validate(promised)
    assert ("security" in promised) == bool(given)


def undescribed(app: Any) -> set[tuple[str, str]]:
    """Routes that are in the app, not for browsers, and not in its description; or the other way round."""
    described = {
        (path, method.upper())
        for path, operations in document(app.test_client())["paths"].items()
        for method in operations
    }
    there = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule not in FOR_BROWSERS and not rule.endpoint.startswith("not_offered.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    return described ^ there


def test_every_route_is_described(fake: FakeTriton) -> None:
    assert undescribed(application(fake)) == set()
    app = application(fake)
    app.add_url_rule("/new", view_func=lambda: "", methods=["POST"], endpoint="chat.new")
    assert undescribed(app) == {("/new", "POST")}


OPERATIONS = [
    ("/chat", "POST"),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"),
    ("/v1/responses", "POST"),
    ("/v1/responses/input_tokens", "POST"),
    ("/v1/responses/{response_id}", "GET"),
    ("/v1/responses/{response_id}", "DELETE"),
    ("/v1/responses/{response_id}/input_items", "GET"),
    ("/v1/messages", "POST"),
    ("/v1/messages/count_tokens", "POST"),
    ("/tokenize", "POST"),
    ("/detokenize", "POST"),
    ("/health", "GET"),
    ("/health/live", "GET"),
    ("/health/ready", "GET"),
    ("/ping", "GET"),
    ("/ping", "POST"),
    ("/documents", "POST"),
    ("/documents", "GET"),
    ("/documents/{id}", "DELETE"),
    ("/metrics", "GET"),
    ("/version", "GET"),
]


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_nothing_unexpected(fake: FakeTriton, path: str, method: str, mode: GenerationMode) -> None:
    api = schemathesis.openapi.from_wsgi("/openapi.json", application(fake))
    seen: collections.Counter[int] = collections.Counter()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        seen[case.call_and_validate(checks=CHECKS).status_code] += 1

    try:
        ask()
    except Unsatisfiable:  # Nothing can be wrong with a request that has neither parameters nor body.
        assert method in ("GET", "DELETE") or path == "/ping"
        assert mode is GenerationMode.NEGATIVE
    if method == "POST" and mode is GenerationMode.POSITIVE:
        assert seen[200] > 0, seen


def test_no_operation_is_left_out(app: FlaskClient) -> None:
    paths = document(app)["paths"]
    assert [(path, method.upper()) for path in paths for method in paths[path]] == OPERATIONS


def test_the_checks_would_notice(app: FlaskClient) -> None:
    """A document that promises too little is found out: the same machinery, one status taken away."""
    promised = document(app)
    del promised["paths"]["/v1/models/{model}"]["get"]["responses"]["404"]
    poor = schemathesis.openapi.from_dict(promised)
    operation = poor["/v1/models/{model}"]["GET"]
    case = operation.Case(path_parameters={"model": "another"})
    with pytest.raises(FailureGroup, match="404"):
        case.call_and_validate(app=app.application, checks=CHECKS)
