"""Messages to token ids: the model's own chat template, then its tokenizer.

Only what the template writes becomes a control token. Caller text that is spelled like one is tokenised
as plain characters.
"""

from __future__ import annotations

import json
import re
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from conversation import with_described_tools, with_one_system
from detokenizer import token_bytes
from template import FAULTS, ChatTemplate
from tokenizers import Tokenizer
from traced import Traced, has_callers, joined, marks_of
from youtu_contract.errors import Refused, invalid, unsupported
from youtu_contract.parts import THINK, THINK_END

TEMPLATE = "chat_template.jinja"
TOOL_TEMPLATE = "chat_template.tool_use.jinja"
Answer = Literal["begun", "continued", "none"]
_BLANK = "\uffff"  # no character of a text, so in no token
# What an added token looks like that is none of a text's words: <think>, [TOOL_CALLS].
_SIGN = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)


class PromptBuilder:
    """Reads `tokenizer.json`, `engine.json` and the chat templates of an engine folder.

    describe_tools: whether the system message describes tools, since the template does not. Raises OSError or
    ValueError when one of the first two is missing or broken, or a template cannot be
    parsed.
    """

    def __init__(self, engine_dir: Path, *, describe_tools: bool = False) -> None:
        self._describe_tools = describe_tools
        self.tokenizer = Tokenizer.from_file(str(engine_dir / "tokenizer.json"))
        self.facts: dict[str, Any] = json.loads((engine_dir / "engine.json").read_text(encoding="utf-8"))
        self._template = _template(engine_dir / TEMPLATE)
        self._tool_template = _template(engine_dir / TOOL_TEMPLATE)
        written = "".join(each.literals() for each in (self._template, self._tool_template) if each)
        self._control = {
            token.content: (index, token)
            for index, token in self.tokenizer.get_added_tokens_decoder().items()
            if token.special or (token.content in written and _SIGN.fullmatch(token.content))
        }
        self._control_ids = frozenset(index for index, _ in self._control.values())

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids; `add_special_tokens` with whatever the tokenizer itself puts around a raw text.

        In a plain text all control tokens are looked for; in a rendered one those that the template wrote.
        Raises Refused.
        """
        encoding = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        if isinstance(text, Traced) and any(
            has_callers(text[start:end].strip())
            for index, (start, end) in zip(ids, encoding.offsets, strict=True)
            if index in self._control_ids
        ):
            return self._without_forged(text)
        return ids

    def _without_forged(self, text: Traced) -> list[int]:
        ids: list[int] = []
        at = 0
        for found in self._pattern.finditer(text.template_text(_BLANK)):
            index, token = self._control[found[0]]
            before, after = text[at : found.start()], text[found.end() :]
            ids += self._as_text(before.rstrip() if token.lstrip else before)
            ids.append(index)
            at = len(text) - len(after.lstrip() if token.rstrip else after)
        return ids + self._as_text(text[at:])

    def _as_text(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return [part for i in ids for part in (self._spelt(i) if i in self._control_ids else (i,))]

    def _spelt(self, index: int) -> list[int]:
        """A control token that merges make of its characters, byte by byte."""
        name = self.tokenizer.id_to_token(index) or ""
        try:
            return [self._bytes[byte] for byte in name.encode()]
        except KeyError:
            raise invalid("messages", f"{name!r} is a control token that cannot be written as text") from None

    @cached_property
    def _bytes(self) -> dict[int, int]:
        """Byte -> the token that is this byte."""
        table = enumerate(token_bytes(self.tokenizer))
        return {data[0]: i for i, data in table if len(data) == 1 and i not in self._control_ids}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._control, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without an eye for control tokens. Made when the first text needs it."""
        made = json.loads(self.tokenizer.to_str())
        for token in made["added_tokens"]:
            token["special"] = token["content"] in self._control
        plain = Tokenizer.from_str(json.dumps(made))
        plain.encode_special_tokens = True
        return plain

    def render(self, messages: list[dict[str, Any]], template_kwargs: dict[str, Any]) -> Traced:
        """The conversation as text, up to where the model continues. Raises Refused."""
        return self._rendered(messages, template_kwargs, add_generation_prompt=True)

    def chat(
        self, messages: list[dict[str, Any]], template_kwargs: dict[str, Any], *, answer: Answer = "begun"
    ) -> tuple[Traced, bool]:
        """The conversation up to where the model goes on, and whether that is inside its thinking.

        answer: whether the template begins one, the last message is one to be continued, or neither. Where
        the template refuses a system message in the midst, it comes to the beginning. Raises Refused.
        """
        write = self._continued if answer == "continued" else partial(self._begun, answer=answer == "begun")
        if self._describe_tools:
            messages = with_described_tools(messages, template_kwargs.get("tools") or [])
            template_kwargs = template_kwargs | {"tools": None}
        first = with_one_system(messages, everywhere=False)
        try:
            return write(first, template_kwargs)
        except Refused:
            if (moved := with_one_system(messages, everywhere=True)) == first:
                raise
            return write(moved, template_kwargs)

    def _begun(
        self, messages: list[dict[str, Any]], template_kwargs: dict[str, Any], *, answer: bool
    ) -> tuple[Traced, bool]:
        if not answer:
            return self._rendered(messages, template_kwargs, add_generation_prompt=False), False
        text = self.render(messages, template_kwargs)
        return text, self.leaves_in_thinking(text, messages, template_kwargs)

    def _continued(
        self, messages: list[dict[str, Any]], template_kwargs: dict[str, Any]
    ) -> tuple[Traced, bool]:
        """Up to the end of the last message's content, as `transformers` cuts it.

        A message that has thinking and no content yet is continued in its thinking.
        """
        *earlier, last = messages
        content = last.get("content") or ""
        if not content.strip():
            text, thinking = self._begun(earlier, template_kwargs, answer=True)
            if not (reasoning := last.get("reasoning_content")):
                return text, thinking
            opening = "" if thinking else f"{THINK}\n"
            whole = joined([text, opening, Traced(reasoning)])
            return Traced(whole, marks_of(whole)), True
        text = self._rendered(messages, template_kwargs, add_generation_prompt=False)
        at = text.rfind(content.strip())
        if at < 0:
            message = "the chat template changes the last message, so it cannot be continued"
            raise unsupported("continue_final_message", message)
        begins = text[at : at + len(content.lstrip())] == content.lstrip()
        text = text[: at + len(content.lstrip() if begins else content.strip())]
        written = text.template_text(_BLANK)
        return text, written.rfind(THINK) > written.rfind(THINK_END)

    def leaves_in_thinking(
        self, text: str, messages: list[dict[str, Any]], template_kwargs: dict[str, Any]
    ) -> bool:
        """Whether `text`, these messages rendered, ends inside a <think> that the template itself opened.

        One that stands in a message does not count, so what the template adds at the end is looked at alone.
        """
        if text.rfind(THINK) <= text.rfind(THINK_END):
            return False
        rendered = self._rendered(messages, template_kwargs, add_generation_prompt=False)
        if not text.startswith(rendered):  # a template that writes the conversation itself differently
            return text.rstrip().endswith(THINK)
        return THINK in text[len(rendered) :]

    def _rendered(
        self,
        messages: list[dict[str, Any]],
        template_kwargs: dict[str, Any],
        *,
        add_generation_prompt: bool,
    ) -> Traced:
        # As in transformers: a model may have one template for requests with tools and one for the others.
        with_tools = template_kwargs.get("tools") is not None
        template = (with_tools and self._tool_template) or self._template
        if template is None:
            raise unsupported("messages", "this model has no chat template; send text_input")
        special_tokens = self.facts.get("special_tokens", {})
        try:
            return template.render(
                messages, template_kwargs, special_tokens, add_generation_prompt=add_generation_prompt
            )
        except FAULTS as error:
            raise invalid("messages", f"the chat template rejects them: {error}") from error


def _template(path: Path) -> ChatTemplate | None:
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        return ChatTemplate(source) if source else None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None
