"""What the page is made of: words in both languages, files of its own only, and few bytes of them."""

from __future__ import annotations

import gzip
import re

from flask.testing import FlaskClient

from tests.frontend.conftest import ROOT

STATIC = ROOT / "frontend" / "static"
HTML = (ROOT / "frontend" / "templates" / "index.html").read_text(encoding="utf-8")
MODULES = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")}


def words() -> tuple[dict[str, str], dict[str, str]]:
    """The keys and texts of both languages."""
    english, chinese = (
        dict(re.findall(r'^    (\w+): "(.*)",$', part, re.M))
        for part in re.split(r"^  zh: \{", MODULES["strings.js"], flags=re.M)
    )
    return english, chinese


def test_both_languages_have_every_word() -> None:
    """The fault: a word that exists in one language only shows as `undefined` in the other."""
    english, chinese = words()
    assert list(english) == list(chinese)
    assert all(english.values())
    assert all(chinese.values())
    for key in english:
        places = [set(re.findall(r"\{\w+\}", texts[key], re.ASCII)) for texts in (english, chinese)]
        assert places[0] == places[1], key
    latin = {"other", "topP"}
    assert not [key for key in chinese if key not in latin and not re.search("[\u4e00-\u9fff]", chinese[key])]


def test_every_word_that_is_used_exists_and_the_other_way_round() -> None:
    english, _ = words()
    code = "\n".join(text for name, text in MODULES.items() if name != "strings.js")
    named = set(re.findall(r'data-(?:text|hint|label|title)="(\w+)"', HTML))
    said = set(re.findall(r'\b(?:say|words|showNotice)\("(\w+)"', code))
    assert named | said <= set(english), (named | said) - set(english)
    computed = set(re.findall(r'"(\w+)"', code)) | set(re.findall(r"\b(\w+):", code))
    examples = {f"example_{name}" for name in ("support", "documents", "coding")}
    unused = set(english) - named - computed - examples
    assert not unused


def test_no_script_or_style_stands_in_the_html() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", HTML) == []
    assert "<style" not in HTML
    assert " style=" not in HTML
    assert not re.findall(r"\son\w+=", HTML)
    for name, text in MODULES.items():
        assert "https://" not in text, name
        for space in ("http://www.w3.org/2000/svg", "http://schemas.openxmlformats.org/"):
            text = text.replace(space, "")  # names of XML, which nobody fetches
        assert "http://" not in text, name
        assert ".innerHTML" not in text or name == "blocks.js", name  # what the server rendered


def test_the_first_view_is_small(app: FlaskClient) -> None:
    """Everything that the page loads before it is used: under 80 kB, compressed."""
    reply = app.get("/")
    html = reply.get_data(as_text=True)
    paths = {path for path in re.findall(r'(?:src|href)="([^"#]+)"', html)}
    assert {"static/main.js", "static/strings.js", "static/page.css"} <= paths
    assert not any("bench" in path and path.endswith(".js") for path in paths)
    size = len(gzip.compress(reply.data))
    for path in paths:
        assert not path.startswith("/"), path  # it would miss the path under which a proxy serves the page
        answer = app.get(f"/{path}")
        assert answer.status_code == 200, path
        size += len(gzip.compress(answer.data))
    assert size < 80_000
    everything = sum(len(gzip.compress(path.read_bytes())) for path in STATIC.iterdir())
    assert everything < 100_000


def test_every_import_exists_and_is_preloaded(app: FlaskClient) -> None:
    html = app.get("/").get_data(as_text=True)
    for name, text in MODULES.items():
        for imported in re.findall(r'from "\./([\w.]+)"', text):
            assert imported in MODULES, f"{name} imports {imported}"
            assert imported.startswith("bench") or f"static/{imported}" in html


def test_the_page_looks_up_no_host_of_a_link(app: FlaskClient) -> None:
    """The fault: browsers ask for the addresses of all links of a page before anybody clicks."""
    reply = app.get("/")
    assert reply.headers["X-DNS-Prefetch-Control"] == "off"
    policy = reply.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
