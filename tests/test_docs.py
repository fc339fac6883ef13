"""Pages that no other test reads: licences, architecture, error codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from frontend.errors import STATUSES
from requirements.licences import LOCKS, document_with_tables, licence, pins

ROOT = Path(__file__).resolve().parent.parent
LICENCES = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MOST_FILES = 20
"""Of the walk."""

_TABLES = re.compile(r"(?<= -->\n).*?(?=<!-- end -->)", re.DOTALL)
COPYLEFT = re.compile(r"[AL]?GPL|MPL|Mozilla|EPL|EUPL|NVIDIA|Proprietary", re.IGNORECASE)


def test_the_licence_is_whole_and_comes_with_the_client() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004\s", text)
    assert re.findall(r"^   (\d)\. [A-Z]", text, re.MULTILINE) == [str(number) for number in range(1, 10)]
    assert "APPENDIX: How to apply the Apache License to your work." in text
    for name in ("LICENSE", "NOTICE"):
        assert (ROOT / name).read_bytes() == (ROOT / "client" / name).read_bytes()
        assert f"\n!{name}\n" in (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for folder in (ROOT, ROOT / "client"):
        project = (folder / "pyproject.toml").read_text(encoding="utf-8")
        assert 'license = "Apache-2.0"\nlicense-files = ["LICENSE", "NOTICE"]\n' in project


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_the_locks_has_its_licence_on_the_page(lock: str) -> None:
    missing = [
        (name, version)
        for name, version in pins(lock)
        if f"\n| {name} | {version} | " not in LICENCES
        and not re.search(rf"[|,] {re.escape(f'{name} {version}')}[, ]", LICENCES)
    ]
    assert not missing, "run make licences"


def test_the_tables_of_licences_are_written_from_what_was_found() -> None:
    page = document_with_tables(LICENCES, {pin: "MIT" for lock in LOCKS for pin in pins(lock)})
    assert re.findall(r"^\| certifi \| \S+ \| (.*) \|$", page, re.MULTILINE) == ["MIT"]
    assert _TABLES.sub("", page) == _TABLES.sub("", LICENCES)


def test_packages_that_ask_for_more_than_a_notice_are_named() -> None:
    table = LICENCES.partition("<!-- serve -->")[2].partition("<!-- end -->")[0]
    found = re.findall(r"^\| (\S+) \| \S+ \| (.*) \|$", table, re.MULTILINE)
    copyleft = {name for name, terms in found if COPYLEFT.search(terms)}
    assert copyleft <= set(re.findall(r"\*\*([\w-]+)\*\*", LICENCES))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"license_expression": "MIT", "license": "other"}, "MIT"),
        ({"license": "MPL-2.0", "classifier": ["License :: OSI Approved :: x"]}, "MPL-2.0"),
        (
            {"license": "Copyright\nall of it", "classifier": ["License :: OSI Approved :: BSD License"]},
            "BSD License",
        ),
        ({}, "not stated"),
    ],
)
def test_a_licence_is_read_from_metadata(metadata: dict[str, object], expected: str) -> None:
    assert licence(metadata) == expected


def test_the_walk_of_the_architecture_page() -> None:
    walk = re.findall(
        r"^(\d+)\. `([^`]+)`: ", ARCHITECTURE.partition("\n## Where to make which change")[0], re.MULTILINE
    )
    called = re.findall(r"^\| `([^`]+\.py)` \|", ARCHITECTURE, re.MULTILINE)
    assert [int(number) for number, _ in walk] == list(range(1, len(walk) + 1))
    files = [file for _, file in walk] + called
    assert len(set(files)) == len(files)
    assert len(walk) <= MOST_FILES
    assert f"{len(files)} of\nour files take part: the {len(walk)} above" in ARCHITECTURE


def test_the_architecture_page_names_what_exists() -> None:
    named = set(re.findall(r"`([a-z_]+/[\w/.]+|Makefile)`", ARCHITECTURE)) - {"1/model.py"}
    assert len(named) > 40
    assert not [name for name in named if not (ROOT / name).exists()]
    # A function or class that a step of the walk names stands in its file.
    for file, words in re.findall(
        r"^\d+\. `([^`]+\.py)`: ((?:.+\n)+?)(?=\d+\. |\n)", ARCHITECTURE, re.MULTILINE
    ):
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`([A-Za-z_.]+)`", words):
            assert re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", source), (file, name)


def test_every_error_code_is_on_the_page_beside_its_status() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \| (.*) \|$", page, re.MULTILINE)
    for code, status in STATUSES.items():
        named = [statuses for statuses, words in rows if f"`{code}`" in words]
        assert [str(status) in statuses for statuses in named] == [True], (code, status, named)
