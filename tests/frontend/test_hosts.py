"""DNS rebinding: which names of the server are answered without keys, whatever way the name is sent."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from flask.testing import FlaskClient
from youtu_client import Client

from frontend import create_app
from serve.settings import Settings, SettingsError
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply

ROUTES = [("POST", "/chat"), ("GET", "/"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/page/facts")]
ROUTES += [("GET", "/static/chat.js"), ("GET", "/nowhere"), ("DELETE", "/chat"), ("OPTIONS", "/chat")]
ROUTES += [("POST", "/render"), ("GET", "/openapi.json"), ("GET", "/health/x"), ("GET", "/health/../chat")]


def served(fake: FakeTriton, **given: str) -> FlaskClient:
    variables = {f"YOUTU_{name.upper()}": value for name, value in given.items()}
    settings = Settings.load({"YOUTU_GRPC_PORT": str(fake.port)} | variables)
    return create_app(settings, Client(fake.address, timeout=10)).test_client()


def asked(
    app: FlaskClient, host: str, path: str = "/openapi.json", method: str = "GET", **more: Any
) -> Reply:
    reply = app.open(path, method=method, headers={"Host": host}, **more)
    return Reply(reply.status_code, reply.headers, reply.data)


def raw(frontend: Frontend, text: str) -> tuple[int, str]:
    """Status and answer of a request written as it goes over the wire."""
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return int(answer.split()[1]), answer


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_foreign_name_is_refused_on_every_route(
    app: FlaskClient, fake: FakeTriton, method: str, path: str
) -> None:
    """The fault: a page whose name was made to resolve to 127.0.0.1 could use the model and read answers."""
    reply = asked(app, "evil.example:8080", path, method, json={"prompt": "q"})
    assert reply.status == 421
    assert reply.error["code"] == "unknown_host"
    assert "YOUTU_HOSTS" in reply.error["message"]
    assert '"evil.example:8080"' in reply.error["message"]
    assert fake.calls == []


def test_the_origin_of_the_same_name_does_not_help(fake: FakeTriton) -> None:
    app = served(fake, cors_origins="*")
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    preflight = {**headers, "Access-Control-Request-Method": "POST"}
    assert app.options("/chat", headers=preflight).status_code == 421
    assert app.post("/chat", json={"prompt": "q"}, headers=headers).status_code == 421
    assert fake.calls == []


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LOCALHOST",
            "localhost:8080",
            "localhost.",
            "Localhost.:1",
            "chat.localhost",
            "a.b.localhost:80",
        ),
        *("127.0.0.1", "127.8.8.8:8080", "192.0.2.7", "10.0.0.1:80", "[::1]", "[::1]:8080", "[2001:DB8::1]"),
        *("[::ffff:127.0.0.1]:80", "[fe80::1%25eth0]:8080", "0.0.0.0:8080"),
    ],
)
def test_names_of_this_machine_and_addresses_are_answered(app: FlaskClient, host: str) -> None:
    assert asked(app, host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io",
        ),
        *("localhost.localdomain", "127.1", "2130706433", "0x7f.1", "xn--lcalhost-g1a", "1.2.3", "1.2.3.4.5"),
    ],
)
def test_names_that_only_look_like_it_are_not(app: FlaskClient, host: str) -> None:
    assert asked(app, host).status == 421


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost:x",
            "localhost:99999",
            "localhost:80:80",
            "user@localhost",
            "localhost/",
            "http://localhost",
        ),
        *(
            "localhost, evil.example",
            "localhost evil.example",
            "::1",
            "[::1",
            "[::1]evil",
            "[localhost]",
            ".",
        ),
        *(
            ".localhost",
            "localhost..",
            "a..localhost",
            "localhost#",
            "lo\tcalhost",
            "*",
            "*.localhost",
            "löcalhost",
        ),
    ],
)
def test_what_is_no_host_is_refused(app: FlaskClient, host: str) -> None:
    assert asked(app, host).status in (400, 421)


def test_a_long_name_is_shortened(app: FlaskClient) -> None:
    reply = asked(app, "x" * 5000 + ".example")
    assert reply.status == 421
    assert len(reply.error["message"]) < 300


def test_probes_are_exempt(app: FlaskClient) -> None:
    """A load balancer asks under whatever name it has."""
    for path in ("/health", "/health/live", "/health/ready"):
        assert asked(app, "evil.example", path).status == 200


def test_the_configured_host_and_names_of_the_setting(fake: FakeTriton) -> None:
    app = served(fake, host="Box.Example", keys="off", hosts="chat.example, *.team.example,OTHER.example.")
    for host in ("box.example:80", "chat.example", "CHAT.example.", "a.team.example", "a.b.team.example:1"):
        assert asked(app, host).status == 200, host
    assert asked(app, "other.example").status == 200
    for host in ("team.example", "xteam.example", "sub.chat.example", "evil.example", "*.team.example"):
        assert asked(app, host).status in (400, 421), host
    assert asked(served(fake, hosts="*"), "evil.example").status == 200


def test_with_keys_any_name_is_answered(fake: FakeTriton) -> None:
    app = served(fake, api_key="k")
    assert asked(app, "evil.example").status == 401
    reply = app.get("/openapi.json", headers={"Host": "evil.example", "Authorization": "Bearer k"})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "hosts", ["http://chat.example", "chat.example:80", "a b", "*.*", "*x", "a,,b", "a/b"]
)
def test_names_that_are_none(hosts: str) -> None:
    with pytest.raises(SettingsError, match="YOUTU_HOSTS: should be names like") as fault:
        Settings.load({"YOUTU_HOSTS": hosts})
    assert hosts in str(fault.value)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /openapi.json HTTP/1.1\nHost: localhost\n", 200),
        ("GET /openapi.json HTTP/1.1\nHost: evil.example\n", 421),
        ("GET http://localhost/openapi.json HTTP/1.1\nHost: evil.example\n", 421),
        ("GET /openapi.json HTTP/1.1\nHost:\n", 400),
        ("GET /openapi.json HTTP/1.1\n", 400),
        ("GET /openapi.json HTTP/1.1\nHost: localhost\nHost: evil.example\n", None),
        ("GET /openapi.json HTTP/1.1\nHost: evil.example\nHost: localhost\n", None),
        ("GET /openapi.json HTTP/1.1\nHost: evil.example\nX-Forwarded-Host: localhost\n", 421),
        ("GET /openapi.json HTTP/1.1\nHost: evil.example\nForwarded: host=localhost\n", 421),
        ("OPTIONS /chat HTTP/1.1\nHost: evil.example\nOrigin: http://evil.example\n", 421),
        ("GET /openapi.json HTTP/1.0\n", 200),
        ("GET /openapi.json HTTP/1.0\nHost: evil.example\n", 421),
    ],
)
def test_over_the_wire(frontend: Frontend, head: str, status: int | None) -> None:
    """None: refused in some way."""
    found, answer = raw(frontend, f"{head}Connection: close\n\n")
    assert found == status or (status is None and 400 <= found < 500), answer


def test_the_name_in_the_request_line_is_no_way_round(frontend: Frontend) -> None:
    """HTTP puts the name there above the header; where the server drops it, the header has to be good."""
    found, _ = raw(frontend, "GET http://evil.example/openapi.json HTTP/1.1\nHost: evil.example\n\n")
    assert found == 421
