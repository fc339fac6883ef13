"""Write the tables of docs/licences.md (`make licences`): what the lock files pin, and under which licences.

Each licence is what the package's own metadata say, which pip reads without installing it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "licences.md"
LOCKS = (
    "serve",
    "openvino",
    "bench",
    "test",
    "frameworks",
    "frameworks-openai-2",
    "peers",
    "quality",
    "torch-cuda",
    "cuda",
)
"""Each but the first is listed without what stands in one before it. torch-cpu.lock is a build of torch."""

Pin = tuple[str, str]
"""Name and version of a package."""

_PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)", re.MULTILINE)
_TABLE = re.compile(r"<!-- ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def pins(lock: str) -> list[Pin]:
    """The packages of a lock, for all its versions of Python."""
    return _PIN.findall((HERE / f"{lock}.lock").read_text(encoding="utf-8"))


def licence(metadata: Mapping[str, Any]) -> str:
    """The licence that `metadata` (of pip's report) name: SPDX expression, short field or classifiers."""
    if expression := metadata.get("license_expression"):
        return str(expression)
    text = str(metadata.get("license", "")).strip()
    if text and len(text) <= 60 and "\n" not in text:
        return text
    classifiers = [name for name in metadata.get("classifier", ()) if name.startswith("License ::")]
    return ", ".join(name.rpartition(" :: ")[2] for name in classifiers) or "not stated"


def licences() -> dict[Pin, str]:
    """The licence of each pin of all locks, from the package index that pip is configured with."""
    found: dict[Pin, str] = {}
    for lock in LOCKS:
        found |= _reported((HERE / f"{lock}.lock").read_text(encoding="utf-8"))
    names = {name: text for (name, _), text in found.items()}
    pinned = [pin for lock in LOCKS for pin in pins(lock)]
    # What only other versions of Python need.
    rest = {name: version for name, version in pinned if name not in names}
    found |= _reported("".join(f"{name}=={version}\n" for name, version in rest.items()))
    names |= {name: text for (name, _), text in found.items()}
    return {pin: found.get(pin, names[pin[0]]) for pin in pinned}


def _reported(requirements: str) -> dict[Pin, str]:
    """What pip says of those of `requirements` that this Python would install."""
    with tempfile.TemporaryDirectory() as scratch:
        given, report = Path(scratch, "requirements.txt"), Path(scratch, "report.json")
        given.write_text(requirements, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
        command += ["--only-binary", ":all:", "--quiet", "--quiet", "--report", str(report), "-r", str(given)]
        subprocess.run(command, check=True)
        packages = [each["metadata"] for each in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {
        (re.sub(r"[-_.]+", "-", each["name"]).lower(), each["version"]): licence(each) for each in packages
    }


def document_with_tables(text: str, found: Mapping[Pin, str]) -> str:
    """docs/licences.md with the tables of all locks between its marks."""
    tables = {"serve": _table(pins("serve"), found)}
    listed = set(pins("serve"))
    for lock in LOCKS[1:]:
        new = [pin for pin in pins(lock) if pin not in listed]
        listed.update(new)
        tables[lock] = _short(new, found)
    return _TABLE.sub(lambda mark: f"<!-- {mark[1]} -->\n{tables[mark[1]]}<!-- end -->", text)


def _table(packages: Collection[Pin], found: Mapping[Pin, str]) -> str:
    rows = [f"| {name} | {version} | {found[name, version]} |\n" for name, version in packages]
    return "".join(["| package | version | licence |\n", "| --- | --- | --- |\n", *rows])


def _short(packages: Collection[Pin], found: Mapping[Pin, str]) -> str:
    names: defaultdict[str, list[str]] = defaultdict(list)
    for pin in packages:
        names[found[pin]].append(" ".join(pin))
    rows = [f"| {licence} | {', '.join(names[licence])} |\n" for licence in sorted(names)]
    return "".join(["| licence | packages |\n", "| --- | --- |\n", *rows])


def main() -> None:
    page = document_with_tables(PAGE.read_text(encoding="utf-8"), licences())
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
