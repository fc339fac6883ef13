"""The flags of trtllm-build, one function for all models; program_sources.toml says where each was read."""

from __future__ import annotations

from build.catalogue import Profile

TOKENS_PER_BLOCK = 32  # NVIDIA's default in 1.x, given so that it is certain: cached tokens are counted by it


def build_flags(profile: Profile, *, dtype: str) -> dict[str, str]:
    """Flag -> value, without the dashes, paths and the model's class.

    `dtype` is that of the layers that stay in 16 bits, bfloat16 or float16. The executor ignores
    max_input_len with packed input (see `longest_prompt`); the engine's config.json is to tell the same.
    Paged context attention is what KV reuse and chunked context need, and what an int8 KV cache forbids.
    """
    return {
        "gpt_attention_plugin": dtype,
        "gemm_plugin": dtype,
        "remove_input_padding": "enable",
        "kv_cache_type": "paged",
        "tokens_per_block": str(TOKENS_PER_BLOCK),
        "context_fmha": "enable",
        "use_paged_context_fmha": "disable" if profile.kv_cache == "int8" else "enable",
        "max_batch_size": str(profile.max_batch_size),
        "max_input_len": str(longest_prompt(profile)),
        "max_seq_len": str(profile.max_seq_len),
        "max_num_tokens": str(profile.max_num_tokens),
        "max_beam_width": "1",
        "workers": "1",
    }


def longest_prompt(profile: Profile) -> int:
    """Tokens of a prompt that the executor takes at most; youtu_llm refuses longer ones before.

    With chunked context one token of an answer has to fit behind it; without, one step has to hold it too.
    """
    longest = profile.max_seq_len - 1
    return longest if profile.enable_chunked_context else min(longest, profile.max_num_tokens)


def on_command_line(flags: dict[str, str]) -> list[str]:
    """As trtllm-build takes them."""
    return [part for name, value in flags.items() for part in (f"--{name}", value)]
