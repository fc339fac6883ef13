"""The tensors of the text contract and of the token contract, one row each.

Names and shapes of the text contract follow NVIDIA's `ensemble` and `tensorrt_llm_bls` models, those of the
token contract NVIDIA's `tensorrt_llm` model (inflight_batcher_llm, TensorRT-LLM 1.2). Shapes are without the
batch dimension, which is 1. An option of a request is one annotated key of `SamplingOptions` or `Options`: a
new one is one such key, a row in TOKEN_INPUTS if an engine has to know it, and the code that acts on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

Datatype = Literal["BYTES", "BOOL", "INT32", "INT64", "UINT64", "FP32"]

MAX_TOP_LOG_PROBS = 20

FUNCTION = "function:"
"""Before the name of a tool in `tool_choice`."""


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    low, high: the range of each value, both included; a name stands for a limit that the deployment sets
    ("context", "vocab_size", "last_token", "top_log_probs"). max_values, max_length: of a list, and of each
    text in it. default: what a request that leaves it out gets; "deployment" for the parameter of the same
    name in the model's configuration, None where there is no value to name. engine: the token contract's
    tensor that an engine needs for it. json: the text is a JSON object. nvidia: NVIDIA's model has it too.
    """

    datatype: Datatype
    meaning: str
    shape: tuple[int, ...] = (1,)
    low: float | str | None = None
    high: float | str | None = None
    max_values: int | None = None
    max_length: int | None = None
    default: Any = None
    engine: str | None = None
    json: bool = False
    required: bool = False
    nvidia: bool = True
    name: str = ""

    @property
    def is_list(self) -> bool:
        """Whether it holds any number of values."""
        return self.shape != (1,)


class SamplingOptions(TypedDict, total=False):
    """How the text is made: options of the client, and fields of the HTTP API's requests."""

    max_tokens: Annotated[
        int | None,
        Tensor(
            "INT32",
            "Maximum number of tokens to generate; limited to the rest of the context, which is "
            "also the default.",
            low=0,
        ),
    ]
    min_tokens: Annotated[
        int | None,
        Tensor(
            "INT32",
            "Minimum number of tokens before the answer may end; a completed guide ends it earlier.",
            low=0,
            high="context",
            default=0,
            engine="min_tokens",
        ),
    ]
    temperature: Annotated[
        float | None,
        Tensor(
            "FP32",
            "Sampling temperature; 0 always takes the likeliest token.",
            low=0,
            high=10,
            default="deployment",
            engine="temperature",
        ),
    ]
    top_p: Annotated[
        float | None,
        Tensor(
            "FP32",
            "Sample only from the likeliest tokens whose probabilities add up to this.",
            low=0,
            high=1,
            default="deployment",
            engine="runtime_top_p",
        ),
    ]
    top_k: Annotated[
        int | None,
        Tensor(
            "INT32",
            "Sample only from this many of the likeliest tokens; 0: all.",
            low=0,
            high="vocab_size",
            default=0,
            engine="runtime_top_k",
        ),
    ]
    min_p: Annotated[
        float | None,
        Tensor(
            "FP32",
            "Sample only from tokens with at least this fraction of the likeliest token's "
            "probability; 0: all.",
            low=0,
            high=1,
            default=0.0,
            engine="min_p",
        ),
    ]
    repetition_penalty: Annotated[
        float | None,
        Tensor(
            "FP32",
            "Makes tokens that occur in the prompt or the answer less likely; 1 is off.",
            low=0.01,
            high=10,
            default="deployment",
            engine="repetition_penalty",
        ),
    ]
    presence_penalty: Annotated[
        float | None,
        Tensor(
            "FP32",
            "Subtracted from the score of each token in the answer (TensorRT-LLM 1.2: also in the prompt).",
            low=-2,
            high=2,
            default=0.0,
            engine="presence_penalty",
        ),
    ]
    frequency_penalty: Annotated[
        float | None,
        Tensor(
            "FP32",
            "Subtracted once for each occurrence in the answer (TensorRT-LLM 1.2: also in the prompt).",
            low=-2,
            high=2,
            default=0.0,
            engine="frequency_penalty",
        ),
    ]
    seed: Annotated[
        int | None,
        Tensor(
            "UINT64",
            "The same seed, prompt and engine give the same text. Default: a new seed each time.",
            engine="seed",
        ),
    ]
    stop: Annotated[
        str | Sequence[str] | None,
        Tensor(
            "BYTES",
            "Texts (or names of special tokens) that end the answer, after its thinking; they are "
            "left out of it.",
            shape=(-1,),
            max_values=16,
            max_length=200,
            default=(),
            name="stop_words",
        ),
    ]
    stop_token_ids: Annotated[
        Sequence[int] | None,
        Tensor(
            "INT32",
            "Tokens that end the answer, after its thinking, besides the model's own; they add no "
            "text to it.",
            shape=(-1,),
            low=0,
            high="last_token",
            max_values=64,
            default=(),
            engine="stop_words_list",
        ),
    ]
    ignore_eos: Annotated[
        bool | None,
        Tensor(
            "BOOL",
            "true: suppress the model's own end tokens, so that the answer continues to max_tokens.",
            default=False,
            engine="bad_words_list",
        ),
    ]
    logit_bias: Annotated[
        Mapping[int, float] | None,
        Tensor(
            "BYTES",
            "JSON object of token id to -100 ... 100, added to the token's score before anything else.",
            low=-100,
            high=100,
            max_values=1024,
            engine="embedding_bias",
            json=True,
        ),
    ]


class Options(SamplingOptions, total=False):
    """All options of a request. What is absent or None is left to the server's defaults."""

    tool_choice: Annotated[
        str | None,
        Tensor(
            "BYTES",
            "auto, required (at least one call), or `function:` followed by the name of the tool "
            "to call once.",
            default="auto",
        ),
    ]
    parallel_tool_calls: Annotated[
        bool | None,
        Tensor("BOOL", "false: the answer ends after its first tool call.", default=True),
    ]
    chat_template_kwargs: Annotated[
        Mapping[str, Any] | None,
        Tensor("BYTES", "JSON object for the chat template: enable_thinking, tools, ...", json=True),
    ]
    add_generation_prompt: Annotated[
        bool | None,
        Tensor("BOOL", "Have the chat template start the answer after the last message.", default=True),
    ]
    continue_final_message: Annotated[
        bool | None,
        Tensor(
            "BOOL",
            "Continue the last message, which must be the assistant's, instead of answering it.",
            default=False,
        ),
    ]
    add_special_tokens: Annotated[
        bool | None,
        Tensor(
            "BOOL",
            "Add the tokenizer's special tokens around the prompt; by default around text_input only.",
        ),
    ]
    guided_decoding_guide_type: Annotated[
        str | None,
        Tensor(
            "BYTES",
            "Constrains the text after the thinking: json (any object), json_schema, regex, "
            "choice or grammar.",
            engine="guided_decoding_guide_type",
        ),
    ]
    guided_decoding_guide: Annotated[
        str | None,
        Tensor(
            "BYTES",
            "The schema, regular expression, JSON list of texts, or grammar (Lark or GBNF) for that type.",
            engine="guided_decoding_guide",
        ),
    ]
    return_log_probs: Annotated[
        bool | None,
        Tensor("BOOL", "Return the log-probability of each token.", default=False, engine="return_log_probs"),
    ]
    return_prompt_log_probs: Annotated[
        bool | None,
        Tensor(
            "BOOL",
            "Also return those of the prompt's tokens; requires return_log_probs.",
            default=False,
            engine="return_prompt_log_probs",
        ),
    ]
    top_log_probs: Annotated[
        int | None,
        Tensor(
            "INT32",
            "How many of the likeliest tokens to return at each position; requires return_log_probs.",
            low=0,
            high="top_log_probs",
            default=0,
            engine="num_top_log_probs",
        ),
    ]
    return_token_ids: Annotated[
        bool | None,
        Tensor("BOOL", "Return the ids of the prompt's tokens and of the generated ones.", default=False),
    ]
    return_parts: Annotated[
        bool | None,
        Tensor(
            "BOOL",
            "Also return the text split into reasoning_output, content_output and tool_calls_output.",
            default=False,
        ),
    ]


def _rows(options: Any) -> dict[str, Tensor]:
    """Option -> its row, which is named after the option unless it says otherwise."""
    hints = get_type_hints(options, include_extras=True)
    return {
        option: replace(row, name=row.name or option)
        for option, hint in hints.items()
        for row in hint.__metadata__
    }


def _by_name(*rows: Tensor, **named: Tensor) -> dict[str, Tensor]:
    return {name: replace(row, name=name) for name, row in named.items()} | {row.name: row for row in rows}


SAMPLING_OPTIONS: dict[str, Tensor] = _rows(SamplingOptions)
"""Option of a request -> its row."""

OPTIONS: dict[str, Tensor] = _rows(Options)
"""Option of a request -> its row; all of them."""

PROMPTS: dict[str, Tensor] = _by_name(
    text_input=Tensor("BYTES", "Raw text, continued as it is; control tokens in it are parsed."),
    messages=Tensor(
        "BYTES",
        "JSON list of chat messages, rendered by the model's chat template; control tokens in "
        "them stay text.",
    ),
    input_ids=Tensor("INT32", "The prompt's tokens.", shape=(-1,), low=0, high="last_token", nvidia=False),
)
"""Exactly one of these is sent."""

TEXT_INPUTS: dict[str, Tensor] = (
    PROMPTS
    | {row.name: row for row in OPTIONS.values()}
    | _by_name(
        stream=Tensor("BOOL", "One response per piece of text, or one for all.", default=False),
        tokenize=Tensor(
            "BOOL",
            "true: return the prompt's tokens, of any number, and generate nothing.",
            default=False,
        ),
        probe=Tensor(
            "BOOL",
            "true, without other inputs: ask whether the model works; the answer is stalled_ms or an error.",
            default=False,
        ),
    )
)

TEXT_OUTPUTS: dict[str, Tensor] = _by_name(
    text_output=Tensor("BYTES", "New text, in complete characters."),
    reasoning_output=Tensor("BYTES", "With return_parts: new thinking, without its tags."),
    content_output=Tensor("BYTES", "With return_parts: new text that is neither thinking nor a tool call."),
    tool_calls_output=Tensor(
        "BYTES",
        'With return_parts: new tool calls, a JSON list of {"id", "name", "arguments"}; absent if none.',
        json=True,
    ),
    finish_reason=Tensor("BYTES", "On the last response: stop or length."),
    stop_word=Tensor("BYTES", "On the last response: which of stop_words ended the answer; else absent."),
    stop_token_id=Tensor(
        "INT32", "On the last response: which of stop_token_ids ended the answer; else absent."
    ),
    num_input_tokens=Tensor("INT32", "On the last response: number of prompt tokens."),
    num_output_tokens=Tensor("INT32", "On the last response: number of generated tokens."),
    num_cached_tokens=Tensor("INT32", "On the last response: number of prompt tokens found in the cache."),
    arrival_time_ns=Tensor("INT64", "On the last response: when the request arrived, ns since 1970."),
    first_token_time_ns=Tensor("INT64", "On the last response: when the first token was generated."),
    last_token_time_ns=Tensor("INT64", "On the last response: when the last token was generated."),
    starts_in_thinking=Tensor(
        "BOOL", "True on the first and the last response when the prompt ends inside <think>; else absent."
    ),
    output_log_probs=Tensor(
        "FP32",
        "With return_log_probs: for each generated token, including the one that ended the answer.",
        shape=(-1,),
    ),
    output_tokens=Tensor(
        "BYTES",
        "With return_log_probs: the bytes that each of these tokens added; joined, they are the text.",
        shape=(-1,),
    ),
    top_tokens=Tensor(
        "BYTES",
        "With top_log_probs k: the k likeliest at each position, in order; special tokens by name.",
        shape=(-1,),
    ),
    top_output_log_probs=Tensor("FP32", "The log-probabilities of top_tokens.", shape=(-1,)),
    prompt_tokens=Tensor(
        "BYTES",
        "With return_prompt_log_probs, in the first response, or tokenize: the prompt's tokens; "
        "special ones by name.",
        shape=(-1,),
    ),
    prompt_log_probs=Tensor("FP32", "For each of these tokens after the first.", shape=(-1,)),
    top_prompt_tokens=Tensor("BYTES", "The likeliest tokens at each of these positions.", shape=(-1,)),
    top_prompt_log_probs=Tensor("FP32", "The log-probabilities of top_prompt_tokens.", shape=(-1,)),
    prompt_token_ids=Tensor(
        "INT32",
        "With return_token_ids, in the first response, or tokenize: the ids of the prompt's tokens.",
        shape=(-1,),
    ),
    output_token_ids=Tensor(
        "INT32",
        "With return_token_ids: of each generated token, including the one that ended the answer.",
        shape=(-1,),
    ),
    top_prompt_token_ids=Tensor(
        "INT32",
        "With return_token_ids and return_prompt_log_probs: the ids of top_prompt_tokens.",
        shape=(-1,),
    ),
    stalled_ms=Tensor(
        "INT64", "Answer to a probe: milliseconds without progress while there is work, else 0."
    ),
    device_memory=Tensor(
        "INT64",
        "Answer to a probe, if our engine runs on a GPU: bytes in use on it, bytes in total.",
        shape=(2,),
    ),
)

TOKEN_INPUTS: dict[str, Tensor] = _by_name(
    input_ids=Tensor("INT32", "The prompt's tokens.", shape=(-1,), low=0, high="last_token", required=True),
    input_lengths=Tensor("INT32", "Their number."),
    request_output_len=Tensor(
        "INT32", "Maximum number of tokens to generate; at most the rest of the context.", low=1
    ),
    end_id=Tensor(
        "INT32", "The token that ends the answer; -1: none.", low=-1, high="last_token", default=-1
    ),
    end_ids=Tensor(
        "INT32",
        "All tokens that end the answer; min_tokens suppresses each of them.",
        shape=(-1,),
        low=0,
        high="last_token",
        default=(),
        nvidia=False,
    ),
    temperature=Tensor("FP32", "As in the text contract.", low=0, high=1e4, default=1.0),
    runtime_top_k=Tensor("INT32", "As top_k in the text contract.", low=0, default=0),
    runtime_top_p=Tensor("FP32", "As top_p in the text contract.", low=0, high=1, default=1.0),
    min_p=Tensor("FP32", "As in the text contract.", low=0, high=1, default=0.0, nvidia=False),
    repetition_penalty=Tensor("FP32", "As in the text contract.", low=1e-4, high=1e4, default=1.0),
    presence_penalty=Tensor("FP32", "As in the text contract.", low=-1e4, high=1e4, default=0.0),
    frequency_penalty=Tensor("FP32", "As in the text contract.", low=-1e4, high=1e4, default=0.0),
    min_tokens=Tensor("INT32", "As in the text contract.", low=0, default=0),
    seed=Tensor("UINT64", "The same seed, prompt and engine give the same tokens."),
    stop_words_list=Tensor(
        "INT32",
        "Token sequences that end the answer: row 0 their ids, row 1 where each ends, padded with -1.",
        shape=(2, -1),
    ),
    bad_words_list=Tensor("INT32", "Token sequences that must not occur, in the same form.", shape=(2, -1)),
    embedding_bias=Tensor("FP32", "Added to the score of each token of the vocabulary.", shape=(-1,)),
    return_log_probs=Tensor("BOOL", "As in the text contract.", default=False),
    return_prompt_log_probs=Tensor("BOOL", "As in the text contract.", default=False, nvidia=False),
    num_top_log_probs=Tensor(
        "INT32",
        "As top_log_probs in the text contract.",
        low=0,
        high=MAX_TOP_LOG_PROBS,
        default=0,
        nvidia=False,
    ),
    guided_decoding_guide_type=Tensor("BYTES", "As in the text contract, without choice."),
    guided_decoding_guide=Tensor("BYTES", "As in the text contract."),
    guided_decoding_after=Tensor(
        "BYTES",
        "Text in the output after which the guide starts (no end token before it); without it, at once.",
        max_length=100,
        nvidia=False,
    ),
    return_perf_metrics=Tensor("BOOL", "Return cached blocks and times.", default=False),
    exclude_input_in_output=Tensor(
        "BOOL", "Leave the prompt out of an answer that is not streamed.", default=False
    ),
    streaming=Tensor("BOOL", "Send responses as tokens are generated, or one for all.", default=False),
    stop=Tensor("BOOL", "true: end the request of the same id.", default=False),
    probe=Tensor(
        "BOOL",
        "true: a probe, not a request for tokens; answered at once with stalled_ms.",
        default=False,
        nvidia=False,
    ),
    unwatched=Tensor(
        "BOOL",
        "true: the caller ends the request with stop; whether it has left is not looked for.",
        default=False,
        nvidia=False,
    ),
)

TOKEN_OUTPUTS: dict[str, Tensor] = _by_name(
    output_ids=Tensor("INT32", "New tokens, [beam 1, tokens].", shape=(-1, -1)),
    sequence_length=Tensor("INT32", "Their number.", shape=(-1,)),
    cum_log_probs=Tensor("FP32", "Sum of the log-probabilities so far.", shape=(-1,)),
    output_log_probs=Tensor("FP32", "For each new token, [beam 1, tokens].", shape=(-1, -1)),
    top_log_prob_ids=Tensor(
        "INT32",
        "The likeliest tokens at each position, [beam 1, tokens, num_top_log_probs].",
        shape=(-1, -1, -1),
        nvidia=False,
    ),
    top_log_probs=Tensor("FP32", "Their log-probabilities.", shape=(-1, -1, -1), nvidia=False),
    prompt_log_probs=Tensor(
        "FP32",
        "With return_prompt_log_probs: for the prompt's tokens after the first.",
        shape=(-1,),
        nvidia=False,
    ),
    top_prompt_log_prob_ids=Tensor(
        "INT32", "The likeliest tokens at each of these positions.", shape=(-1, -1), nvidia=False
    ),
    top_prompt_log_probs=Tensor("FP32", "Their log-probabilities.", shape=(-1, -1), nvidia=False),
    kv_cache_reused_blocks=Tensor("INT32", "Number of the prompt's blocks found in the cache."),
    arrival_time_ns=Tensor("INT64", "When the engine received the request, ns of its own clock."),
    first_scheduled_time_ns=Tensor("INT64", "When the request got its slot."),
    first_token_time_ns=Tensor("INT64", "When the first token was generated."),
    last_token_time_ns=Tensor("INT64", "When the last token was generated."),
    stalled_ms=Tensor(
        "INT64", "Answer to a probe: milliseconds without progress while there is work, else 0.", nvidia=False
    ),
    device_memory=Tensor(
        "INT64",
        "Answer to a probe, if it runs on a GPU: bytes in use on it, bytes in total.",
        shape=(2,),
        nvidia=False,
    ),
)

DEPLOYMENT_DEFAULTS = tuple(option for option, row in OPTIONS.items() if row.default == "deployment")
"""Options whose defaults the deployment sets: parameters of youtu_llm's configuration."""
