"""Who gets a slot, who waits, who is refused and for how long: the order of things, and what callers see."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend import admission
from frontend.admission import Admission, Full, Ticket
from frontend.keys import add
from tests.client.fake_triton import PARAMETERS, FakeTriton
from tests.limits import NEVER_S, WAIT_S

from .conftest import Frontend, events, script


def granted(tickets: list[Ticket]) -> list[int]:
    return [at for at, ticket in enumerate(tickets) if ticket.granted is not None]


def test_first_come_first_served() -> None:
    room = Admission(slots=2, queue=10)
    tickets = [room.ask("a") for _ in range(5)]
    assert granted(tickets) == [0, 1]
    tickets[1].release()
    assert granted(tickets) == [0, 1, 2]
    tickets[3].release()  # leaves the queue
    tickets[0].release()
    assert granted(tickets) == [0, 1, 2, 4]
    for ticket in tickets * 2:
        ticket.release()
    assert (room.taken, room.waiting) == (0, 0)


def test_the_place_of_each_that_waits() -> None:
    """In the order in which they will be served, which is not the order in which they came."""
    room = Admission(slots=1, queue=9)
    first = room.ask("a", name="a1")
    for name in ("a2", "a3", "b1"):
        room.ask(name[0], name=name)
    places = {name: room.place(name) for name in ("a1", "a2", "a3", "b1", "none")}
    assert places == {"a1": 0, "b1": 1, "a2": 2, "a3": 3, "none": 0}
    first.release()
    assert (room.place("b1"), room.place("a2")) == (0, 1)


def test_waiting_ends_when_a_slot_comes_free() -> None:
    room = Admission(slots=1, queue=1)
    first, second = room.ask("a"), room.ask("a")
    assert not second.wait(0.01)
    threading.Timer(0.05, first.release).start()
    assert second.wait(WAIT_S)


def test_more_slots_are_given_out_at_once_and_fewer_as_they_come_free() -> None:
    room = Admission(slots=1, queue=9)
    tickets = [room.ask("a") for _ in range(5)]
    room.resize(3)
    assert granted(tickets) == [0, 1, 2]
    room.resize(1)
    for ticket in tickets[:3]:
        ticket.release()
    assert (granted(tickets), room.taken) == ([0, 1, 2, 3], 1)


def test_as_many_slots_as_the_engine_says_it_has(
    fake: FakeTriton, another: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: a GPU profile with 32 slots got the 4 of the CPU engine's setting."""
    frontend: Frontend = another(slots=2)
    monkeypatch.setitem(PARAMETERS, "slots", "7")
    question = {"prompt": script(stepped=True, tokens=1)}
    calls = [threading.Thread(target=frontend.post, args=(question,)) for _ in range(8)]
    for call in calls:
        call.start()
    running = fake.wait_calls(7)
    assert "youtu_slots 7.0" in frontend.send("GET", "/metrics", b"").body.decode()
    assert len(fake.calls) == 7
    for each in running:
        each.step()
    fake.wait_calls(8)[-1].step()
    for call in calls:
        call.join()


def test_a_full_queue_refuses_the_next() -> None:
    room = Admission(slots=1, queue=2)
    tickets = [room.ask("a") for _ in range(3)]
    with pytest.raises(Full) as refused:
        room.ask("a")
    assert refused.value.waiting == 2
    tickets[0].release()
    assert room.ask("a").granted is None


def test_the_flood_of_one_does_not_starve_another() -> None:
    room = Admission(slots=2, queue=8)
    flood = [room.ask("flood") for _ in range(10)]
    quiet = [room.ask("quiet") for _ in range(3)]  # each takes the latest place of the flood
    assert [at for at, ticket in enumerate(flood) if ticket.displaced] == [7, 8, 9]
    with pytest.raises(Full):
        flood[9].wait(0)
    flood[0].release()
    assert granted(quiet) == [0]  # before the six that came before it
    flood[1].release()
    assert granted(flood) == [0, 1, 2]  # each has one now; the flood's next came before quiet's
    flood[2].release()
    assert granted(flood) == [0, 1, 2, 3]
    quiet[0].release()
    assert granted(quiet) == [0, 1]


def test_turns_are_taken_with_one_slot_too() -> None:
    """The fault: nobody holds a slot in the moment it is given away, so the flood came first every time."""
    room = Admission(slots=1, queue=9)
    running = room.ask("flood")
    flood = [room.ask("flood") for _ in range(4)]
    quiet = [room.ask("quiet") for _ in range(2)]
    order = []
    for _ in range(6):
        running.release()
        running = next(ticket for ticket in flood + quiet if ticket.granted and ticket not in order)
        order.append(running)
    assert [ticket.client for ticket in order] == ["quiet", "flood", "quiet", "flood", "flood", "flood"]


def test_places_are_not_taken_to_and_fro() -> None:
    """The fault: two floods that displace one another for ever, and nobody is served."""
    room = Admission(slots=1, queue=4)
    room.ask("x")
    a = [room.ask("a") for _ in range(4)]
    b = [room.ask("b") for _ in range(2)]
    for client in ("a", "b"):
        with pytest.raises(Full):
            room.ask(client)
    assert [ticket.displaced is not None for ticket in a + b] == [False, False, True, True, False, False]


def test_a_request_for_several_slots_waits_for_them_and_is_not_passed_by() -> None:
    room = Admission(slots=3, queue=9)
    small = [room.ask("a") for _ in range(3)]
    wide = room.ask("a", 2)
    after = room.ask("a")
    small[0].release()
    assert (wide.granted, after.granted) == (None, None)
    small[1].release()
    assert wide.granted is not None
    wide.release()
    assert after.granted is not None
    assert room.ask("b", 99).weight == 3


def test_retry_after_follows_the_rate_at_which_slots_come_free(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    room = Admission(slots=2, queue=20)
    for _ in range(30):  # each holds its slot for 6 seconds
        ticket = room.ask("a")
        now[0] += 6
        ticket.release()
    tickets = [room.ask("a") for _ in range(22)]
    with pytest.raises(Full) as refused:
        room.ask("a")
    # Half of 20 and one more, at one slot every 3 seconds.
    assert refused.value.retry_after == 33
    now[0] += 60  # the two that run take ten times as long as usual
    assert room.retry_after() == admission.RETRY_AFTER_MAX_S
    for ticket in tickets:
        ticket.release()
    assert 1 <= Admission(slots=4, queue=4).retry_after() <= 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans()), max_size=60))
@settings(deadline=None)
def test_whatever_comes_and_goes_the_books_balance(steps: list[tuple[str, int, bool]]) -> None:
    room = Admission(slots=3, queue=4)
    tickets: list[Ticket] = []
    for client, weight, leave in steps:
        if leave and tickets:
            tickets.pop(weight % len(tickets)).release()
        else:
            try:
                tickets.append(room.ask(client, weight))
            except Full:
                assert room.waiting == room.queue
        alive = [ticket for ticket in tickets if ticket.displaced is None]
        held = sum(ticket.weight for ticket in alive if ticket.granted is not None)
        waiting = [ticket for ticket in alive if ticket.granted is None]
        assert room.taken == held <= 3
        assert room.waiting == len(waiting) <= 4
        if waiting:  # nobody waits for what is free, but behind a wide one
            assert max(ticket.weight for ticket in waiting) > 3 - held
    for ticket in tickets:
        ticket.release()
    assert (room.taken, room.waiting) == (0, 0)


def test_probes_and_refusals_are_answered_while_all_is_taken(another: Any, fake: FakeTriton) -> None:
    """None of them waits for a slot. `make promises` measures how long they take."""
    frontend: Frontend = another(slots=2, queue=64)
    held = [frontend.connect({"prompt": script(prefill=NEVER_S), "stream": at % 2 == 0}) for at in range(66)]
    frontend.wait_gauges(running=2, waiting=64)
    for _ in range(15):
        for path in ("/health", "/health/ready", "/metrics"):
            assert frontend.get(path).status == 200
        assert frontend.post({"prompt": "q"}).status == 429
    frontend.wait_gauges(running=2, waiting=64)
    for connection in held:
        connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_the_deadline_counts_in_the_queue(another: Any, fake: FakeTriton, stream: bool) -> None:
    """If it reaches the model at all, then with what the wait has left of its time."""
    limit = 3
    frontend: Frontend = another(slots=1, request_timeout=limit)
    with frontend.connect({"prompt": script(prefill=NEVER_S)}):
        fake.wait_calls(1)
        reply = frontend.post({"prompt": script(prefill=NEVER_S), "stream": stream})
    if stream:  # the limit is longer than HEAD_S, after which the status has been sent
        name, said = events(reply.body.decode())[-1]
        assert (name, said["error"]["code"]) == ("error", "deadline_exceeded")
    else:
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
    for call in fake.calls[1:]:
        assert call.time_left is not None
        assert call.time_left < 0.9 * limit


def test_a_place_that_is_lost_while_waiting(another: Any, fake: FakeTriton, tmp_path: Path) -> None:
    """A stream that waits has its status already: it ends with an error event."""
    keys = tmp_path / "keys"
    flood_key, quiet_key = add(keys, "flood"), add(keys, "quiet")
    frontend: Frontend = another(slots=1, queue=2, keys_file=keys)
    flood = f"Authorization: Bearer {flood_key}"
    held = [frontend.connect({"prompt": script(prefill=NEVER_S)}, flood)]
    fake.wait_calls(1)
    for stream in (False, True):
        key = {"Authorization": f"Bearer {flood_key}"}
        lost = frontend.connect(
            {"prompt": script(prefill=NEVER_S), "stream": stream}, flood, "Connection: close"
        )
        held.append(lost)
        until = time.monotonic() + WAIT_S
        while b"youtu_num_requests_waiting %d" % (len(held) - 1) not in frontend.get("/metrics", **key).body:
            assert time.monotonic() < until
            time.sleep(0.05)
    said = held[2].recv(65536)
    assert said.startswith(b"HTTP/1.1 200")
    quiet = frontend.connect({"prompt": "q"}, f"Authorization: Bearer {quiet_key}")
    said += b"".join(iter(lambda: held[2].recv(65536), b""))
    assert b"event: error\ndata: " in said
    assert b'"code":"queue_full"' in said
    for connection in [*held, quiet]:
        connection.close()
