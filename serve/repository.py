"""The model repository that Triton loads: the committed one, with this deployment's values filled in.

The parameters of each committed config.pbtxt are the defaults; here they get the settings' and the engine's
values. A parameter unknown to this module, or one that the config lacks, is an error, so that the two stay in
step. It handles names of parameters, not their effect in the models.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from build import cuda
from build.engine_info import TOKENIZER
from build.openvino_model.info import OpenVinoEngineInfo
from build.runtimes import CpuEngine
from build.tensorrt_llm.info import TensorRTEngineInfo
from build.tensorrt_llm.machine import interpreter
from build.tensorrt_llm.xgrammar_info import XGRAMMAR_INFO
from serve.settings import Settings

COMMITTED = Path(__file__).resolve().parent.parent / "model_repository"
CONTRACT = COMMITTED.parent / "client" / "youtu_contract"
CONFIG = "config.pbtxt"
IGNORED = shutil.ignore_patterns("__pycache__", ".*")
# The same in every deployment: stay as committed.
FIXED = {
    "youtu_engine": {"tokens_per_block"},
    "tensorrt_llm": {
        "FORCE_CPU_ONLY_INPUT_TENSORS",
        "executor_worker_path",
        "gpt_model_type",
        "max_beam_width",
        "batch_scheduler_policy",
        "exclude_input_in_output",
        "cancellation_check_period_ms",
        "stats_check_period_ms",
        "normalize_log_probs",
        "tokenizer_dir",
    },
}
Engine = CpuEngine | TensorRTEngineInfo

JITTER = 0.5
"""Share of the stream interval that lies between two pieces of youtu_llm where our engine keeps all of it."""


# What suits OpenVINO where the settings say nothing.
SUITS_OPENVINO = {"prefill_chunk": 128, "kv_type": "q8_0"}


class RepositoryError(Exception):
    """The committed model repository does not fit this code; the message names model and parameter."""


def suited(settings: Settings, engine: CpuEngine) -> Settings:
    """`settings` with what suits the engine's runtime where nothing was given."""
    suits = SUITS_OPENVINO if isinstance(engine, OpenVinoEngineInfo) else {}
    return settings.model_copy(
        update={name: value for name, value in suits.items() if name not in settings.model_fields_set}
    )


def models(settings: Settings) -> tuple[str, str]:
    """The models in the order they are loaded: youtu_llm calls the engine."""
    return settings.engine, "youtu_llm"


def slots(settings: Settings, engine: Engine) -> int:
    """How many requests the engine runs at once: of a GPU engine it was decided when it was built."""
    return engine.max_batch_size if isinstance(engine, TensorRTEngineInfo) else settings.slots


def parameters(settings: Settings, engine: Engine) -> dict[str, dict[str, str]]:
    """Model -> its parameters, as Triton's configuration wants them: strings."""
    if isinstance(engine, TensorRTEngineInfo):
        own = _of_tensorrt_llm(engine)
        facts = _facts(
            slots=slots(settings, engine),
            tokens_per_block=engine.tokens_per_block,
            guided_decoding=True,
            guide_python=str(interpreter()),
            stream_interval_ms=settings.stream_interval_ms,
        )
    else:
        own = _of_youtu_engine(settings, engine)
        facts = _facts(
            slots=slots(settings, engine),
            guided_decoding=True,
            top_log_probs=20,
            prompt_log_probs=True,
            stream_interval_ms=JITTER * settings.stream_interval_ms,
        )
    described = settings.describe_tools == "on" and not engine.takes_tools()
    return {
        settings.engine: own,
        "youtu_llm": facts
        | {
            "context": str(settings.context),
            "queue": str(settings.queue),
            "hang_timeout": str(settings.hang_timeout),
            "model_id": engine.model_id,
            "demo": str(engine.demo).lower(),
            "description": engine.description,
            "temperature": str(settings.temperature),
            "top_p": str(settings.top_p),
            "repetition_penalty": str(settings.repetition_penalty),
            "enable_thinking": {"auto": "", "on": "true", "off": "false"}[settings.thinking],
            "tools": str(engine.takes_tools() or described).lower(),
            "describe_tools": str(described).lower(),
            "engine_dir": str(engine.path.absolute()),
            "engine_url": settings.triton_grpc_address,
            "engine_model": settings.engine,
        },
    }


def _facts(
    *,
    slots: int,
    tokens_per_block: int = 1,
    guided_decoding: bool = False,
    guide_python: str = "",
    top_log_probs: int = 0,
    prompt_log_probs: bool = False,
    stream_interval_ms: float,
) -> dict[str, str]:
    """What youtu_llm must know of the engine behind it."""
    return {
        "slots": str(slots),
        "tokens_per_block": str(tokens_per_block),
        "guided_decoding": str(guided_decoding).lower(),
        "guide_python": guide_python,
        "top_log_probs": str(top_log_probs),
        "prompt_log_probs": str(prompt_log_probs).lower(),
        "stream_interval_ms": str(stream_interval_ms),
    }


def _of_youtu_engine(settings: Settings, engine: CpuEngine) -> dict[str, str]:
    return {
        "library": str(cuda.current(settings.data_dir)) if settings.device == "cuda" else "",
        "context": str(settings.context),
        "slots": str(settings.slots),
        "queue": str(settings.queue),
        "runtime": engine.runtime,
        "model": str(engine.model.absolute()),
        "tokenizer": str(engine.path.absolute() / TOKENIZER),
        "threads": str(settings.threads),
        "prefill_chunk": str(settings.prefill_chunk),
        "kv_type": settings.kv_type,
        "stream_interval_ms": str(settings.stream_interval_ms),
    }


def _of_tensorrt_llm(engine: TensorRTEngineInfo) -> dict[str, str]:
    profile = engine.run_profile()
    return {
        "gpt_model_path": str(engine.engine_dir.absolute()),
        "kv_cache_free_gpu_mem_fraction": str(profile.kv_cache_free_gpu_mem_fraction),
        "enable_kv_cache_reuse": str(profile.enable_kv_cache_reuse).lower(),
        "enable_chunked_context": str(profile.enable_chunked_context).lower(),
        "guided_decoding_backend": "xgrammar",
        "xgrammar_tokenizer_info_path": str(engine.path.absolute() / XGRAMMAR_INFO),
    }


def render(settings: Settings, engine: Engine, target: Path, committed: Path = COMMITTED) -> Path:
    """Write the repository to the folder `target`, replacing what is there. Raises RepositoryError."""
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    values = parameters(settings, engine)
    values["youtu_llm"]["engine_inputs"] = ",".join(_inputs(committed, settings.engine, values["youtu_llm"]))
    for model in models(settings):
        shutil.copytree(committed / model, draft / model, ignore=IGNORED)
        if (
            draft / model / "1" / "model.py"
        ).exists():  # the stub finds it beside the model, wherever it runs
            shutil.copytree(CONTRACT, draft / model / "1" / CONTRACT.name, ignore=IGNORED)
        path = draft / model / CONFIG
        config = _filled_in(model, path.read_text(encoding="utf-8"), values[model])
        if isinstance(engine, TensorRTEngineInfo) and model == settings.engine:
            _fill_batching(config, batch_size=engine.max_batch_size, queue=settings.queue)
        path.write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def _inputs(committed: Path, engine: str, facts: dict[str, str]) -> list[str]:
    """The input tensors of the engine's model that it can honour."""
    config = _parsed(engine, (committed / engine / CONFIG).read_text(encoding="utf-8"))
    names = [tensor.name for tensor in config.input]
    guides = facts["guided_decoding"] == "true"
    return [name for name in names if guides or not name.startswith("guided_decoding")]


def _fill_batching(config: Any, *, batch_size: int, queue: int) -> None:
    """What NVIDIA's backend reads beside parameters; its executor's own queue gets the queue's size too."""
    config.max_batch_size = batch_size
    config.dynamic_batching.preferred_batch_size[:] = [batch_size]
    config.dynamic_batching.default_queue_policy.max_queue_size = queue


def _parsed(model: str, text: str) -> Any:
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"{model}/{CONFIG}: {error}") from error


def _filled_in(model: str, text: str, values: dict[str, str]) -> Any:
    config = _parsed(model, text)
    committed = set(config.parameters) - FIXED.get(model, set())
    if odd := committed.symmetric_difference(values):
        name = min(odd)
        fault = "is unknown to serve/repository.py" if name in committed else "is missing"
        raise RepositoryError(f"{model}/{CONFIG}: parameter {name} {fault}")
    for name, value in values.items():
        config.parameters[name].string_value = value
    return config
