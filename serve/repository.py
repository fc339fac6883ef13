"""The model repository that Triton loads: the committed one, with this deployment's values filled in.

The parameters of each committed config.pbtxt are the defaults; here they get the settings' and the engine's
values. A parameter this module does not know, or one the config lacks, is an error, so that the two stay in
step. It knows names of parameters, not what the models do with them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from build.engine_info import TOKENIZER, EngineInfo
from serve.settings import Settings, reachable
from serve.triton import MODELS

COMMITTED = Path(__file__).resolve().parent.parent / "model_repository"
CONFIG = "config.pbtxt"
OF_THE_ENGINE_KIND = {"tokens_per_block"}  # the same in every deployment: stays as committed


class RepositoryError(Exception):
    """The committed model repository does not fit this code; the message names model and parameter."""


def parameters(settings: Settings, engine: EngineInfo) -> dict[str, dict[str, str]]:
    """Model -> its parameters, as Triton's configuration wants them: strings."""
    folder = engine.path.resolve()
    shared = {
        "context": str(settings.context),
        "slots": str(settings.slots),
        "queue": str(settings.queue),
    }
    return {
        "llama_cpp": shared
        | {
            "gguf": str(engine.gguf.absolute()),
            "tokenizer": str(folder / TOKENIZER),
            "threads": str(settings.threads),
            "prefill_chunk": str(settings.prefill_chunk),
            "kv_type": settings.kv_type,
        },
        "youtu_llm": shared
        | {
            "model_id": engine.model_id,
            "demo": str(engine.demo).lower(),
            "description": engine.description,
            "temperature": str(settings.temperature),
            "top_p": str(settings.top_p),
            "repetition_penalty": str(settings.repetition_penalty),
            "enable_thinking": {"auto": "", "on": "true", "off": "false"}[settings.thinking],
            "tools": str(engine.takes_tools()).lower(),
            "engine_dir": str(folder),
            "engine_url": f"{_bracketed(reachable(settings.triton_host))}:{settings.grpc_port}",
            "engine_model": "llama_cpp",
            "guided_decoding": "true",
            "top_log_probs": "20",
        },
    }


def render(settings: Settings, engine: EngineInfo, target: Path, committed: Path = COMMITTED) -> Path:
    """Write the repository to the folder `target`, replacing what is there. Raises RepositoryError."""
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    values = parameters(settings, engine)
    for model in MODELS:
        shutil.copytree(committed / model, draft / model, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        config = draft / model / CONFIG
        config.write_text(
            _filled_in(model, config.read_text(encoding="utf-8"), values[model]), encoding="utf-8"
        )
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def _filled_in(model: str, text: str, values: dict[str, str]) -> str:
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"{model}/{CONFIG}: {error}") from error
    committed = set(config.parameters) - OF_THE_ENGINE_KIND
    if odd := committed.symmetric_difference(values):
        name = min(odd)
        fault = "is not known to serve/repository.py" if name in committed else "is missing"
        raise RepositoryError(f"{model}/{CONFIG}: parameter {name} {fault}")
    for name, value in values.items():
        config.parameters[name].string_value = value
    return text_format.MessageToString(config, as_utf8=True)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
