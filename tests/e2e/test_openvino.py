"""The served demo once more, with OpenVINO as the runtime: the same tests of the same contract.

The tests that are imported here are collected again, with this module's server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from youtu_client import Client

from tests.e2e.running import KeptServer, RunningServer
from tests.e2e.test_served import (  # noqa: F401
    test_a_full_queue_refuses_and_the_others_are_served,
    test_a_prompt_that_does_not_fit_is_refused_with_the_limit,
    test_log_probs_and_usage_are_the_models,
    test_other_ways_of_asking_are_answered_and_other_questions_declined,
    test_rubbish_is_refused_while_others_go_on,
    test_stop_words_and_seed,
    test_the_corpus_is_reproduced_and_sixteen_callers_get_the_same,
    test_tritons_generate_and_generate_stream,
)


@pytest.fixture(scope="module")
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("openvino"), runtime="openvino") as kept:
        yield kept


def test_the_launcher_says_what_computes(server: RunningServer) -> None:
    assert "Runtime: OpenVINO (it was requested)\n" in server.log


def test_a_guided_answer_keeps_to_its_schema(client: Client) -> None:
    schema = {"type": "object", "properties": {"天数": {"type": "integer"}}, "required": ["天数"]}
    answer = client.chat(
        [{"role": "user", "content": "年假几天？"}],
        guided_decoding_guide_type="json_schema",
        guided_decoding_guide=json.dumps(schema),
        max_tokens=64,
    )
    assert answer.text.startswith('{"天数":')
