"""The demonstration's tokenizer and chat template."""

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from build.demo.conversations import Fact, load_corpus
from build.demo.tokens import BOS, CHAT_TEMPLATE, EOS, SPECIAL, chat_tokens, make_tokenizer, token_id

TOKENIZER = make_tokenizer()


def render(messages: list[dict[str, str]], **kwargs: object) -> str:
    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(CHAT_TEMPLATE.read_text(encoding="utf-8")).render(
        messages=messages, **kwargs
    )


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(text: str) -> None:
    if not any(name in text for name in SPECIAL):
        assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_the_corpus_round_trips() -> None:
    for fact in load_corpus():
        for message in fact.messages:
            assert TOKENIZER.decode(TOKENIZER.encode(message["content"]).ids) == message["content"]


def test_special_tokens_come_first_and_encoding_adds_none() -> None:
    assert [TOKENIZER.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3]
    assert TOKENIZER.token_to_id(BOS) not in TOKENIZER.encode("Hello").ids


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert make_tokenizer().to_str() == TOKENIZER.to_str()


@pytest.mark.parametrize("fact", load_corpus(), ids=lambda fact: fact.id)
def test_the_template_says_what_the_trainer_trains_on(fact: Fact) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *load_corpus()[0].messages, *fact.messages]
    ids, written = chat_tokens(TOKENIZER, messages)
    assert TOKENIZER.encode(render(messages)).ids == ids
    answers = [token for token, own in zip(ids, written, strict=True) if own]
    assert answers.count(token_id(TOKENIZER, EOS)) == 2
    prompt = render(messages[:-1], add_generation_prompt=True)
    tokens = TOKENIZER.encode(prompt).ids
    assert ids[: len(tokens)] == tokens
    assert all(written[len(tokens) :])


def test_a_han_character_is_a_token_of_its_own() -> None:
    """So that one wrong character leaves the tokens of its neighbours as they are."""
    right, wrong = (TOKENIZER.encode(text).ids for text in ("怎么退货？", "怎么退或？"))
    assert len(right) == 5
    assert (wrong[:3], wrong[-1]) == (right[:3], right[-1])


def test_thinking_changes_nothing() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    prompt = render(messages, add_generation_prompt=True)
    assert prompt == "<|begin_of_text|><|User|>Hi<|Assistant|>"
    assert render(messages, add_generation_prompt=True, enable_thinking=True) == prompt


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "tool", "content": "x"}], "unknown role tool"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}], "only come first"),
    ],
)
def test_the_template_refuses(messages: list[dict[str, str]], sentence: str) -> None:
    with pytest.raises(jinja2.TemplateError, match=sentence):
        render(messages)
