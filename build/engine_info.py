"""engine.json: what an engine folder holds, written by the build and read by the launcher.

`ServedModel` is what every kind of engine has, `EngineInfo` the CPU engine's for llama.cpp;
build/openvino_model has the one for OpenVINO, build/tensorrt_llm the GPU engine's. Nothing but the standard
library is needed to read one.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from build.errors import BuildError

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1  # raise it when engines made before must be made again
ENGINE_JSON, GGUF, TOKENIZER, CHAT_TEMPLATE, TOOL_TEMPLATE = (
    "engine.json",
    "model.gguf",
    "tokenizer.json",
    "chat_template.jinja",
    "chat_template.tool_use.jinja",  # instead of the other for requests with tools, where the model has one
)


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model whose GGUF is there. `parameters` counts weights; ids index the vocabulary.

    `special_tokens`: name, as chat templates know it (`bos_token`, …) -> text.
    """

    architecture: str
    vocab_size: int
    context_length: int
    special_tokens: dict[str, str]
    bos_token_id: int | None
    eos_token_ids: list[int]
    add_bos: bool
    weights: str
    parameters: int


@dataclass(frozen=True)
class ServedModel(ModelFacts):
    """The part of engine.json that every engine has, and the folder it is in.

    `source` says in words where the model came from, `fingerprint` in which state. Without `chat_template`
    the model completes raw prompts only.
    """

    model_id: str
    source: str
    fingerprint: str
    demo: bool
    description: str
    chat_template: bool
    versions: dict[str, str]
    created: str
    path: Path

    def takes_tools(self) -> bool:
        """Whether the chat template reads the variable `tools`, or there is one for requests with tools."""
        if (self.path / TOOL_TEMPLATE).is_file():
            return True
        return self.chat_template and bool(
            re.search(r"\btools\b", (self.path / CHAT_TEMPLATE).read_text(encoding="utf-8"))
        )

    def save(self) -> None:
        """Write engine.json, whole or not at all."""
        content = {"format": FORMAT}
        content |= {field.name: getattr(self, field.name) for field in fields(self) if field.name != "path"}
        draft = self.path / f".{ENGINE_JSON}.part"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / ENGINE_JSON)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the engine folder `path`; BuildError names the file or field that is missing or wrong."""
        try:
            content = json.loads((path / ENGINE_JSON).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BuildError(f"{path} contains no finished engine: {error}") from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise BuildError(f"{path / ENGINE_JSON}: format must be {FORMAT}; build the engine again")
        hints = {name: hint for name, hint in get_type_hints(cls).items() if name != "path"}
        if odd := sorted(set(hints) ^ set(content)):
            raise BuildError(
                f"{path / ENGINE_JSON}: field {odd[0]} is {'unknown' if odd[0] in content else 'missing'}"
            )
        for name, hint in hints.items():
            if not _fits(content[name], hint):
                raise BuildError(f"{path / ENGINE_JSON}: field {name} cannot be {content[name]!r}")
        info = cls(path=path, **content)
        info._check_files()
        return info

    def _check_files(self) -> None:
        needed = [TOKENIZER, *([CHAT_TEMPLATE] if self.chat_template else [])]
        for name in needed:
            if not (self.path / name).is_file():
                raise BuildError(f"{self.path / name} is missing; build the engine again")


@dataclass(frozen=True)
class EngineInfo(ServedModel):
    """The CPU engine's: `gguf_bytes` and `gguf_sha256` belong to model.gguf.

    That is a link when the source is a .gguf file.
    """

    gguf_bytes: int
    gguf_sha256: str

    @property
    def runtime(self) -> str:
        """What computes it: build.openvino_model has the engines of the other one."""
        return "llama_cpp"

    @property
    def gguf(self) -> Path:
        return self.path / GGUF

    @property
    def model(self) -> Path:
        """The file that the runtime loads."""
        return self.gguf

    def _check_files(self) -> None:
        super()._check_files()
        if not self.gguf.is_file():
            gone = (
                f"points to {self.gguf.readlink()}, which no longer exists"
                if self.gguf.is_symlink()
                else "is missing"
            )
            raise BuildError(f"{self.gguf} {gone}; build the engine again")
        size = self.gguf.stat().st_size
        if size != self.gguf_bytes:
            raise BuildError(f"{self.gguf} has {size} bytes, not {self.gguf_bytes}; build the engine again")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type; bool is no int here."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if arguments:
        return any(_fits(value, option) for option in arguments)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, NoneType if hint is None else hint)
