"""Traced texts are the texts they stand for, and no operation loses what a caller wrote.

Callers write capital letters here, templates small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError
from template import ChatTemplate
from traced import Traced, has_callers, joined, marks_of, percent, traced

pieces = st.lists(st.text("AB \n", max_size=4).map(Traced) | st.text("ab \n<", max_size=4), max_size=5)
texts = pieces.map(joined)

EXACT: list[Callable[[Any], Any]] = [
    lambda t: t + "a",
    lambda t: "a" + t,
    lambda t: t * 2,
    lambda t: 2 * t,
    lambda t: t[1:],
    lambda t: t[::-1],
    lambda t: t[-1] if t else t,
    lambda t: [*t],
    lambda t: t.split(),
    lambda t: t.split("a"),
    lambda t: t.split(None, 1),
    lambda t: t.split(" ", 1),
    lambda t: t.rsplit(),
    lambda t: t.rsplit("b", 1),
    lambda t: t.rsplit(None, 1),
    lambda t: t.splitlines(),
    lambda t: t.splitlines(True),
    lambda t: t.partition("A"),
    lambda t: t.rpartition("ab"),
    lambda t: t.strip(),
    lambda t: t.strip("aA"),
    lambda t: t.lstrip(),
    lambda t: t.rstrip("\n"),
    lambda t: t.removeprefix("a"),
    lambda t: t.removesuffix("B"),
    lambda t: t.replace("a", "bb"),
    lambda t: t.replace("A", ""),
    lambda t: t.replace("ab", t),
    lambda t: t.replace("a", "b", 1),
    lambda t: t.join(["a", "b"]) if isinstance(t, Traced) else "a" + t + "b",
    lambda t: str(t),
    lambda t: percent("a%s%%%s", (t, "b")),
    lambda t: percent("%(x)s a", {"x": t}),
    lambda t: f"{t}",
]
ROUGH: list[Callable[[Any], Any]] = [
    lambda t: t.upper().swapcase(),
    lambda t: t.center(9, "c"),
    lambda t: t.ljust(9),
    lambda t: t.zfill(9),
    lambda t: t.expandtabs(),
    lambda t: t.replace("", "x"),
    lambda t: repr(t),
    lambda t: f"{t:>9}",
    lambda t: percent("%-9s%r", (t, t)),
    lambda t: percent("%.*s", (2, t)),
    lambda t: t % () if "%" not in t else t,
]


@pytest.mark.parametrize("operation", EXACT)
@given(texts)
def test_each_character_keeps_its_writer(operation: Callable[[Any], Any], text: str) -> None:
    result, plain = operation(text), operation(str.__str__(text))
    assert result == plain
    assert type(result) in (type(plain), Traced)
    for each in [result] if isinstance(result, str) else result:
        for c, mark in zip(str.__str__(each), marks_of(each), strict=True):
            assert c.isspace() or mark == c.isupper()


@pytest.mark.parametrize("operation", ROUGH)
@given(texts)
def test_where_it_cannot_be_followed_the_whole_is_the_callers(
    operation: Callable[[Any], Any], text: str
) -> None:
    result, plain = operation(text), operation(str.__str__(text))
    assert result == plain
    wrote = {c.upper() for c, mark in zip(str.__str__(text), marks_of(text), strict=True) if mark}
    for c, mark in zip(str.__str__(result), marks_of(result), strict=True):
        assert mark or c.isspace() or c.upper() not in wrote or not has_callers(text) or c.islower()


@pytest.mark.parametrize(
    ("source", "callers"),
    [
        ("a{{ x }}b", "X"),
        ("{{ 'a' ~ x ~ 1 ~ none }}", "X"),
        ("{{ ['a', x] | join('b') }}{{ 'b'.join([x, 'a']) }}{{ ['a', 'b'] | join(x) }}", "XXX"),
        ("{{ 'a-b' | replace('-', x) }}{{ 'a-b'.replace('-', x) }}", "XX"),
        ("{{ 'a{}b{c}'.format(x, c=x) }}{{ 'a{0!s}{0.real}'.format(1) }}{{ '{x}b'.format_map(v) }}", "XXX"),
        ("{{ 'a%sb' % x }}{{ 'a%s' | format(x) }}{{ '%(x)s' % v }}{{ 'a%s%s' % ('b', x) }}", "XXXX"),
        ("{% macro m(t) %}a{{ t }}{{ caller() }}{% endmacro %}{% call m(x) %}b{{ x }}{% endcall %}", "XX"),
        ("{% set t %}a{{ x }}{% endset %}{{ t }}{% filter trim %} b{{ x }} {% endfilter %}", "XX"),
        ("{% set ns = namespace(t='a') %}{% set ns.t = ns.t + x %}{{ ns.t }}{{ dict(k=x).k }}", "XX"),
        ("{{ ('a\nb' ~ x ~ '\n' ~ x) | indent(2, true) }}", "XX"),
        ("{{ v | tojson }}a{{ [x] }}b{{ {'k': x} | string }}", "{\"x\": \"X\"}['X']{'k': 'X'}"),
        ("{{ x | title }}{{ x | e }}{{ x | safe }}{{ x | wordwrap(3) }}", "XXXX"),
        ("{{ x | urlencode }}{{ x | pprint }}", "X'X'"),
        ("{% for k, w in v.items() %}{{ k }}{{ w }}{% endfor %}{% for c in x %}a{{ c }}{% endfor %}", "xXX"),
        (
            "{{ x[0] }}{{ x[:1] }}{{ x | first }}{{ x | last }}{{ x | list | join }}{{ x | reverse }}",
            "XXXXXX",
        ),
        ("{{ 'a' if x == 'X' and 'X' in x and x in ['X'] }}{{ v.get('x') if v['x'] is string }}", "X"),
        ("{{ [v] | map(attribute='x') | join('a') }}{{ [x] | map('lower') | map('upper') | join }}", "XX"),
        ("{{ strftime_now(x) }}{{ 'abc'.ljust(5, x) }}", "XabcXX"),
        ("{% generation %}a{{ x }}{% endgeneration %}", "X"),
        ("{{ 'ab' | truncate(3) }}{{ ('ab' ~ x) | truncate(2, true, '', 0) }}", ""),
        ("{{ 'a' * 3 }}{{ 'ab'.upper() }}{{ 'a' | tojson }}{{ 'a' | e }}{{ role }}", ""),
    ],
)
def test_what_a_template_does_is_followed(source: str, callers: str) -> None:
    template = ChatTemplate("{% set role = messages[0].role %}" + source)
    message = {"role": "user", "content": "c"}
    text = template.render([message], {"x": "X", "v": {"x": "X"}}, {}, add_generation_prompt=False)
    found = "".join(c for c, mark in zip(str.__str__(text), marks_of(text), strict=True) if mark)
    assert found == callers


def test_json_is_traced_to_its_keys() -> None:
    value = {"a": [1, None, {"b": "c"}]}
    assert traced(value) == value
    assert has_callers(next(iter(traced(value))))
    assert not has_callers([1, None, {"a": "b"}, ("c",)])


def test_texts_cannot_leave_by_way_of_bytes() -> None:
    template = ChatTemplate("{{ messages[0].content.encode().decode() }}")
    with pytest.raises(SecurityError):
        template.render([{"role": "user", "content": "X"}], {}, {}, add_generation_prompt=False)
