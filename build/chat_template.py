"""The chat templates of a checkpoint: where they are, and whether they can be parsed.

Parsed by the module that renders them when the model is served, so that both agree on what a template is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from build.engine_info import CHAT_TEMPLATE, TOOL_TEMPLATE
from build.errors import BuildError
from build.model_modules import make_importable

MORE = Path("additional_chat_templates") / "tool_use.jinja"


@dataclass(frozen=True)
class ChatTemplates:
    """`default` is None for a model that only completes raw prompts, `tool_use` for requests with tools."""

    default: str | None
    tool_use: str | None = None

    def write(self, folder: Path) -> None:
        """Put them into an engine folder."""
        for name, source in ((CHAT_TEMPLATE, self.default), (TOOL_TEMPLATE, self.tool_use)):
            if source:
                (folder / name).write_text(source, encoding="utf-8")


def read_templates(checkpoint: Path, tokenizer_config: dict[str, Any]) -> ChatTemplates:
    """Files of their own win over tokenizer_config.json, as in transformers.

    BuildError names the file, and the line of a template that cannot be parsed.
    """
    files = {"default": checkpoint / CHAT_TEMPLATE, "tool_use": checkpoint / MORE}
    found = {name: _text(path) for name, path in files.items() if path.is_file()}
    where = {name: str(path) for name, path in files.items()}
    if not found:
        config = f"{checkpoint / 'tokenizer_config.json'}: chat_template"
        found = _of_config(config, tokenizer_config.get("chat_template"))
        where = {name: f"{config} {name}" for name in found}
    default = "default" if "default" in found else next(iter(found), "default")
    for name in {default, "tool_use"} & found.keys():
        check(found[name], where[name])
    return ChatTemplates(found.get(default), found.get("tool_use"))


def _of_config(where: str, value: Any) -> dict[str, str]:
    named: dict[Any, Any] = {"default": value}
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
    for source in named.values():
        if not isinstance(source, str | None):
            raise BuildError(f"{where} must be text, found {source!r}")
    return {name: source for name, source in named.items() if source}


def check(source: str, where: str) -> None:
    """BuildError when a template cannot be parsed; `where`: its file."""
    try:
        _parser()(source)
    except ValueError as error:
        raise BuildError(f"{where}, {error}: the chat template cannot be parsed") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path}: expected UTF-8; byte {error.start} is invalid") from None


@cache
def _parser() -> Any:
    make_importable("youtu_llm")
    from template import ChatTemplate

    return ChatTemplate
