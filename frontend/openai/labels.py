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
            raise ValueError(f"requests {self.what}, which is not supported; allowed values: {words}")
        return value


def _same(value: object, other: object) -> bool:
    """As JSON has it: 1 is 1.0, and neither is true."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


LACKING_ANYWHERE: dict[str, Lacking] = {
    "adaptive_target": Lacking("adaptive sampling", (-1,)),
    "allowed_token_ids": Lacking("an allow-list of tokens"),
    "bad_words": Lacking("banned words (use logit_bias)"),
    "dry_multiplier": Lacking("DRY sampling", (0,)),
    "dynatemp_range": Lacking("dynamic temperature", (0,)),
    "ec_transfer_params": Lacking("a cache transfer"),
    "grammar_lazy": Lacking("a lazy grammar"),
    "grammar_triggers": Lacking("a lazy grammar"),
    "guided_whitespace_pattern": Lacking("a whitespace pattern in JSON"),
    "id_slot": Lacking("a specific slot", (-1,)),
    "image_data": Lacking("images; this model reads text"),
    "include_stop_str_in_output": Lacking("stop words in the answer"),
    "kv_transfer_params": Lacking("a cache transfer"),
    "length_penalty": Lacking("beam search", (1,)),
    "logits_processors": Lacking("the caller's own code"),
    "logprob_token_ids": Lacking("log-probabilities of specific tokens"),
    "lora": Lacking("an adapter"),
    "min_keep": Lacking("a minimum number of candidate tokens", (0,)),
    "mirostat": Lacking("Mirostat", (0,)),
    "n_indent": Lacking("indentation", (0,)),
    "n_probs": Lacking("probabilities (use logprobs)", (0,)),
    "post_sampling_probs": Lacking("probabilities after sampling"),
    "priority": Lacking("a priority", (0,)),
    "repeat_last_n": Lacking("a repetition penalty limited to the last tokens", (-1,)),
    "repetition_detection": Lacking("stopping when the answer repeats itself"),
    "response_fields": Lacking("a selection of the reply's fields"),
    "return_progress": Lacking("progress of the prompt"),
    "return_token_offsets": Lacking("the offsets of tokens in the prompt"),
    "return_tokens_as_token_ids": Lacking("ids instead of tokens (use return_token_ids)"),
    "routed_experts_prompt_start": Lacking("routed experts", (0,)),
    "samplers": Lacking("a sampler order"),
    "skip_special_tokens": Lacking("special tokens in the text", (True,), needed=True),
    "slot_id": Lacking("a specific slot", (-1,)),
    "spaces_between_special_tokens": Lacking("special tokens in the text", (True,)),
    "structural_tag": Lacking("structural tags"),
    "t_max_predict_ms": Lacking("a time limit", (0, -1)),
    "t_max_prompt_ms": Lacking("a time limit", (0, -1)),
    "tfs_z": Lacking("tail-free sampling", (1,)),
    "thinking_token_budget": Lacking("a thinking budget", (-1,)),
    "timings_per_token": Lacking("timings in each chunk (the last chunk has them)"),
    "top_n_sigma": Lacking("top-n-sigma sampling", (-1, 0)),
    "truncate_prompt_tokens": Lacking("prompt truncation"),
    "typical_p": Lacking("typical sampling", (1,)),
    "use_beam_search": Lacking("beam search"),
    "vllm_xargs": Lacking("vLLM extensions"),
    "watermarking": Lacking("a watermark"),
    "xtc_probability": Lacking("XTC sampling", (0,)),
}
"""Of both routes."""

LACKING_IN_CHAT: dict[str, Lacking] = {
    "audio": Lacking("speech; this model writes text"),
    "chat_template": Lacking("a custom chat template"),
    "echo": Lacking("the last message repeated before the answer"),
    "function_call": Lacking("the legacy function form (use tool_choice)", ("none", "auto")),
    "functions": Lacking("the legacy function form (use tools)"),
    "media_io_kwargs": Lacking("images or sound; this model reads text"),
    "mm_processor_kwargs": Lacking("images or sound; this model reads text"),
    "prediction": Lacking("a predicted answer"),
    "reasoning_budget": Lacking("a thinking budget", (-1,)),
    "reasoning_budget_tokens": Lacking("a thinking budget", (-1,)),
    "return_prompt_text": Lacking("the prompt's text (use return_token_ids and /detokenize)"),
    "store": Lacking("stored answers"),
    "thinking_forced_open": Lacking("an answer that starts inside the thinking"),
    "web_search_options": Lacking("web search"),
}

LACKING_IN_COMPLETIONS: dict[str, Lacking] = {
    "prompt_embeds": Lacking("prompt embeddings"),
    "suffix": Lacking("fill-in-the-middle"),
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
