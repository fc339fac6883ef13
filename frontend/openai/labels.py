"""Fields of OpenAI's, vLLM's and llama-server's requests that change nothing here, as data.

A label is taken in whatever it says, for it does not change an answer. A field for something that this server
lacks is taken in with the values that ask for nothing, and refused by its name with every other. docs/api.md
lists both; `schema` makes fields of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from ..schema import INT32_MAX, Text

NOTHING: tuple[Any, ...] = (None, False, "", [], {})
"""What asks for nothing, whatever the field."""


@dataclass(frozen=True)
class Lacking:
    """What a field would ask for, and the values that ask for nothing (`also`) beside NOTHING.

    `needed`: false asks for something, too.
    """

    what: str
    also: tuple[Any, ...] = ()
    needed: bool = False

    @property
    def allowed(self) -> tuple[Any, ...]:
        """All values that are taken in."""
        return (None, *self.also) if self.needed else (*NOTHING, *self.also)

    def field_type(self) -> Any:
        """The type of the field."""
        return Annotated[Any, AfterValidator(self._check), WithJsonSchema({"enum": list(self.allowed)})]

    def _check(self, value: Any) -> Any:
        if not any(_same(value, one) for one in self.allowed):
            words = ", ".join(json.dumps(one) for one in self.allowed)
            raise ValueError(f"asks for {self.what}, which this server does not do; allowed are {words}")
        return value


def _same(value: object, other: object) -> bool:
    """As JSON has it: 1 is 1.0, and neither is true."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


LACKING_ANYWHERE: dict[str, Lacking] = {
    "adaptive_target": Lacking("adaptive sampling", (-1,)),
    "allowed_token_ids": Lacking("a list of allowed tokens"),
    "bad_words": Lacking("banned words (use logit_bias)"),
    "dry_multiplier": Lacking("DRY sampling", (0,)),
    "dynatemp_range": Lacking("a changing temperature", (0,)),
    "ec_transfer_params": Lacking("a transfer of caches"),
    "grammar_lazy": Lacking("a grammar that begins later"),
    "grammar_triggers": Lacking("a grammar that begins later"),
    "guided_whitespace_pattern": Lacking("white space in JSON of another form"),
    "id_slot": Lacking("a certain slot", (-1,)),
    "image_data": Lacking("images; this model reads text"),
    "include_stop_str_in_output": Lacking("stop words as part of the answer"),
    "kv_transfer_params": Lacking("a transfer of caches"),
    "length_penalty": Lacking("beam search", (1,)),
    "logits_processors": Lacking("code of the caller's"),
    "logprob_token_ids": Lacking("log-probabilities of certain tokens"),
    "lora": Lacking("an adapter"),
    "min_keep": Lacking("a least number of tokens to draw from", (0,)),
    "mirostat": Lacking("Mirostat", (0,)),
    "n_indent": Lacking("an indentation", (0,)),
    "n_probs": Lacking("probabilities (use logprobs)", (0,)),
    "post_sampling_probs": Lacking("probabilities after sampling"),
    "priority": Lacking("a priority", (0,)),
    "repeat_last_n": Lacking("a penalty of the last tokens alone", (-1,)),
    "repetition_detection": Lacking("an end where the answer repeats itself"),
    "response_fields": Lacking("some of the reply's fields"),
    "return_progress": Lacking("how much of the prompt has been read"),
    "return_token_offsets": Lacking("the places of tokens in the prompt"),
    "return_tokens_as_token_ids": Lacking("ids in the place of tokens (use return_token_ids)"),
    "routed_experts_prompt_start": Lacking("a model's experts", (0,)),
    "samplers": Lacking("an order of the samplers"),
    "skip_special_tokens": Lacking("special tokens in the text", (True,), needed=True),
    "slot_id": Lacking("a certain slot", (-1,)),
    "spaces_between_special_tokens": Lacking("special tokens in the text", (True,)),
    "structural_tag": Lacking("structural tags"),
    "t_max_predict_ms": Lacking("a time limit", (0, -1)),
    "t_max_prompt_ms": Lacking("a time limit", (0, -1)),
    "tfs_z": Lacking("tail-free sampling", (1,)),
    "thinking_token_budget": Lacking("a limit of the thinking", (-1,)),
    "timings_per_token": Lacking("timings in each chunk; they are in the last"),
    "top_n_sigma": Lacking("top-n-sigma sampling", (-1, 0)),
    "truncate_prompt_tokens": Lacking("a prompt that is cut"),
    "typical_p": Lacking("typical sampling", (1,)),
    "use_beam_search": Lacking("beam search"),
    "vllm_xargs": Lacking("extensions of vLLM's"),
    "watermarking": Lacking("a watermark"),
    "xtc_probability": Lacking("XTC sampling", (0,)),
}
"""Of both routes."""

LACKING_IN_CHAT: dict[str, Lacking] = {
    "audio": Lacking("speech; this model writes text"),
    "chat_template": Lacking("a chat template of the caller's"),
    "echo": Lacking("the last message in front of the answer"),
    "function_call": Lacking("the form of tools before tools (use tool_choice)", ("none", "auto")),
    "functions": Lacking("the form of tools before tools (use tools)"),
    "media_io_kwargs": Lacking("images or sound; this model reads text"),
    "mm_processor_kwargs": Lacking("images or sound; this model reads text"),
    "prediction": Lacking("a predicted answer"),
    "reasoning_budget": Lacking("a limit of the thinking", (-1,)),
    "reasoning_budget_tokens": Lacking("a limit of the thinking", (-1,)),
    "return_prompt_text": Lacking("the prompt's text (use return_token_ids and /detokenize)"),
    "store": Lacking("a store of answers"),
    "thinking_forced_open": Lacking("an answer that begins in its thinking"),
    "web_search_options": Lacking("a search of the web"),
}

LACKING_IN_COMPLETIONS: dict[str, Lacking] = {
    "prompt_embeds": Lacking("a prompt of embeddings"),
    "suffix": Lacking("a text to fill in"),
}

Number = Annotated[float, Field(ge=-INT32_MAX, le=INT32_MAX)]
LABELS: dict[str, Any] = {
    "adaptive_decay": Number,
    "backend_sampling": bool,
    "cache_prompt": bool,
    "cache_salt": Text,
    "dry_allowed_length": Number,
    "dry_base": Number,
    "dry_penalty_last_n": Number,
    "dry_sequence_breakers": list[Text],
    "dynatemp_exponent": Number,
    "guided_decoding_backend": Text,
    "mirostat_eta": Number,
    "mirostat_tau": Number,
    "n_cache_reuse": Number,
    "n_discard": Number,
    "n_keep": Number,
    "preserved_tokens": list[Text],
    "request_id": Text,
    "return_mm_kwargs": bool,
    "session_id": Text,
    "sse_ping_interval": Number,
    "stream_interval": Number,
    "truncation_side": Literal["left", "right"],
    "user": Text,
    "verbose": bool,
    "xtc_threshold": Number,
}
"""Of both routes: name -> type."""

LABELS_OF_CHAT: dict[str, Any] = {
    "metadata": Annotated[dict[Text, Text], Field(max_length=16)],
    "prompt_cache_key": Text,
    "prompt_cache_retention": Text,
    "safety_identifier": Text,
    "service_tier": Literal["auto", "default", "flex", "scale", "priority"],
    "verbosity": Literal["low", "medium", "high"],
}


def silent_fields(labels: Mapping[str, Any], lacking: Mapping[str, Lacking]) -> dict[str, Any]:
    """Name -> type and default of the fields that change nothing. They are not listed among those known."""
    types = {name: type_ | None for name, type_ in labels.items()}
    types |= {name: one.field_type() for name, one in lacking.items()}
    return {name: (type_, Field(default=None, repr=False)) for name, type_ in types.items()}
