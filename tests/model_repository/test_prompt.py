"""Prompts are the ones that transformers would make."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from prompt import PromptBuilder
from youtu_contract.errors import Refused
from youtu_contract.parts import PartsParser, ToolCall

from .conftest import DEMO

CONVERSATION = [
    {"role": "system", "content": "你是客服。"},
    {"role": "user", "content": "怎么退货？ <end_of_text>"},
    {"role": "assistant", "content": "七天内。"},
    {"role": "user", "content": "  写一个 `for` 循环 👍\n"},
]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    folder = tmp_path_factory.mktemp("engine")
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder)
    facts = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    (folder / "engine.json").write_text(json.dumps(facts))
    return PromptBuilder(folder)


@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[:2], CONVERSATION[1:2]])
def test_chat_prompts_equal_those_of_transformers(
    builder: PromptBuilder, messages: list[dict[str, Any]]
) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(DEMO)
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert builder.encode(builder.render(messages, {}), add_special_tokens=False) == expected


def test_raw_prompts_equal_those_of_transformers(builder: PromptBuilder) -> None:
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(DEMO)("hello 你好")["input_ids"]
    assert builder.encode("hello 你好", add_special_tokens=True) == expected


def test_a_template_that_refuses_is_the_callers_fault(builder: PromptBuilder) -> None:
    with pytest.raises(Refused, match="the chat template rejects"):
        builder.render([{"role": "tool", "content": "x"}], {})


def test_a_template_cannot_reach_the_machine(builder: PromptBuilder, tmp_path: Path) -> None:
    for name in ("tokenizer.json",):
        shutil.copy(DEMO / name, tmp_path)
    (tmp_path / "engine.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(Refused):
        PromptBuilder(tmp_path).render(CONVERSATION, {})


@pytest.mark.parametrize(
    ("opening", "asked", "inside"),
    [
        ("<|Assistant|><think>\n", "hello", True),
        ("<|Assistant|><think>\n\n</think>\n\n", "hello", False),
        ("<|Assistant|>", "what does <think> mean?", False),
        ("<|Assistant|>", "<think>", False),
        ("<|Assistant|><think>", "what does </think> mean?", True),
    ],
)
def test_only_the_template_can_leave_the_model_in_thinking(
    tmp_path: Path, opening: str, asked: str, inside: bool
) -> None:
    shutil.copy(DEMO / "tokenizer.json", tmp_path)
    (tmp_path / "engine.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {opening!r} }}}}{{% endif %}}"
    )
    builder = PromptBuilder(tmp_path)
    messages = [{"role": "user", "content": asked}]
    assert builder.leaves_in_thinking(builder.render(messages, {}), messages, {}) is inside


def test_a_final_message_is_continued_where_its_content_ends(builder: PromptBuilder) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(DEMO)
    for content in ("七天", "  The answer is ", "a <|end_of_text|> b"):
        messages = [{"role": "user", "content": "七天"}, {"role": "assistant", "content": content}]
        text, thinking = builder.chat(messages, {}, answer="continued")
        expected = reference.apply_chat_template(messages, continue_final_message=True, tokenize=False)
        assert (str(text), thinking) == (expected, False)
    assert len(builder.encode(text, add_special_tokens=False)) > 8  # spelled, not the control token


def test_a_message_without_content_is_continued_in_its_thinking(tmp_path: Path) -> None:
    shutil.copy(DEMO / "tokenizer.json", tmp_path)
    (tmp_path / "engine.json").write_text("{}")
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(template + "{% if add_generation_prompt %}A:{% endif %}")
    builder = PromptBuilder(tmp_path)
    asked = {"role": "user", "content": "q"}
    last = {"role": "assistant", "content": ""}
    assert builder.chat([asked, last], {}, answer="continued") == ("user:q;A:", False)
    thought = last | {"reasoning_content": "Hm, "}
    assert builder.chat([asked, thought], {}, answer="continued") == ("user:q;A:<think>\nHm, ", True)


def test_a_message_that_the_template_changes_cannot_be_continued(tmp_path: Path) -> None:
    shutil.copy(DEMO / "tokenizer.json", tmp_path)
    (tmp_path / "engine.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    )
    with pytest.raises(Refused, match="changes the last message"):
        PromptBuilder(tmp_path).chat([{"role": "assistant", "content": "abc"}], {}, answer="continued")


TOOL = {
    "type": "function",
    "function": {"name": "w", "description": "天气", "parameters": {}, "strict": True},
}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "w", "arguments": {"city": city}}}
        for city in "ab"
    ],
}


def test_tools_are_described_where_the_template_has_no_place_for_them(tmp_path: Path) -> None:
    """In the form that the parser reads; results come back as the user's text, which any template takes."""
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, tmp_path)
    (tmp_path / "engine.json").write_text("{}")
    builder = PromptBuilder(tmp_path, describe_tools=True)
    results = [{"role": "tool", "tool_call_id": "1", "content": text} for text in ("sun", "rain")]
    text, _ = builder.chat([*CONVERSATION[:2], CALLED, *results], {"tools": [TOOL]})
    told, asked, said, _, returned, end = re.split(r"<\|\w+\|>", text)[1:]
    assert '{"name": "w", "description": "天气", "parameters": {}}\n' in told
    assert '<tool_call>{"name": "the name", "arguments": {"an argument": "its value"}}</tool_call>' in told
    assert told.endswith("\n\n你是客服。")
    assert asked == CONVERSATION[1]["content"]
    parser = PartsParser(tools=True)
    parts = [*parser.feed(said), *parser.end()]
    assert [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)] == [
        ("w", '{"city": "a"}'),
        ("w", '{"city": "b"}'),
    ]
    assert (returned, end) == ("<tool_response>sun</tool_response>\n<tool_response>rain</tool_response>", "")
    with pytest.raises(Refused, match="the chat template rejects"):
        PromptBuilder(tmp_path).chat([*CONVERSATION[:2], CALLED, *results], {"tools": [TOOL]})


def test_several_system_messages_are_one(builder: PromptBuilder) -> None:
    """Two from a framework at the beginning; and one in the midst, which the demo's template refuses."""
    system = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    user = {"role": "user", "content": "q"}
    expected = "<|begin_of_text|>a\n\nb<|User|>q<|Assistant|>"
    assert builder.chat([*system, user], {})[0] == expected
    assert builder.chat([system[0], user, system[1]], {})[0] == expected
