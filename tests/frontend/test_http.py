"""HTTP as it is spoken on the wire: framing, keep-alive, half-open connections, headers that pretend."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

import pytest

from frontend.environ import environ
from frontend.framing import FREE_CHUNKS, HEAD_BYTES
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply, script
from .crowd import exchange, rest

CLOSE = b"Host: localhost\r\nConnection: close\r\n"
CHAT = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GOOD = b'{"prompt": "q"}'
LENGTH = b"Content-Length: %d\r\n\r\n" % len(GOOD)


def parts(answer: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of a single answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def live(connection: socket.socket) -> None:
    """Ask on a connection that is kept."""
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    response = http.client.HTTPResponse(connection)
    response.begin()
    assert (response.status, response.read()) == (200, b'{"status":"live"}\n')


def refusal(answer: bytes, status: int) -> dict[str, Any]:
    """The error of an answer that is nothing else, and says that the connection is closed."""
    got, head, body = parts(answer)
    assert got == status, answer
    assert b"connection: close" in head.lower()
    return Reply(status, None, body).error


def test_two_requests_on_a_connection(frontend: Frontend) -> None:
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        for _ in range(2):
            live(connection)


def test_pipelined_requests_are_answered_in_their_order(frontend: Frontend) -> None:
    sent = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" + CHAT + LENGTH + GOOD
    answer = exchange(frontend.port, sent + b"GET /nowhere HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


def test_an_idle_connection_is_closed_after_keep_alive(another: Any) -> None:
    frontend: Frontend = another(keep_alive=1)
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as used:
        live(used)
        with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as unused:
            assert rest(unused) == b""
        assert rest(used) == b""


@pytest.mark.slow
def test_an_idle_connection_outlives_a_load_balancers(frontend: Frontend) -> None:
    """The fault: 20 s, when most load balancers keep theirs for 60 and meet the end of ours."""
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        live(connection)
        time.sleep(22)
        live(connection)


def test_head_and_options(frontend: Frontend) -> None:
    status, head, body = parts(exchange(frontend.port, b"HEAD /health/live HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert (status, body) == (200, b"")
    assert b"content-length: " in head.lower()
    status, head, _ = parts(exchange(frontend.port, b"OPTIONS /health HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert status == 200
    assert b"allow: " in head.lower()
    assert parts(exchange(frontend.port, b"OPTIONS * HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 404


def test_http_1_0(frontend: Frontend) -> None:
    status, head, body = parts(exchange(frontend.port, b"GET /health/live HTTP/1.0\r\n\r\n"))
    assert (status, json.loads(body)) == (200, {"status": "live"})
    body = json.dumps({"prompt": "q", "stream": True}).encode()
    sent = b"POST /chat HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    status, head, body = parts(exchange(frontend.port, sent))
    assert status == 200
    assert b"transfer-encoding" not in head.lower()
    assert b"event: done" in body


def test_a_body_that_waits_to_be_asked_for(frontend: Frontend, fake: FakeTriton) -> None:
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        connection.sendall(CHAT + b"Connection: close\r\nExpect: 100-continue\r\n" + LENGTH)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(GOOD)
        assert rest(connection).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        connection.sendall(CHAT + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert "99999999" in refusal(rest(connection), 413)["message"]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 12345678901234567890123\r\n", 400),
        (b"Content-Length: 9999999999999999999\r\n", 413),
        (b"Content-Length: -5\r\n", 400),
        (b"Content-Length: +5\r\n", 400),
        (b"Content-Length: 0x5\r\n", 400),
        (b"Content-Length: 5, 6\r\n", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 400),
        (b"Transfer-Encoding: chunked, chunked\r\n", 400),
        (b"Content-Length : 5\r\n", 400),
    ],
)
def test_a_length_that_makes_no_sense(frontend: Frontend, lines: bytes, status: int) -> None:
    """The fault: 23 digits held the connection for five seconds."""
    assert refusal(exchange(frontend.port, CHAT + lines + b"\r\n"), status)


def test_transfer_encoding_in_http_1_0(frontend: Frontend) -> None:
    sent = b"POST /chat HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert refusal(exchange(frontend.port, sent), 400)["code"] == "not_http"


@pytest.mark.parametrize("chunked", [False, True])
def test_one_who_goes_on_sending_reads_why_it_was_refused(frontend: Frontend, chunked: bool) -> None:
    """The fault to avoid: closed while the caller still sends, the connection is reset, answer and all."""
    size = 8 * 2**20
    if chunked:
        sent = (
            CHAT + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
        )
    else:
        sent = CHAT + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        connection.sendall(sent)
        assert refusal(rest(connection), 413)["code"] == "body_too_large"


def test_an_endless_body_is_refused_while_it_comes(frontend: Frontend) -> None:
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=60) as connection:
        connection.sendall(CHAT + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except OSError:
            pass
    assert frontend.get("/health/live").status == 200


def test_a_body_of_crumbs(frontend: Frontend) -> None:
    """The fault to avoid: each chunk costs time in the event loop, which all connections share."""
    few = CHAT + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    few += b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"
    assert parts(exchange(frontend.port, few))[0] == 200
    many = CHAT + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * (FREE_CHUNKS + 99)
    assert refusal(exchange(frontend.port, many), 400)["code"] == "chunks_too_small"


def test_heads_that_are_too_large(frontend: Frontend) -> None:
    get = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
    assert refusal(
        exchange(frontend.port, b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414
    )
    assert refusal(exchange(frontend.port, b"GET /" + b"x" * HEAD_BYTES), 414)
    assert refusal(exchange(frontend.port, get + b"X: " + b"y" * HEAD_BYTES), 431)
    assert refusal(exchange(frontend.port, get + b"X: y\r\n" * 101 + b"\r\n"), 431)
    assert refusal(exchange(frontend.port, get + b"X: y\r\n" * 100_000 + b"\r\n"), 431)
    kept = get + CLOSE.partition(b"\r\n")[2] + b"X: y\r\n" * 98 + b"\r\n"
    assert parts(exchange(frontend.port, kept))[0] == 200
    assert refusal(
        exchange(
            frontend.port, get + b"".join(b"X%d: " % n + b"y" * 8000 + b"\r\n" for n in range(5)) + b"\r\n"
        ),
        431,
    )


def test_a_body_that_ends_early(frontend: Frontend, fake: FakeTriton) -> None:
    for framing in (b"Content-Length: 50\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"):
        assert refusal(exchange(frontend.port, CHAT + framing, close=True), 400)["code"] == "body_cut_off"
    assert fake.calls == []


def test_a_half_closed_connection_is_answered(frontend: Frontend) -> None:
    """Only who waits for the model counts as gone."""
    get = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(20):
        answer = exchange(frontend.port, get + get, close=True)
        assert answer.count(b"HTTP/1.1 200") == 2


def test_headers_that_imitate_the_server(frontend: Frontend) -> None:
    """The fault: `SCRIPT_NAME: /health` moved the routes."""
    assert frontend.get("/health/live", SCRIPT_NAME="/health").status == 200
    assert frontend.get("/live", SCRIPT_NAME="/health").status == 404
    assert frontend.get("/nowhere", PATH_INFO="/health/live").status == 404
    sent = b"GET /health/live HTTP/1.1\r\nX_Request_ID: imitated\r\n" + CLOSE + b"\r\n"
    assert b"imitated" not in exchange(frontend.port, sent)


def test_headers_of_a_proxy_change_nothing(frontend: Frontend) -> None:
    """The fault: these two together were a 400, for every request."""
    assert (
        frontend.get("/health/live", **{"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"}).status == 200
    )
    headers = {"X-Forwarded-For": "192.0.2.9", "X-Forwarded-Prefix": "/health", "X-Forwarded-Host": "x"}
    assert frontend.get("/health/live", **headers).status == 200
    assert frontend.get("/live", **headers).status == 404


def test_an_upgrade_is_not_made_and_leaving_still_noticed(frontend: Frontend, fake: FakeTriton) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with frontend.connect({"prompt": "q"}, *upgrade) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    fake.calls.clear()
    connection = frontend.connect({"prompt": script(unending=True, delay=0.05)}, *upgrade)
    call = fake.wait_calls(1)[0]
    connection.close()
    call.wait_cancelled()


def test_bytes_behind_a_request_are_no_leaving(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: pipelined bytes counted as leaving, and the first request was given up."""
    for behind in (b"GET /health/live HTTP/1.1\r\n", b"x" * 3 * HEAD_BYTES):
        with frontend.connect({"prompt": script(tokens=5, delay=0.1)}) as connection:
            fake.wait_calls(1)
            connection.sendall(behind)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        fake.calls.clear()


def test_half_closing_while_the_model_works_is_leaving(frontend: Frontend, fake: FakeTriton) -> None:
    for stream in (False, True):
        with frontend.connect({"prompt": script(unending=True, delay=0.05), "stream": stream}) as connection:
            call = fake.wait_calls(1)[0]
            connection.shutdown(socket.SHUT_WR)
            call.wait_cancelled()
        fake.calls.clear()


def test_every_piece_goes_out_at_once(frontend: Frontend, fake: FakeTriton) -> None:
    """Each is there before the model has made the next."""
    body = {"prompt": script(pieces=["a", "b"], delay=2), "stream": True}
    with frontend.connect(body, "Connection: close") as connection:
        got = b""
        while b'"a"' not in got:
            got += connection.recv(65536)
        assert b'"b"' not in got
        assert b'"b"' in rest(connection)


def test_the_environ() -> None:
    """As PEP 3333 wants it: bytes as latin-1, a name that stands twice joined, none with an underscore."""
    scope: Any = {
        "method": "GET", "http_version": "1.1", "server": ("127.0.0.1", 8080), "client": ("192.0.2.1", 5),
        "raw_path": b"/a%2Fb/%C3%BC", "query_string": b"c=%20d",
        "headers": [
            (b"host", b"x"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-a", b"1"), (b"x-a", b"\xfc"),
            (b"content-type", b"text/plain"), (b"script_name", b"/y"), (b"content-length", b"2"),
        ],
    }  # fmt: skip
    proxied: Any = scope | {"raw_path": b"http://x/health?q"}
    found = environ(scope, b"hi")
    assert found["PATH_INFO"] == "/a/b/Ã¼"
    assert (found["QUERY_STRING"], found["SCRIPT_NAME"]) == ("c=%20d", "")
    assert (found["HTTP_COOKIE"], found["HTTP_X_A"]) == ("a=1; b=2", "1,ü")
    assert (found["CONTENT_TYPE"], found["CONTENT_LENGTH"]) == ("text/plain", "2")
    assert (found["REMOTE_ADDR"], found["SERVER_PORT"]) == ("192.0.2.1", "8080")
    assert found["wsgi.input"].read() == b"hi"
    assert "HTTP_SCRIPT_NAME" not in found
    assert environ(proxied, b"")["PATH_INFO"] == "/health"


def test_the_name_of_the_library_is_not_sent(frontend: Frontend) -> None:
    assert "Server" not in frontend.get("/health/live").headers


def test_nobody_waits_for_a_connection_that_is_not_closed(frontend: Frontend) -> None:
    held = [frontend.connect({"prompt": "q"}, "Connection: close") for _ in range(30)]
    for connection in held:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    started = time.monotonic()
    assert frontend.get("/health/live").status == 200
    assert time.monotonic() - started < 10
    for connection in held:
        connection.close()
