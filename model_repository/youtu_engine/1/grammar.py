"""Makes a grammar from a JSON schema or a regular expression, with llguidance.

    python grammar.py TOKENIZER VOCAB_SIZE

tests them for `guide.py`, in a separate process: a schema of a hundred bytes can take gigabytes and
minutes to compile, and neither can be reclaimed from a thread. It reads one [kind, text] per line, returns
"" or the reason why it is no guide; exceeding CPU_SECONDS or MEMORY ends the process.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KINDS = ("json", "json_schema", "regex", "grammar")
CPU_SECONDS = 1.5  # with them a refusal comes before the frontend sends the head of a stream
MEMORY = 256 << 20  # bytes beside those of the tokenizer
NO_MEMORY = 3  # exit status
MAX_OPTIONAL = 400  # llguidance stops at about 500, within the answer
_ANY_OBJECT = '{"type": "object"}'
# White space is never required, and where it is allowed an uncertain model writes nothing else.
_COMPACT: Any = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_LEXER_STATES = 50_000  # of 1 to 2 kB
_WALKS, _STEPS, _WALK_SECONDS = 4, 64, 0.3
_STEP_SECONDS = 0.05  # all other answers wait for it, at each token
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"const", "default", "enum", "examples"})


class InvalidGuide(ValueError):
    """No grammar can be made of the guide; the message says why."""


def compiled(tokenizer: LLTokenizer, kind: str, text: str) -> LLMatcher:
    """The grammar of a guide of one of KINDS; `text` is the guide itself. Raises InvalidGuide."""
    from llguidance import LLMatcher, LLParserLimits, grammar_from

    try:
        if kind == "regex":
            grammar = LLMatcher.grammar_from_regex(text)
        elif kind == "grammar":  # Lark or GBNF
            grammar = grammar_from("grammar", text)
        else:
            schema = _ANY_OBJECT if kind == "json" else _with_uris(text)
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
    except ValueError as error:
        raise InvalidGuide(reason(str(error))) from error
    limits = LLParserLimits(max_lexer_states=_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    check(matcher)
    return matcher


def check(matcher: LLMatcher) -> None:
    """Raises InvalidGuide when the matcher cannot go on."""
    if matcher.is_error():
        raise InvalidGuide(reason(matcher.get_error()))


def reason(text: str) -> str:
    """An error of llguidance's: its first paragraph, on one line and not too long."""
    line = " ".join(re.split(r"\n\n|<state>|<non-verbose", text)[0].split())
    return "no text can match it" if line.startswith("NoExtension") else line[:500]


def _loaded(text: str) -> Any:
    """The schema, or None where llguidance says better what is wrong with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield part
            for key, value in part.items():
                if key in _NAMED and isinstance(value, dict):
                    waiting += value.values()
                elif key not in _DATA:
                    waiting.append(value)


def _with_uris(text: str) -> str:
    """The schema with names in its references as URIs have them: people write `#/$defs/地址`."""
    schema, changed = _loaded(text), False
    for part in _schemas(schema):
        for key in ("$id", "$ref", "$dynamicRef"):
            if isinstance(reference := part.get(key), str):
                uri = quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", reference), safe="%/#?:@!$&'()*+,;=~")
                part[key], changed = uri, changed or uri != reference
    return json.dumps(schema, ensure_ascii=False) if changed else text


def _check_schema(schema: Any) -> None:
    """Raises InvalidGuide for what llguidance notices only within an answer, or never."""
    for part in _schemas(schema):
        properties, required = part.get("properties"), part.get("required")
        if isinstance(properties, dict):
            optional = len(properties.keys() - {n for n in required or () if isinstance(n, str)})
            if optional > MAX_OPTIONAL:
                raise InvalidGuide(
                    f"an object may have at most {MAX_OPTIONAL} optional properties; got {optional}"
                )
    if not _has_an_end(schema):
        raise InvalidGuide("no text can match it: it refers to itself endlessly")


def _has_an_end(schema: Any) -> bool:
    """Whether a finite value can match the schema, as far as references and what is required tell."""
    parts = list(_schemas(schema))
    finite: set[int] = set()

    def ends(part: Any) -> bool:
        return not isinstance(part, dict) or id(part) in finite

    count = -1
    while len(finite) > count:
        count = len(finite)
        finite |= {id(part) for part in parts if id(part) not in finite and _ends(part, schema, ends)}
    return ends(schema)


def _ends(part: dict[str, Any], root: Any, ends: Callable[[Any], bool]) -> bool:
    if "const" in part or "enum" in part:
        return True
    if isinstance(reference := part.get("$ref"), str) and not ends(_target(root, reference)):
        return False
    if not all(map(ends, _list(part.get("allOf")))):
        return False
    if any((any_of := _list(part.get(key))) and not any(map(ends, any_of)) for key in ("anyOf", "oneOf")):
        return False
    properties, least = part.get("properties"), part.get("minItems")
    if part.get("type") == "object" and isinstance(properties, dict):
        names = [name for name in _list(part.get("required")) if isinstance(name, str)]
        return all(ends(properties.get(name)) for name in names)
    if part.get("type") == "array" and isinstance(least, int) and least > 0:
        first = _list(part.get("prefixItems"))[:least]
        return all(map(ends, first)) and (len(first) >= least or ends(part.get("items")))
    return True


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _target(root: Any, reference: str) -> Any:
    """What a reference into the schema itself points to; None where it is another kind of reference."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    found = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return None
    return found


def try_out(tokenizer: LLTokenizer, kind: str, text: str) -> None:
    """Compile it and write a few beginnings of answers by chance. Raises InvalidGuide."""
    matcher = compiled(tokenizer, kind, text)
    if kind == "json_schema":
        _check_schema(_loaded(text))
    near = [token for mark in '"{}[],:1' for token in tokenizer.tokenize_str(mark)[-1:]]
    ends = sum(1 << token for token in set(tokenizer.eos_tokens))
    begun, steps = time.process_time(), 0
    for seed in range(_WALKS):
        random, walker = Random(seed), matcher.deep_copy()  # noqa: S311 (any choice will do)
        for _ in range(_STEPS):
            if time.process_time() - begun > _WALK_SECONDS:
                break
            allowed = int.from_bytes(walker.compute_bitmask(), "little") & ~ends  # a bit for each token
            check(walker)
            if walker.is_stopped() or not allowed:
                break
            likely = [token for token in near if allowed >> token & 1]
            walker.consume_token(random.choice(likely) if likely else _any_of(allowed, random))
            check(walker)
            steps += 1
    if (seconds := (time.process_time() - begun) / max(1, steps)) > _STEP_SECONDS:
        raise InvalidGuide(f"it is too complex: it takes {seconds:.2f} s per token")


def _any_of(bits: int, random: Random) -> int:
    """The place of a bit that is set: the first one from somewhere on."""
    start = random.randrange(bits.bit_length())
    rest = bits >> start
    return start + (rest & -rest).bit_length() - 1


def main(path: str, vocab_size: int) -> None:
    """See the module. Ends with its input."""
    from llguidance import LLTokenizer

    tokenizer = LLTokenizer(Path(path).read_text(encoding="utf-8"), n_vocab=vocab_size)
    limit = _private_bytes() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
        try:
            try_out(tokenizer, *json.loads(line))
            answer = ""
        except InvalidGuide as invalid:
            answer = str(invalid)
        except MemoryError:
            sys.exit(NO_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _private_bytes() -> int:
    """What RLIMIT_DATA counts."""
    [size] = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(size) << 10


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
