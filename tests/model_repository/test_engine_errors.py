"""What youtu_llm makes of an engine's words: few of them are about the caller's request."""

from __future__ import annotations

import pytest
from engine_errors import ERRORS_OF_ENGINES
from youtu_contract.errors import CODES, Error

BOTH = tuple(ERRORS_OF_ENGINES)


@pytest.mark.parametrize("code", CODES)
def test_our_engines_lines_keep_their_codes(code: str) -> None:
    error = Error(code, "so", "min_p", {"a": 1})
    assert ERRORS_OF_ENGINES["youtu_engine"](error.to_line()) == error


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize(
    ("prose", "code"),
    [
        ("Exceeds maximum queue size", "queue_full"),
        ("Request for unknown model: 'x' version 1 is not at ready state", "not_ready"),
        ("Stub process 'youtu_engine_0_0' is not healthy.", "not_ready"),
        ("[request id: a] input 'embedding_bias' batch size does not match other inputs", "engine_error"),
        ("unexpected inference input 'min_p' for model 'tensorrt_llm'", "engine_error"),
        ("Unable to find plugin /opt/x.so", "engine_error"),
        ("the executor is not ready: worker died", "engine_error"),
        ("invalid request: temperature", "engine_error"),
        ("", "engine_error"),
    ],
)
def test_prose_is_not_the_callers_fault(engine: str, prose: str, code: str) -> None:
    """The fault: an input that youtu_llm had made wrongly came back as a 400 that showed Triton's text."""
    assert ERRORS_OF_ENGINES[engine](prose).code == code


def test_nvidias_words() -> None:
    read = ERRORS_OF_ENGINES["tensorrt_llm"]
    assert (
        read("Maximum queue size of 4 has been reached, please try again later\n1 0x7f: stack").code
        == "queue_full"
    )
    error = read(
        "Encountered an error: Prompt length (3000) exceeds maximum input length (2047). Set log level"
    )
    assert error.code == "context_length_exceeded"
    assert error.details == {"prompt_tokens": 3000, "context_tokens": 2048}
