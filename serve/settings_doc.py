"""docs/settings.md, written from the settings object (`make settings-doc`); a test compares them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, get_args

from serve.setting_sources import CONFIG_FILE, CONFIG_VARIABLE, PREFIX
from serve.settings import Settings

HEAD = f"""\
# Settings

Each is an environment variable, or a key (the lower-case name) of `{CONFIG_FILE}` in the working directory;
`{CONFIG_VARIABLE}` names another file. The environment wins. A name that is not in this table and a value out
of its range stop the start. `make serve {PREFIX}PORT=9000` works too.

| variable | key | default | values | meaning |
|---|---|---|---|---|
"""


def _limits(metadata: Iterable[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    parts = []
    for entry in metadata:
        parts += [f"{sign} {getattr(entry, name):,}" for name, sign in signs.items() if hasattr(entry, name)]
    return ", ".join(parts)


def table() -> str:
    """The whole page, as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        choices = [f"`{choice}`" for choice in get_args(field.annotation) if isinstance(choice, str)]
        default = "none" if field.default is None else f"`{field.default}`"
        values = " ".join(choices) or _limits(field.metadata)
        rows.append(f"| `{PREFIX}{name.upper()}` | `{name}` | {default} | {values} | {field.description} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(table())
