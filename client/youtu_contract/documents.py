"""Writes what follows from the rows into files: `python -m youtu_contract.documents MODEL_REPOSITORY DOCS`.

The inputs and outputs in the config.pbtxt of both Python models, and the tables of docs/contract.md. Tests
compare the files with what this would write.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import CODES
from .rows import TEXT_INPUTS, TEXT_OUTPUTS, TOKEN_INPUTS, TOKEN_OUTPUTS, Tensor

CONTRACTS = {"youtu_llm": (TEXT_INPUTS, TEXT_OUTPUTS), "youtu_engine": (TOKEN_INPUTS, TOKEN_OUTPUTS)}
"""Model -> the rows of its inputs and of its outputs."""

_TENSORS = re.compile(r"^input \[\n.*?^\]\noutput \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)


def config_with_tensors(model: str, text: str) -> str:
    """The config.pbtxt `text` of `model` with the inputs and outputs of its rows."""
    inputs, outputs = CONTRACTS[model]
    written = f"input [\n{_entries(inputs, inputs=True)}]\noutput [\n{_entries(outputs, inputs=False)}]\n"
    return _TENSORS.sub(lambda _: written, text, count=1)


def _entries(rows: Mapping[str, Tensor], *, inputs: bool) -> str:
    lines = []
    for row in rows.values():
        dims = ", ".join(map(str, row.shape))
        kind = "STRING" if row.datatype == "BYTES" else row.datatype
        optional = " optional: true" if inputs and not row.required else ""
        lines.append(f'  {{ name: "{row.name}" data_type: TYPE_{kind} dims: [ {dims} ]{optional} }}')
    return ",\n".join(lines) + "\n"


def document_with_tables(text: str) -> str:
    """docs/contract.md with the tables of the rows between its marks."""
    tables = {
        "text_inputs": _table(TEXT_INPUTS, inputs=True),
        "text_outputs": _table(TEXT_OUTPUTS, inputs=False),
        "token_inputs": _table(TOKEN_INPUTS, inputs=True),
        "token_outputs": _table(TOKEN_OUTPUTS, inputs=False),
        "errors": _codes(),
    }
    return re.sub(
        r"<!-- (\w+) -->\n.*?<!-- end -->",
        lambda found: f"<!-- {found[1]} -->\n{tables[found[1]]}<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def _table(rows: Mapping[str, Tensor], *, inputs: bool) -> str:
    head = ["tensor", "type", *(["range", "default"] if inputs else []), "meaning"]
    lines = [head, ["---"] * len(head)]
    for row in rows.values():
        shape = ", ".join("n" if size < 0 else str(size) for size in row.shape)
        cells = [f"`{row.name}`", f"{row.datatype} [1, {shape}]"]
        if inputs:
            cells += [_range(row), _default(row)]
        lines.append([*cells, row.meaning])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _range(row: Tensor) -> str:
    parts = []
    if row.low is not None or row.high is not None:
        parts.append(f"{'' if row.low is None else row.low} … {'' if row.high is None else row.high}".strip())
    if row.max_values is not None:
        parts.append(f"at most {row.max_values}")
    if row.max_length is not None:
        parts.append(f"of 1 to {row.max_length} characters")
    return ", ".join(parts)


def _default(row: Tensor) -> str:
    if row.default is None or row.default == ():
        return ""
    return "the deployment's" if row.default == "deployment" else str(row.default).lower()


def _codes() -> str:
    lines = ["| code | HTTP | Triton | again? | meaning |\n", "| --- | --- | --- | --- | --- |\n"]
    for name, code in CODES.items():
        again = "no" if code.retry_after_s is None else f"after {code.retry_after_s:g} s"
        lines.append(f"| `{name}` | {code.http} | {code.triton} | {again} | {code.meaning} |\n")
    return "".join(lines)


def main() -> None:
    """Write the files."""
    repository, docs = map(Path, sys.argv[1:])
    for model in CONTRACTS:
        path = repository / model / "config.pbtxt"
        path.write_text(config_with_tensors(model, path.read_text(encoding="utf-8")), encoding="utf-8")
    path = docs / "contract.md"
    path.write_text(document_with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
