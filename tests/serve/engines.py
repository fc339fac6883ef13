"""An engine folder that no program will load: as much of one as the checks and the rendering look at."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from build.engine_info import EngineInfo

YOUTU_2B = {"block_count": 32, "attention.kv_lora_rank": 512, "rope.dimension_count": 64}


def write_gguf_header(
    path: Path, numbers: Mapping[str, int | list[int]], *, architecture: str = "deepseek2"
) -> None:
    """The keys of a GGUF file with a small vocabulary before the last number, and no tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def number(value: int | list[int]) -> bytes:
        if isinstance(value, list):
            return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
        return struct.pack("<II", 4, value)

    *first, last = [text(f"{architecture}.{name}") + number(value) for name, value in numbers.items()]
    words = [text(word) for word in ("a", "字", "")]
    vocabulary = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(words)) + b"".join(words)
    kinds = text("tokenizer.ggml.token_type") + struct.pack("<IIQ3i", 9, 5, 3, 1, 1, 3)
    name = text("general.name") + struct.pack("<I", 8) + text("ein Modell")
    keys = [name, *first, vocabulary, kinds, last]
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)) + b"".join(keys))


def an_engine(folder: Path, **changes: object) -> EngineInfo:
    folder.mkdir(parents=True, exist_ok=True)
    write_gguf_header(folder / "model.gguf", YOUTU_2B)
    (folder / "chat_template.jinja").write_text("{% if tools %}{{ tools }}{% endif %}", encoding="utf-8")
    facts: dict[str, object] = {
        "architecture": "YoutuForCausalLM",
        "vocab_size": 3,
        "context_length": 4096,
        "special_tokens": {"eos_token": "</s>"},
        "bos_token_id": None,
        "eos_token_ids": [2],
        "add_bos": False,
        "weights": "Q8_0",
        "parameters": 7,
        "model_id": "a-model",
        "source": "somewhere",
        "fingerprint": "0",
        "demo": False,
        "description": 'A model, "so called": 模型',
        "chat_template": True,
        "gguf_bytes": 1,
        "gguf_sha256": "0",
        "versions": {},
        "created": "2026-11-24T00:00:00+00:00",
        "path": folder,
    }
    return EngineInfo(**(facts | changes))  # type: ignore[arg-type]
