"""Triton's `generate` and parameters of gRPC requests: nothing that was sent is ignored."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc  # type: ignore[import-untyped]
from youtu_contract.rows import TEXT_INPUTS
from youtu_contract.values import add_input

from tests.e2e.running import RunningServer
from tests.limits import WAIT_S

BODY = {"text_input": "你好", "max_tokens": 3}


def post(server: RunningServer, body: Any, *, model: str = "youtu_llm", route: str = "generate") -> Any:
    """Status, and the JSON or the error's text."""
    url = f"{server.triton_http_url}/v2/models/{model}/{route}"
    request = urllib.request.Request(url, body if isinstance(body, bytes) else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            text = response.read().decode().strip().removeprefix("data: ")
            return response.status, json.loads(text)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read().decode().removeprefix("data: "))["error"]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"temprature": 0.5}, "temprature", "unknown input; expected one of text_input, messages, "),
        ({"Temperature": 0.5}, "Temperature", "unknown input"),
        ({"nosuch": "text"}, "nosuch", "unknown input"),
        ({"nosuch": True}, "nosuch", "unknown input"),
        ({"": 1}, "", "unknown input"),
        ({'quo"te\\ 退货': 1}, 'quo"te\\ 退货', "unknown input"),
        ({"priority": 1}, "priority", "unknown input"),
        ({"prompt": "x", "stream": True}, "prompt", "unknown input"),
        ({"parameters": {"nosuch": 1}}, "nosuch", "unknown input"),
    ],
)
def test_unknown_fields_are_refused_by_name(
    server: RunningServer, fields: dict[str, Any], param: str, says: str
) -> None:
    status, text = post(server, BODY | fields)
    error = json.loads(text)
    assert (status, error["code"], error["param"]) == (400, "invalid_value", param)
    assert error["message"].startswith(says)


def test_unknown_fields_of_a_stream_and_of_the_engine_are_refused(server: RunningServer) -> None:
    status, text = post(server, BODY | {"nosuch": 1}, route="generate_stream")
    assert (status, json.loads(text)["param"]) == (400, "nosuch")
    body = {"input_ids": [1, 2], "input_lengths": 2, "request_output_len": 2}
    status, text = post(server, body | {"nosuch": 1}, model="youtu_engine")
    assert (status, json.loads(text)["param"]) == (400, "nosuch")
    assert post(server, body, model="youtu_engine")[0] == 200
    status, text = post(server, {"probe": True, "nosuch": 1})
    assert (status, json.loads(text)["param"]) == (400, "nosuch")


WRONG: dict[str, list[Any]] = {
    "temperature": ["0.5", True, None, {}, [], [0.5, 0.6]],
    "max_tokens": [2.7, "3", True, 3.0],
    "seed": [-1, 1.5, 2**64],
    "stream": ["true", 1, 0.0],
    "text_input": [5, True, None, {"a": 1}, ["a", "b"]],
    "stop_words": [5, ["a", 1], {"a": 1}],
    "stop_token_ids": [[1, 2.5], ["a"], "a"],
    "logit_bias": [{"1": 2}, 5],
    "nosuch": [None, [1], {"a": 1}],
    "id": [5],
    "parameters": [3],
}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_types_are_errors(server: RunningServer, field: str) -> None:
    for value in WRONG[field]:
        status, error = post(server, BODY | {field: value})
        assert status in (400, 500), value
        assert isinstance(error, str)


def test_a_field_sent_twice_is_an_error(server: RunningServer) -> None:
    body = b'{"text_input": "a", "max_tokens": 2, "temperature": 0.1, "temperature": 0.2}'
    assert post(server, body)[0] == 400


def test_what_is_known_is_answered(server: RunningServer) -> None:
    status, answer = post(server, BODY | {"id": "mine", "temperature": [0.5], "stop_words": ["a", "b"]})
    assert (status, answer["id"]) == (200, "mine")
    status, answer = post(server, {"text_input": "a", "parameters": {"max_tokens": 2, "min_tokens": 2}})
    assert (status, answer["num_output_tokens"]) == (200, 2)


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
    [
        ("nosuch", "int64_param", 1, "unknown input"),
        ("temperature", "string_param", "0.5", "is an input; it was sent as a parameter"),
        ("max_tokens", "double_param", 2.0, "is an input; it was sent as a parameter"),
        ("triton_enable_empty_final_response", "bool_param", True, None),
        ("priority", "uint64_param", 1, None),
        ("timeout", "int64_param", 60_000_000, None),
    ],
)
def test_parameters_of_a_grpc_request(
    server: RunningServer, name: str, field: str, value: Any, says: str | None
) -> None:
    request = service_pb2.ModelInferRequest(model_name="youtu_llm")
    add_input(request, TEXT_INPUTS["text_input"], [b"a"])
    add_input(request, TEXT_INPUTS["max_tokens"], [2])
    setattr(request.parameters[name], field, value)
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        responses = list(stub.ModelStreamInfer(iter([request]), timeout=WAIT_S))
    if says is None:
        assert not responses[0].error_message
        return
    error = json.loads(responses[0].error_message)
    assert (error["code"], error["param"]) == ("invalid_value", name)
    assert error["message"].startswith(says)
