"""Keys, rates and origins: who may ask, how often, and from which pages."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from youtu_client import Client

from frontend import create_app
from frontend.keys import Keys, KeysError, add
from serve.settings import Settings, SettingsError
from tests.client.fake_triton import FakeTriton

from .conftest import ROOT, Frontend, script, start_in_vain

OPEN = {"/page/facts", "/", "/health", "/health/live", "/health/ready", "/static/<path:filename>"}
OPEN |= {"/ping"}  # a probe under another name


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def client(fake: FakeTriton, **given: object) -> FlaskClient:
    variables = {f"YOUTU_{name.upper()}": str(value) for name, value in given.items()}
    settings = Settings.load({"YOUTU_GRPC_PORT": str(fake.port)} | variables)
    return create_app(settings, Client(fake.address, timeout=10)).test_client()


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file in the place of the one that may be there."""
    fresh = path.with_name("fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(mode)
    return fresh.rename(path)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    return written(path, f"# ours\n\nshop  {hashed('s3cret')}\nbot\t{hashed('schlüssel')}\n")


def test_every_route_but_probes_and_page_asks_for_a_key(fake: FakeTriton, keys_file: Path) -> None:
    app = client(fake, keys_file=keys_file)
    rules = list(app.application.url_map.iter_rules())
    asked = [rule for rule in rules if rule.rule not in OPEN]
    assert len(asked) >= 6
    attempts = 0
    for rule in asked:
        path = rule.rule.replace("<path:model>", "x")
        for method in (rule.methods or set()) - {"OPTIONS"}:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
                attempts += 1  # Wrong keys of one address are limited.
                caller = {"REMOTE_ADDR": f"192.0.2.{attempts}"}
                reply = app.open(path, method=method, headers=headers, environ_base=caller)
                assert reply.status_code == 401, (method, path)
    for path in OPEN - {"/static/<path:filename>"}:
        assert app.get(path).status_code == 200
    assert fake.calls == []


@pytest.mark.parametrize(("key", "name"), [("s3cret", "shop"), ("schlüssel", "bot"), ("k", "api_key")])
def test_each_key_opens_and_is_named_in_the_log(
    another: Any, fake: FakeTriton, keys_file: Path, key: str, name: str
) -> None:
    frontend: Frontend = another(keys_file=keys_file, api_key="k")
    header = f"Bearer {key}".encode().decode("latin-1")
    reply = frontend.post({"prompt": "q"}, **{"Authorization": header, "X-Request-ID": "one"})
    assert reply.status == 200
    assert frontend.line("one")["key"] == name
    log = frontend.log.read_text()
    assert "s3cret" not in log
    assert "schl" not in log


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "contains no key"),
        ("# x", "contains no key"),
        ("shop", "line 1 .* 1 parts, not 2"),
        ("# x\nshop s3cret", "line 2 .* sha256:"),
        (f"shop {hashed('x')}0", "line 1 .* 65 digits"),
        (f"shop {hashed('x')[:-1]}g", "line 1 .* not hex digits"),
        (f"a {hashed('x')}\na {hashed('y')}", "duplicate name `a`"),
        (f"ä {hashed('x')}", "line 1"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path / "keys", text)
    with pytest.raises(KeysError, match=words) as fault:
        Keys.of(Settings(keys_file=path))
    assert "s3cret" not in str(fault.value)


def test_a_missing_file_stops_the_start(another: Any, tmp_path: Path) -> None:
    frontend = Frontend(1, tmp_path / "log", keys_file=tmp_path / "none")
    assert "keys_file" in start_in_vain(frontend)


def test_making_a_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys"
    for name in ("a", "b"):
        done = subprocess.run(
            [sys.executable, "-m", "frontend.keys", path, name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
            capture_output=True,
            text=True,
        )
        key = done.stdout.strip()
        assert (done.returncode, done.stderr) == (0, "")
        assert len(key) >= 40
        assert key not in path.read_text()
        assert Keys.of(Settings(keys_file=path)).owner(key.encode()) == name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeysError, match="already"):
        add(path, "a")
    with pytest.raises(KeysError, match="letters"):
        add(path, "a b")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_host_that_others_reach_wants_keys(host: str, keys_file: Path) -> None:
    with pytest.raises(SettingsError, match="YOUTU_KEYS=off"):
        Settings.load({"YOUTU_HOST": host})
    for way in ({"YOUTU_API_KEY": "k"}, {"YOUTU_KEYS_FILE": str(keys_file)}, {"YOUTU_KEYS": "off"}):
        assert Settings.load({"YOUTU_HOST": host, **way}).host == host
    for here in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert Settings.load({"YOUTU_HOST": here}).host == here


def test_off_and_a_key_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="YOUTU_KEYS is off") as fault:
        Settings.load({"YOUTU_KEYS": "off", "YOUTU_API_KEY": "hidden"})
    assert "hidden" not in str(fault.value)


def test_a_key_has_its_rate(fake: FakeTriton, keys_file: Path) -> None:
    app = client(fake, keys_file=keys_file, api_key="k", rate_limit="2/minute")

    def ask(key: str) -> Any:
        return app.post("/chat", json={"prompt": "q"}, headers={"Authorization": f"Bearer {key}"})

    assert [ask("s3cret").status_code for _ in range(2)] == [200, 200]
    over = ask("s3cret")
    assert over.status_code == 429
    assert (over.json["error"]["code"], over.json["error"]["type"]) == ("rate_limited", "rate_limit_error")
    assert "2 per 1 minute" in over.json["error"]["message"]
    assert 1 <= int(over.headers["Retry-After"]) <= 60
    assert ask("k").status_code == 200  # another key, another account
    for path in ("/health", "/openapi.json", "/metrics", "/v1/models"):
        headers = {"Authorization": "Bearer s3cret"}
        assert [app.get(path, headers=headers).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("rate", ["fast", "60", "-1/minute"])
def test_a_rate_that_is_none(rate: str) -> None:
    with pytest.raises(SettingsError, match="60/minute"):
        Settings.load({"YOUTU_RATE_LIMIT": rate})


def test_pages_of_other_origins(fake: FakeTriton) -> None:
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    closed = client(fake)
    for reply in (closed.options("/chat", headers=asking), closed.get("/v1/models", headers=asking)):
        assert not [name for name, _ in reply.headers if name.startswith("Access-Control")]
    opened = client(fake, cors_origins="https://shop.example, https://b.example", api_key="k")
    reply = opened.options("/chat", headers=asking | {"Access-Control-Request-Headers": "authorization"})
    assert reply.status_code == 200
    assert reply.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "authorization" in reply.headers["Access-Control-Allow-Headers"].lower()
    assert reply.headers["Vary"]
    told = opened.post("/chat", json={"prompt": "q"}, headers=asking)
    assert told.status_code == 401  # a browser may read why
    assert told.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Retry-After" in told.headers["Access-Control-Expose-Headers"]
    other = opened.get("/health", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    with pytest.raises(SettingsError, match="origins"):
        Settings.load({"YOUTU_CORS_ORIGINS": "shop.example"})


def test_several_floods_and_one_who_is_quiet(another: Any, fake: FakeTriton, keys_file: Path) -> None:
    """Two keys on one slot: the second is served next, however many the first has waiting."""
    frontend: Frontend = another(keys_file=keys_file, slots=1, queue=8)
    long = {"prompt": script(tokens=1, prefill=0.4)}
    shop, bot = "Authorization: Bearer s3cret", "Authorization: Bearer schlüssel".encode().decode("latin-1")
    flood = [frontend.connect(long, shop, "Connection: close") for _ in range(9)]
    fake.wait_calls(1)
    with frontend.connect({"prompt": "quiet"}, bot, "Connection: close") as quiet:
        assert b"You said: quiet" in b"".join(iter(lambda: quiet.recv(65536), b""))
    assert fake.calls[1].inputs["messages"][-1]["content"] == "quiet"
    for connection in flood:
        connection.close()


def test_all_routes_that_generate_share_one_rate(fake: FakeTriton) -> None:
    """The fault: each route counted by itself, so three routes gave three times the rate."""
    app = client(fake, api_key="k", rate_limit="3/hour")
    messages = [{"role": "user", "content": "q"}]

    def ask(path: str, body: dict[str, Any]) -> Any:
        return app.post(path, json=body, headers={"Authorization": "Bearer k"})

    assert ask("/chat", {"prompt": "q"}).status_code == 200
    assert ask("/v1/chat/completions", {"messages": messages}).status_code == 200
    assert ask("/v1/completions", {"prompt": "q", "stream": True}).status_code == 200
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "q"},
        "/chat": {"prompt": "q", "stream": True},
        "/v1/chat/completions": {"messages": messages},
    }
    for path, body in bodies.items():
        assert ask(path, body).status_code == 429, path
    assert len(fake.calls) == 3


def test_a_request_that_is_refused_counts_and_one_without_a_key_does_not(fake: FakeTriton) -> None:
    app = client(fake, api_key="k", rate_limit="2/hour")
    for _ in range(5):
        assert app.post("/chat", json={"prompt": "q"}).status_code == 401
    key = {"Authorization": "Bearer k"}
    assert app.post("/chat", json={}, headers=key).status_code == 400
    assert app.post("/chat", json={"prompt": "q"}, headers=key).status_code == 200
    assert app.post("/chat", json={"prompt": "q"}, headers=key).status_code == 429


def test_retry_after_stands_where_it_belongs(fake: FakeTriton) -> None:
    """The fault: it was sent with every 200 when a rate was set, and a 503 said the rate's minute."""
    app = client(fake, rate_limit="10/minute")

    def ask(**body: Any) -> Any:
        return app.post("/chat", json=body)

    good = ask(prompt="q")
    assert good.status_code == 200
    assert "Retry-After" not in good.headers
    assert (good.headers["X-RateLimit-Limit"], good.headers["X-RateLimit-Remaining"]) == ("10", "9")
    stream = ask(prompt="q", stream=True)
    assert (stream.status_code, "Retry-After" in stream.headers) == (200, False)
    bad = ask()
    assert (bad.status_code, "Retry-After" in bad.headers) == (400, False)
    fake.ready = False
    assert ask(prompt=script(not_ready=True)).headers["Retry-After"] == "2"
    fake.ready = True
    assert int(ask(prompt=script(queue_full=True)).headers["Retry-After"]) < 10
    assert "X-RateLimit-Limit" not in app.get("/health").headers
