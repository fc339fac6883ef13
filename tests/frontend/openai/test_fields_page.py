"""docs/fields.md has every field of both routes, each with its route and what becomes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from frontend.openai.guides import GuidedRequest
from frontend.openai.labels import (
    LABELS,
    LABELS_OF_CHAT,
    LACKING_ANYWHERE,
    LACKING_IN_CHAT,
    LACKING_IN_COMPLETIONS,
    NOTHING,
)
from frontend.openai.messages import Message
from frontend.openai.schema import ChatCompletion, Completion

PAGE = (Path(__file__).parents[3] / "docs" / "fields.md").read_text(encoding="utf-8")
ROWS = dict(
    (name, (route, words))
    for name, route, words in re.findall(r"^\| `(\S+)` \| (\w+) \| (.*) \|$", PAGE, re.M)
)
LACKING = LACKING_ANYWHERE | LACKING_IN_CHAT | LACKING_IN_COMPLETIONS
LABELLED = LABELS | LABELS_OF_CHAT

# As of vLLM's main branch and llama.cpp's server in November 2026.
VLLM = re.findall(
    r"\w+",
    """
    messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens
    max_completion_tokens n presence_penalty response_format seed stop stream stream_options
    temperature top_p tools tool_choice reasoning_effort thinking_token_budget include_reasoning
    parallel_tool_calls user use_beam_search top_k min_p repetition_penalty watermarking
    length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens
    skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side
    prompt_logprobs logprob_token_ids allowed_token_ids bad_words echo add_generation_prompt
    continue_final_message add_special_tokens documents chat_template chat_template_kwargs
    media_io_kwargs mm_processor_kwargs structured_outputs priority request_id session_id
    return_tokens_as_token_ids return_token_ids routed_experts_prompt_start return_token_offsets
    return_prompt_text return_mm_kwargs cache_salt kv_transfer_params ec_transfer_params vllm_xargs
    repetition_detection stream_interval prompt suffix prompt_embeds best_of guided_json
    guided_regex guided_choice guided_grammar guided_decoding_backend guided_whitespace_pattern
    """,
)
LLAMA_SERVER = re.findall(
    r"\w+",
    """
    prompt temperature dynatemp_range dynatemp_exponent top_k top_p min_p n_predict n_indent n_keep
    n_discard n_cmpl n_cache_reuse stream stop typical_p repeat_penalty repeat_last_n
    presence_penalty frequency_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n
    dry_sequence_breakers xtc_probability xtc_threshold mirostat mirostat_tau mirostat_eta grammar
    json_schema seed ignore_eos logit_bias n_probs min_keep t_max_predict_ms id_slot cache_prompt
    return_tokens samplers timings_per_token return_progress sse_ping_interval post_sampling_probs
    response_fields lora top_n_sigma adaptive_target adaptive_decay backend_sampling grammar_lazy
    grammar_triggers preserved_tokens reasoning_format thinking_forced_open parse_tool_calls
    parallel_tool_calls chat_template_kwargs reasoning_budget_tokens
    """,
)
OPENAI = re.findall(
    r"\w+",
    """
    audio function_call functions metadata modalities prediction prompt_cache_key
    prompt_cache_retention safety_identifier service_tier store verbosity web_search_options
    """,
)


def test_the_page_names_what_the_routes_take() -> None:
    chat, text = set(ChatCompletion.model_fields), set(Completion.model_fields)
    routes = {
        name: "both" if name in chat & text else "chat" if name in chat else "completions"
        for name in chat | text
    }
    assert {name: route for name, (route, _) in ROWS.items()} == routes


def test_the_page_says_of_each_field_whether_it_does_something() -> None:
    for name, (_, words) in ROWS.items():
        assert (words == "accepted, no effect") == (name in LABELLED), name
        assert words.startswith("unsupported: ") == (name in LACKING), name
    for name, lacking in LACKING.items():
        words = ROWS[name][1]
        assert words.startswith(f"unsupported: {lacking.what}"), name
        assert all(f"`{json.dumps(value)}`" in words for value in lacking.also), name
    *first, last = (json.dumps(value) for value in NOTHING)
    assert f"{', '.join(first)} and {last} (and those" in " ".join(PAGE.split())


def test_no_field_of_the_other_servers_is_undecided() -> None:
    assert not {*VLLM, *LLAMA_SERVER, *OPENAI} - ROWS.keys()


def test_the_order_of_guides_and_the_keys_of_messages() -> None:
    order = re.search(r"first of these applies: (.*?)\.\n", PAGE, re.S)
    assert order is not None
    assert set(re.findall(r"`(\w+)`", order[1])) == set(GuidedRequest.model_fields)
    silent = {name for name, field in Message.model_fields.items() if not field.repr}
    assert silent <= set(re.findall(r"`(\w+)`", PAGE.partition("sent back unchanged")[2]))
