"""A chat template: parsed, and rendered as `transformers` renders it, without transformers.

Source: transformers 5.23, utils/chat_template_utils.py. Rendered text is `Traced`: it records which of its
characters callers wrote. The build reads templates with this module, too.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes, pass_environment
from jinja2.exceptions import FilterArgumentError, SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer
from traced import Traced, has_callers, joined, marks_of, percent, text_of, traced

_HELD = "\0"  # around the number of a caller's text while str.format runs
FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What rendering raises where the template and the messages do not go together."""


class ChatTemplate:
    """Raises ValueError, which names the line, when `source` cannot be parsed."""

    def __init__(self, source: str) -> None:
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(source)
            self._tree = self._environment.parse(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno}: {error.message}") from None
        except (RecursionError, SyntaxError) as error:
            raise ValueError(f"it is nested too deeply: {error}") from None

    def literals(self) -> str:
        """All that it writes by itself, for a search of tokens in it."""
        texts = [node.data for node in self._tree.find_all(nodes.TemplateData)]
        texts += [node.value for node in self._tree.find_all(nodes.Const) if isinstance(node.value, str)]
        return _HELD.join(texts)

    def render(
        self,
        messages: Iterable[Mapping[str, Any]],
        template_kwargs: Mapping[str, Any],
        special_tokens: Mapping[str, str],
        *,
        add_generation_prompt: bool,
    ) -> Traced:
        """special_tokens: name (`bos_token`, …) -> text. Raises one of FAULTS.

        Roles count as the template's own text: they come from a fixed set.
        """
        variables = {"tools": None, "documents": None} | dict(special_tokens) | traced(dict(template_kwargs))
        variables["messages"] = [_message(message) for message in messages]
        variables["add_generation_prompt"] = add_generation_prompt
        text = self._template.render(variables)
        return Traced(text, marks_of(text))


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """As transformers hands it on: what is null is absent, and the reasoning has a second name."""
    sent = {
        key: value if key == "role" else traced(value) for key, value in message.items() if value is not None
    }
    if "reasoning_content" in sent:
        sent.setdefault("thinking", sent["reasoning_content"])
    return sent


class _Environment(ImmutableSandboxedEnvironment):
    """Keeps texts traced. Operators are methods of `Traced`; here is what Python does without these."""

    intercepted_binops = frozenset("%")
    concat = staticmethod(joined)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, finalize=text_of, extensions=[_Generation, loopcontrols]
        )
        self.filters = {name: _followed(plain) for name, plain in self.filters.items()} | _FILTERS
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Traceable().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(__obj, BuiltinMethodType) and type(owner := __obj.__self__) is str:
            __obj = getattr(Traced(owner, marks_of(owner)), __obj.__name__)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return percent(left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Nothing follows bytes.
        return super().is_safe_attribute(obj, attr, value) and not (
            isinstance(obj, Traced) and attr == "encode"
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        plain = super().wrap_str_format(value)
        if plain is None or isinstance(value, MethodType):
            return plain
        form: str = value.__self__

        @wraps(plain)
        def formatted(*args: Any, **kwargs: Any) -> str:
            formatter = _Formatter(self)
            if value.__name__ == "format_map":
                text = formatter.vformat(form, (), *args, **kwargs)
            else:
                text = formatter.vformat(form, args, kwargs)
            return Traced(text) if has_callers(form) else formatter.with_held(text)

        return formatted


class _Formatter(SandboxedFormatter):
    """str.format, whose result knows what callers wrote."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._held: list[str] = []

    def format_field(self, value: Any, format_spec: str) -> str:
        if not has_callers(value):
            return str(super().format_field(value, format_spec))
        self._held.append(Traced(format(value, format_spec)) if format_spec else text_of(value))
        return f"{_HELD}{len(self._held) - 1}{_HELD}"

    def with_held(self, text: str) -> str:
        pieces = text.split(_HELD)
        return joined(self._held[int(piece)] if at % 2 else piece for at, piece in enumerate(pieces))


class _Traceable(NodeTransformer):
    """`a ~ b` is compiled to a call of plain str.join; this makes it a filter. Escaped text is not traced."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "concatenated", [], [], None, None, lineno=node.lineno)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> nodes.Node:
        raise jinja2.TemplateSyntaxError("autoescape is not supported in chat templates", node.lineno)


class _Generation(Extension):
    """{% generation %} … {% endgeneration %} marks, for training only, what the model says."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` without what a type has beside its call."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    def __init__(*args: Any, **kwargs: Any) -> None:
        own, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_attribute(name)
        jinja2.utils.Namespace.__init__(own, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot have the attribute {name!r}")


def _followed(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose text is the caller's as a whole where it was made of a caller's."""

    @wraps(plain)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        if isinstance(result, Traced) or not isinstance(result, str) or not has_callers([args, kwargs]):
            return result
        return Traced(result)

    return filtered


@pass_environment
def _join(environment: jinja2.Environment, value: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    between = text_of(d)
    return Traced(between, marks_of(between)).join(map(text_of, value))


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text = text_of(s)
    whole = Traced(text, marks_of(text))
    return whole.replace(text_of(old), text_of(new), -1 if count is None else count)


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * width
    lines = (s + "\n").splitlines()
    rest = [part for line in lines[1:] for part in ("\n", margin if line or blank else "", line)]
    return joined([margin if first else "", lines[0], *rest])


def _format(value: Any, *args: Any, **kwargs: Any) -> Any:
    if args and kwargs:
        raise FilterArgumentError("format takes positional or named values, not both")
    return percent(text_of(value), kwargs or args)


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    text = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return Traced(text) if has_callers(x) else text


def _safe(value: Any) -> Any:
    return text_of(value) if has_callers(value) else jinja2.filters.do_mark_safe(value)


def _raise(message: Any) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    text = datetime.datetime.now().strftime(format)
    return Traced(text) if has_callers(format) else text


_FILTERS: dict[str, Callable[..., Any]] = {
    "concatenated": lambda parts: joined(map(text_of, parts)),
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "safe": _safe,
    "string": text_of,
    "tojson": _tojson,
}
