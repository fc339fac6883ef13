"""Several servers: who is asked, where a conversation returns to, who takes over when one dies or hangs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from youtu_client import Client, ConnectionFailed, EngineStalled, Stream
from youtu_client.balancing import Balancer
from youtu_client.core import MOST_LOST
from youtu_client.health import EVERY_S, Health
from youtu_client.servers import Server

from serve.addresses import free_ports
from tests.client.fake_triton import FakeTriton
from tests.limits import WAIT_S

UNENDING = 'fake:{"unending": true, "delay": 0.02}'
SOON_S = 2.0
"""Within which a death is noticed."""


@pytest.fixture
def fakes() -> Iterator[list[FakeTriton]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeTriton()) for _ in range(3)]


@contextlib.contextmanager
def watched(
    client: Client, hang_timeout: float, *servers: str, changed: Callable[[], None] = lambda: None
) -> Iterator[Health]:
    health = Health(client, servers or [server.address for server in client.servers], hang_timeout, changed)
    health.start()
    try:
        yield health
    finally:
        health.close()


def client_of(fakes: list[FakeTriton], *, affinity: bool = False) -> Client:
    return Client([fake.address for fake in fakes], timeout=WAIT_S, affinity=affinity)


def read_by_polls(stream: Stream) -> str:
    while not stream.done:
        stream.poll(0.1)
    return stream.answer.text


def eventually(holds: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def asked(fakes: list[FakeTriton]) -> list[int]:
    return [len(fake.calls) for fake in fakes]


def servers_with(*running: int) -> list[Server]:
    """Servers that have so many requests each."""
    made = [Server(f"192.0.2.{at}:8001", lambda *_: None) for at in range(len(running))]
    for server, count in zip(made, running, strict=True):
        for _ in range(count):
            server.begin(held := object())
            _HELD.append(held)
    return made


_HELD: list[object] = []  # else a later object could have the id of an earlier one


def test_the_server_with_the_fewest_requests_is_next(fakes: list[FakeTriton]) -> None:
    client = client_of(fakes)
    streams = [client.stream(UNENDING) for _ in range(3)]
    for stream in streams:
        next(stream)
    assert asked(fakes) == [1, 1, 1]
    streams[1].close()  # in whichever order they were asked, this one's server has none now
    idle = next(server for server in client.servers if server.running == 0)
    for _ in range(4):
        client.chat("x")
    assert asked(fakes)[client.servers.index(idle)] == 5
    for stream in streams:
        stream.close()
    assert [server.running for server in client.servers] == [0, 0, 0]


@pytest.mark.parametrize("end", ["read", "closed", "dropped", "failed"])
def test_a_stream_that_is_over_counts_no_more(fakes: list[FakeTriton], end: str) -> None:
    client = client_of(fakes[:1])
    stream: Stream | None = client.stream(
        'fake:{"fail_at": 1, "pieces": ["a", "b"]}' if end == "failed" else "x"
    )
    assert stream is not None
    assert client.servers[0].running == 1
    if end == "closed":
        stream.close()
    elif end == "dropped":
        stream = None
    else:
        with contextlib.suppress(Exception):
            list(stream)
    assert client.servers[0].running == 0


def conversation(name: str, turns: int) -> list[dict[str, str]]:
    said = [{"role": "system", "content": "You help."}, {"role": "user", "content": f"I am {name}."}]
    for turn in range(turns):
        said += [{"role": "assistant", "content": f"{turn}"}, {"role": "user", "content": f"Go on {turn}."}]
    return said


def test_a_conversation_returns_to_the_server_that_has_its_beginning(fakes: list[FakeTriton]) -> None:
    client = client_of(fakes, affinity=True)
    for name in range(20):
        before = asked(fakes)
        for turn in range(3):
            client.chat(conversation(str(name), turn))
        grown = sorted(now - then for now, then in zip(asked(fakes), before, strict=True))
        assert grown == [0, 0, 3], "one conversation went to several servers"
    assert min(asked(fakes)) > 0, "all conversations went to one server"
    client.chat("I am a question.")
    client.chat([{"role": "user", "content": "I am a question."}, {"role": "assistant", "content": "?"}])
    client.complete("Once upon a time" * 20)
    client.complete("Once upon a time" * 21)
    by_server = [[str(call.inputs)[:30] for call in fake.calls[-4:]] for fake in fakes]
    assert sum("Once" in call for calls in by_server for call in calls) == 2
    assert max(sum("Once" in call for call in calls) for calls in by_server) == 2


def test_a_busy_home_is_passed_over_and_conversations_of_a_lost_server_alone_move() -> None:
    beginnings = [f"{at}".encode() for at in range(300)]
    idle = servers_with(0, 0, 0)
    homes = {beginning: Balancer(idle).order(beginning)[0] for beginning in beginnings}
    counts = [list(homes.values()).count(server) for server in idle]
    assert min(counts) > 60
    assert max(counts) < 140
    lost, *left = idle
    for beginning, home in homes.items():
        now = Balancer(left).order(beginning)[0]
        assert now is home or home is lost

    # 9 run; no server may have more than ceil(1.25 * 10 / 3) = 5.
    loaded = servers_with(5, 4, 0)
    firsts = {Balancer(loaded).order(beginning)[0] for beginning in beginnings}
    assert firsts == set(loaded[1:])
    # Each has 4 slots: where one has a free slot, none is sent to a full one.
    balancer = Balancer(loaded)
    balancer.slots = 4
    assert {balancer.order(beginning)[0] for beginning in beginnings} == {loaded[2]}
    for order in (balancer.order(beginning) for beginning in beginnings):
        assert sorted(order, key=id) == sorted(loaded, key=id), "a server was left out or named twice"


@pytest.mark.parametrize("way", ["iterate", "poll"])
def test_a_request_without_a_token_moves_when_its_server_dies(fakes: list[FakeTriton], way: str) -> None:
    client = client_of(fakes)
    for fake in fakes:
        fake.silent_from = 0
    stream = client.stream("x")
    eventually(lambda: sum(asked(fakes)) == 1)
    first = next(fake for fake in fakes if fake.calls)
    for fake in fakes:
        fake.silent_from = None if fake is not first else 0
    first.stop()
    text = read_by_polls(stream) if way == "poll" else "".join(piece.text for piece in stream)
    assert text == "You said: x"
    assert (sum(asked(fakes)), stream.moved) == (2, 1)
    assert sum(server.running for server in client.servers) == 0


def test_a_request_without_a_token_moves_when_its_server_hangs(fakes: list[FakeTriton]) -> None:
    client = client_of(fakes[:2])
    fakes[0].silent_from = fakes[1].silent_from = 0
    stream = client.stream("x")
    eventually(lambda: sum(asked(fakes)) == 1)
    hanging, other = sorted(fakes[:2], key=lambda fake: -len(fake.calls))
    other.silent_from = None
    with hanging.holding_probes(), watched(client, 3.0):
        assert read_by_polls(stream) == "You said: x"
    # The call that hung was given up: it is not answered a second time.
    hanging.calls[0].wait_cancelled()
    assert asked([hanging, other]) == [1, 1]


def test_a_request_that_ends_every_server_is_given_up_before_all_are_gone() -> None:
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(FakeTriton()) for _ in range(5)]
        nobody = [f"127.0.0.1:{port}" for port in free_ports(4)]
        client = Client([*nobody, *(fake.address for fake in many)], timeout=WAIT_S)
        for fake in many:
            fake.silent_from = 0

        def end_each_that_is_asked() -> None:
            for _ in range(MOST_LOST + 1):
                eventually(lambda: sum(asked(many)) > sum(not one.live for one in many))
                mine = next(one for one in many if one.calls and one.live)
                mine.live = False
                mine.stop()

        threading.Thread(target=end_each_that_is_asked, daemon=True).start()
        with pytest.raises(ConnectionFailed):
            client.chat("x")
        assert sum(asked(many)) == MOST_LOST + 1, "servers that were never reached do not count"


@pytest.mark.parametrize("fault", ["hangs", "says that it hangs", "dies"])
def test_a_request_with_a_token_ends_with_an_error_to_retry(fakes: list[FakeTriton], fault: str) -> None:
    client = client_of(fakes)
    stream = client.stream('fake:{"tokens": 9, "stepped": true}')
    eventually(lambda: sum(asked(fakes)) == 1)
    mine = next(fake for fake in fakes if fake.calls)
    mine.calls[0].step()
    assert stream.poll(WAIT_S) is not None
    with contextlib.ExitStack() as stack:
        if fault == "hangs":
            stack.enter_context(mine.holding_probes())
        elif fault == "dies":
            mine.stop()
        mine.stalled = fault == "says that it hangs"
        stack.enter_context(watched(client, 3.0))
        with pytest.raises(ConnectionFailed if fault == "dies" else EngineStalled) as caught:
            read_by_polls(stream)
    assert caught.value.retryable
    assert sum(asked(fakes)) == 1, "it was asked twice, after a part of the answer had been delivered"


def test_a_server_that_answers_slowly_does_not_hang(fakes: list[FakeTriton]) -> None:
    """0 switches it off, and one question that is late is not enough."""
    client = client_of(fakes[:2])
    for hang_timeout in (0.0, 60.0):
        with fakes[0].holding_probes(), watched(client, hang_timeout):
            eventually(lambda: client.servers[0].down)  # it is asked last meanwhile
            assert not client.servers[0].hung
        eventually(lambda: not client.servers[0].down)


def test_a_server_that_may_hang_is_asked_last_until_it_answers(fakes: list[FakeTriton]) -> None:
    """The fault: with the second question it counted as working again, for two seconds."""
    client = client_of(fakes[:2])
    server = client.servers[0]
    with watched(client, 8.0):
        with fakes[0].holding_probes():
            eventually(lambda: server.down)
            while not server.hung:
                assert server.down
                time.sleep(0.01)
        eventually(lambda: not server.down)


def test_a_death_is_noticed_without_a_request_and_so_is_a_return(fakes: list[FakeTriton]) -> None:
    assert EVERY_S < SOON_S
    client = client_of(fakes[:2])
    with watched(client, 15.0):
        assert client.working == 2
        fakes[0].stop()
        eventually(lambda: client.servers[0].down)
        assert client.working == 1
        for _ in range(4):
            client.chat("x")
        assert asked(fakes[:2]) == [0, 4]
        fakes[0].start()
        eventually(lambda: client.working == 2)


def test_a_name_with_several_addresses_is_several_servers(
    fakes: list[FakeTriton], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a headless service: pods come and go, and what runs on one that leaves the name goes on."""
    port = fakes[0].port
    there = ["127.0.0.1"]

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "tritons.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in there]

    monkeypatch.setattr("youtu_client.health.socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("youtu_client.health.LOOK_UP_S", 0.05)
    name = f"tritons.example:{port}"
    client = Client(name, timeout=WAIT_S)
    changes: list[int] = []
    with watched(client, 15.0, name, changed=lambda: changes.append(len(client.servers))):
        assert [server.address for server in client.servers] == [f"127.0.0.1:{port}"]
        stream = client.stream(UNENDING)
        next(stream)
        there[:] = ["192.0.2.7", "192.0.2.8"]
        eventually(lambda: len(client.servers) == 2)
        assert [server.address for server in client.servers] == [f"192.0.2.7:{port}", f"192.0.2.8:{port}"]
        assert next(stream).text
        stream.close()
        there[:] = ["127.0.0.1", "192.0.2.8"]
        eventually(lambda: f"127.0.0.1:{port}" in [server.address for server in client.servers])
        assert client.chat("x").text == "You said: x"
        there[:] = ["127.0.0.1"]
        eventually(lambda: changes[-1:] == [1])
