"""Messages to token ids: the model's own chat template, then its tokenizer.

Renders as `transformers` does (the same Jinja settings and functions), without transformers.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from youtu_contract.errors import invalid, unsupported


class PromptBuilder:
    """Reads `tokenizer.json`, `engine.json` and `chat_template.jinja` of an engine folder.

    Raises OSError or ValueError when one of the first two is missing or broken.
    """

    def __init__(self, engine_dir: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(engine_dir / "tokenizer.json"))
        self.facts: dict[str, Any] = json.loads((engine_dir / "engine.json").read_text(encoding="utf-8"))
        path = engine_dir / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        self._template = _environment().from_string(source) if source else None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids; `add_special_tokens` with whatever the tokenizer itself puts around a raw text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def render(self, messages: list[dict[str, Any]], template_kwargs: dict[str, Any]) -> str:
        """The conversation as text, up to where the model continues. Raises Refused."""
        return self._rendered(messages, template_kwargs, add_generation_prompt=True)

    def leaves_in_thinking(
        self, text: str, messages: list[dict[str, Any]], template_kwargs: dict[str, Any]
    ) -> bool:
        """Whether `text`, these messages rendered, ends inside a <think> that the template itself opened.

        One that stands in a message does not count, so what the template adds at the end is looked at alone.
        """
        if text.rfind("<think>") <= text.rfind("</think>"):
            return False
        rendered = self._rendered(messages, template_kwargs, add_generation_prompt=False)
        if not text.startswith(rendered):  # a template that writes the conversation itself differently
            return text.rstrip().endswith("<think>")
        return "<think>" in text[len(rendered) :]

    def _rendered(
        self,
        messages: list[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
        *,
        add_generation_prompt: bool,
    ) -> str:
        if self._template is None:
            raise unsupported("messages", "this model has no chat template; send text_input")
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.facts.get("bos_token") or "",
                eos_token=self.facts.get("eos_token") or "",
                **template_kwargs,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise invalid("messages", f"the chat template refuses them: {error}") from error


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
