"""What fits on an NVIDIA GPU beside the weights: how many slots with which context. All sizes in bytes.

For the llama.cpp engine only; a TensorRT-LLM engine is built for a fixed number.
"""

from __future__ import annotations

from build.engine_info import EngineInfo
from build.errors import BuildError
from build.tensorrt_llm.machine import Gpu
from serve.preflight import kv_cache_bytes
from serve.settings import Settings

GB = 1e9
# A CUDA context with the kernels, and buffers beside the logits: 0.55 and 0.02 GB on an H100 (docs/cuda.md).
DRIVER_BYTES, BUFFER_BYTES = 640 << 20, 128 << 20
MOST_SLOTS = 32
FEW_SLOTS = 4  # a card that holds fewer of a long context gets a shorter one
LONG_CONTEXT, SHORT_CONTEXT = 8192, 1024
PREFILL_CHUNK = 512


def fitted(settings: Settings, engine: EngineInfo, card: Gpu) -> Settings:
    """`settings` with the slots, context and prefill chunk that suit the card where they were not given.

    BuildError when what was given, or the least that is useful, does not fit.
    """
    given = settings.model_fields_set
    chunk = settings.prefill_chunk if "prefill_chunk" in given else PREFILL_CHUNK
    settings = settings.model_copy(update={"prefill_chunk": chunk})
    if "context" not in given:
        settings = settings.model_copy(update={"context": min(LONG_CONTEXT, engine.context_length)})
        least = settings.slots if "slots" in given else FEW_SLOTS
        while settings.context > SHORT_CONTEXT and _room(settings, engine, card, slots=least) < 0:
            settings = settings.model_copy(update={"context": settings.context // 2})
    if "slots" not in given:
        slots = MOST_SLOTS
        while slots > 1 and _room(settings, engine, card, slots=slots) < 0:
            slots -= 1
        settings = settings.model_copy(update={"slots": slots})
    if (room := _room(settings, engine, card, slots=settings.slots)) < 0:
        raise BuildError(
            f"{card.name} is too small: {engine.model_id} with {settings.slots} slots of {settings.context} "
            f"tokens needs {(card.free - room) / GB:.1f} GB of GPU memory, and {card.free / GB:.1f} of "
            f"{card.memory / GB:.1f} GB are free: lower YOUTU_SLOTS or YOUTU_CONTEXT, stop what else "
            "uses it (nvidia-smi lists it), or serve on the CPU"
        )
    return settings


def _room(settings: Settings, engine: EngineInfo, card: Gpu, *, slots: int) -> int:
    """What is left of the card's free memory with this many slots; less than 0 when they do not fit."""
    wanted = settings.model_copy(update={"slots": slots})
    logits = (settings.prefill_chunk + slots) * engine.vocab_size * 4
    fixed = DRIVER_BYTES + BUFFER_BYTES + engine.gguf.stat().st_size
    return card.free - fixed - logits - kv_cache_bytes(wanted, engine.gguf)
