"""The contract: rows agree with what is committed, errors survive the wire, values fit their tensors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from google.protobuf import text_format
from pydantic import ValidationError, create_model
from tritonclient.grpc import model_config_pb2, service_pb2  # type: ignore[import-untyped]
from youtu_contract import rows, values
from youtu_contract.documents import CONTRACTS, config_with_tensors, document_with_tables
from youtu_contract.errors import CODES, Error, Refused, context_length_exceeded
from youtu_contract.rows import OPTIONS, SAMPLING_OPTIONS, TEXT_INPUTS, TOKEN_INPUTS, TOKEN_OUTPUTS, Tensor
from youtu_contract.triton_errors import error_of_triton

from frontend.openai.schema import ChatCompletion, Completion
from frontend.schema import ChatRequest, field_type

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "model_repository"


@pytest.mark.parametrize("model", CONTRACTS)
def test_the_committed_configuration_has_the_tensors_of_the_rows(model: str) -> None:
    text = (REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8")
    assert config_with_tensors(model, text) == text, "run `make contract`"
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    inputs, outputs = CONTRACTS[model]
    assert [tensor.name for tensor in config.input] == list(inputs)
    assert [tensor.name for tensor in config.output] == list(outputs)


def test_the_document_has_the_tables_of_the_rows() -> None:
    text = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    assert document_with_tables(text) == text, "run `make contract`"


def test_nvidias_model_has_the_rows_that_it_should_have_and_no_others_of_ours() -> None:
    text = (REPOSITORY / "tensorrt_llm" / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    for ours, theirs in ((TOKEN_INPUTS, config.input), (TOKEN_OUTPUTS, config.output)):
        found = {tensor.name: tensor for tensor in theirs}
        for name, row in ours.items():
            assert (name in found) == row.nvidia, name
            if name in found:
                kind = model_config_pb2.DataType.Name(found[name].data_type).removeprefix("TYPE_")
                kind = "BYTES" if kind == "STRING" else kind
                assert (kind, tuple(found[name].dims)) == (row.datatype, row.shape), name


def test_each_option_names_a_tensor_of_the_token_contract_or_none() -> None:
    for option, row in OPTIONS.items():
        assert row.engine is None or row.engine in TOKEN_INPUTS, option
        assert TEXT_INPUTS[row.name] == row
        assert row.meaning.endswith("."), option


@pytest.mark.parametrize("request_model", [ChatRequest, ChatCompletion, Completion])
def test_each_generating_route_takes_each_sampling_option(request_model: Any) -> None:
    fields = request_model.model_fields
    assert set(SAMPLING_OPTIONS) <= set(fields)


def test_the_clients_options_are_the_rows() -> None:
    assert set(get_type_hints(rows.Options)) == set(OPTIONS)


def test_an_error_survives_the_wire() -> None:
    for code in CODES:
        error = Error(code, '是 "so"\n{"code": 1}', "messages[0].role", {"prompt_tokens": 7})
        line = error.to_line()
        assert "\n" not in line
        assert Error.from_line(line) == error
    error = context_length_exceeded("messages", 3000, 2048).error
    assert error.details == {"prompt_tokens": 3000, "context_tokens": 2048}
    assert error.message.startswith("This model's maximum context length is 2048 tokens. However, ")


@pytest.mark.parametrize("line", ["", "null", "[]", "{", '{"error": "x"}', '{"code": 5}', "[" * 100_000])
def test_what_is_no_line_of_the_contract_is_none(line: str) -> None:
    assert Error.from_line(line) is None


@pytest.mark.parametrize(
    ("prose", "code", "param"),
    [
        ("Request for unknown model: 'x' is not found", "not_ready", None),
        ("Request for unknown model: 'youtu_llm' version 1 is not at ready state", "not_ready", None),
        ("unexpected inference input 'min_q' for model 'youtu_llm'", "invalid_value", "min_q"),
        ("expected 1 inputs but got 2 inputs for model 'youtu_llm'", "invalid_value", None),
        ("Exceeds maximum queue size", "queue_full", None),
        ("the engine found an invalid input while it computed", "engine_error", None),
        ("CUDA error: an illegal shape of the batch", "engine_error", None),
        ("the executor is not ready: worker died", "engine_error", None),
    ],
)
def test_tritons_own_prose(prose: str, code: str, param: str | None) -> None:
    error = error_of_triton(prose)
    assert (error.code, error.param, error.message) == (code, param, prose)


def test_every_table_of_codes_has_a_known_status() -> None:
    assert {code.triton for code in CODES.values()} <= {
        "INVALID_ARG",
        "UNAVAILABLE",
        "INTERNAL",
        "UNSUPPORTED",
    }
    assert all((code.http in (429, 503)) == (code.retry_after_s is not None) for code in CODES.values())
    assert (
        json.loads(Error("queue_full", "x").to_line())["retry_after_s"] == CODES["queue_full"].retry_after_s
    )


SENT: list[tuple[Tensor, Any, list[Any]]] = [
    (Tensor("INT32", "", name="x"), -7, [-7]),
    (Tensor("UINT64", "", name="x"), 2**64 - 1, [2**64 - 1]),
    (Tensor("FP32", "", name="x"), 0.5, [0.5]),
    (Tensor("BOOL", "", name="x"), True, [True]),
    (Tensor("BYTES", "", name="x"), "好", ["好".encode()]),
    (Tensor("BYTES", "", name="x", json=True), {"好": 1}, ['{"好":1}'.encode()]),
    (Tensor("BYTES", "", name="x", shape=(-1,)), "one", [b"one"]),
    (Tensor("BYTES", "", name="x", shape=(-1,)), ["", "b"], [b"", b"b"]),
    (Tensor("INT32", "", name="x", shape=(-1,)), [1, 2, 3], [1, 2, 3]),
]


@pytest.mark.parametrize(("row", "value", "elements"), SENT)
def test_what_is_packed_is_read_again(row: Tensor, value: Any, elements: list[Any]) -> None:
    assert values.encoded("x", row, value) == elements
    request = service_pb2.ModelInferRequest()
    values.add_input(request, row, elements)
    assert list(request.inputs[0].shape) == [1, len(elements)]
    assert values.unpacked(row.datatype, request.raw_input_contents[0]) == elements
    other = service_pb2.ModelInferRequest()
    values.add_array(other, "x", values.array_of(row, elements if row.is_list else elements[0]))
    assert other.raw_input_contents[0] == request.raw_input_contents[0]


@pytest.mark.parametrize(
    ("row", "value", "says"),
    [
        (Tensor("INT32", ""), 1.0, "f: must be a whole number, not 1.0"),
        (Tensor("INT32", ""), True, "f: must be a whole number, not True"),
        (Tensor("INT32", ""), 2**31, "f: must be from -2147483648 to 2147483647, not 2147483648"),
        (Tensor("FP32", ""), "1", "f: must be a number, not '1'"),
        (Tensor("FP32", ""), 1e39, "f: does not fit a 32-bit float: 1e[+]39"),
        (Tensor("BOOL", ""), 1, "f: must be True or False, not 1"),
        (Tensor("BYTES", ""), b"x", "f: must be a string, not bytes"),
        (Tensor("BYTES", ""), "\ud800", "f: is not valid text: a lone surrogate at character 0"),
        (Tensor("BYTES", "", shape=(-1,)), [1], r"f\[0\]: must be a string, not int"),
        (Tensor("INT32", "", shape=(-1,)), 5, "f: must be a list, not int"),
        (Tensor("BYTES", "", json=True), [1], "f: must be a dict, not list"),
        (Tensor("BYTES", "", json=True), {"x": math.nan}, "f: cannot be written as JSON"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused(row: Tensor, value: Any, says: str) -> None:
    with pytest.raises(Refused, match=says):
        values.encoded("f", row, value)


@pytest.mark.parametrize("raw", [b"\x01", b"\x05\x00\x00\x00abc", b"\xff\xff\xff\xff"])
def test_a_text_that_is_cut_off_is_not_read(raw: bytes) -> None:
    with pytest.raises(ValueError, match="cut off"):
        values.unpacked("BYTES", raw)


def test_an_array_of_several_rows_is_no_value() -> None:
    row = TEXT_INPUTS["temperature"]
    with pytest.raises(Refused, match="temperature: expected one value; got 2"):
        values.value_of(row, np.array([[1.0, 2.0]], np.float32), {})
    assert json.loads(Error("x", "y").to_line())["param"] is None


@pytest.mark.parametrize(
    "row",
    [
        Tensor("BOOL", "", name="x"),
        Tensor("BYTES", "", name="x"),
        Tensor("FP32", "", name="x", shape=(-1,), low=0, high=1),
        Tensor("INT32", "", name="x", shape=(-1,), max_values=2),
        Tensor("BYTES", "", name="x", json=True),
    ],
)
def test_a_row_of_any_type_makes_a_field_of_a_request(row: Tensor) -> None:
    """The fault: with an option that was a bool the frontend did not start; one text was read as a list."""
    model: Any = create_model("M", x=(field_type(row) | None, None))
    good = {"BOOL": True, "BYTES": "one", "FP32": [0.5], "INT32": [1, 2]}[row.datatype]
    good = {"a": [1]} if row.json else good
    assert model(x=good).x == good
    for bad in ({"BOOL": 5, "BYTES": 5, "FP32": [2.0], "INT32": [1, 2, 3]}[row.datatype], object()):
        with pytest.raises(ValidationError):
            model(x=bad)


def test_each_option_is_described_in_the_api() -> None:
    for model in (ChatRequest, ChatCompletion, Completion):
        properties = model.model_json_schema()["properties"]
        for option, row in SAMPLING_OPTIONS.items():
            assert properties[option]["description"] == row.meaning
