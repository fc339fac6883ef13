"""The sync client against the fake, over real gRPC."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator
from typing import Any

import pytest
from youtu_client import (
    Busy,
    Cancelled,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    EngineStalled,
    InvalidRequest,
    NotReady,
    Probed,
    ServerError,
    Stream,
    Token,
    YoutuError,
    stream,
)
from youtu_client.servers import OPTIONS

from serve.addresses import free_ports
from tests.client.fake_triton import PARAMETERS, FakeTriton
from tests.limits import NEVER_S, START_S, WAIT_S

UNENDING = 'fake:{"unending": true, "delay": 0.01}'
SILENT = f'fake:{{"prefill": {NEVER_S}}}'


def test_pieces_come_in_order_and_one_by_one(client: Client, fake: FakeTriton) -> None:
    """Each is there before the next one is made."""
    with client.stream('fake:{"tokens": 5, "stepped": true}') as stream:
        (call,) = fake.wait_calls(1)
        for at in range(5):
            call.step()
            assert next(stream).text == f"t{at} "
        assert list(stream) == []
    assert stream.done
    assert stream.answer.text == "t0 t1 t2 t3 t4 "


def test_usage_timings_and_finish_reason(client: Client) -> None:
    began = time.monotonic()
    answer = client.chat('fake:{"tokens": 11, "delay": 0.01, "prefill": 0.05, "cached": 3}', request_id="r1")
    elapsed = time.monotonic() - began
    assert answer.finish_reason == "stop"
    assert (answer.usage.completion_tokens, answer.usage.cached_tokens) == (11, 3)
    assert answer.usage.prompt_tokens > 0
    assert answer.request_id == "r1"
    assert answer.log_probs is None
    timings = answer.timings
    assert timings.ttft >= 0.05
    assert timings.ttft + 0.1 <= timings.total <= elapsed
    span = (timings.last_token_ns - timings.first_token_ns) / 1e9
    assert timings.tokens_per_second == pytest.approx(10 / span)
    assert client.chat('fake:{"tokens": 9}', max_tokens=4).finish_reason == "length"


def test_no_tokens_no_speed(client: Client) -> None:
    answer = client.chat('fake:{"pieces": []}')
    assert answer.text == ""
    assert (answer.timings.ttft, answer.timings.total, answer.timings.tokens_per_second) == (0, 0, 0)


def test_log_probs_come_with_each_piece_and_with_the_whole(client: Client) -> None:
    stream = client.stream('fake:{"tokens": 3}', return_log_probs=True)
    assert [piece.log_probs for piece in stream] == [(-0.5,), (-0.5,), (-0.5,)]
    assert stream.answer.log_probs == (-0.5, -0.5, -0.5)


def test_text_of_any_kind_survives(client: Client) -> None:
    text = '"quotes"\n\ttabs 你好 👩‍👩‍👧‍👦 \x00 é'
    assert client.complete(text).text == "You said: " + text


def test_a_chat_asks_for_one_response_a_stream_for_many(client: Client, fake: FakeTriton) -> None:
    client.chat("x")
    list(client.stream("x"))
    assert [call.inputs["stream"] for call in fake.calls] == [False, True]


def test_long_answers_fit(client: Client) -> None:
    assert len(client.complete("x" * 6_000_000).text) > 6_000_000


@pytest.mark.parametrize(
    ("script", "error", "retryable"),
    [
        ('"queue_full": true', Busy, True),
        ('"not_ready": true', NotReady, True),
        ('"fail_at": 0, "fail_code": "NOT_FOUND"', NotReady, True),
        ('"fail_at": 0, "fail_code": "UNAVAILABLE", "fail_message": "the engine restarts"', NotReady, True),
        (
            '"fail_at": 0, "fail_code": "UNAVAILABLE", "fail_message": "Exceeds maximum queue size"',
            Busy,
            True,
        ),
        ('"fail_at": 0, "fail_code": "UNAVAILABLE", "fail_message": "Socket closed"', ConnectionFailed, True),
        (
            '"fail_at": 1, "fail_code": "INVALID_ARGUMENT", "fail_message": "top_p is 7"',
            InvalidRequest,
            False,
        ),
        ('"fail_at": 1, "fail_code": "INTERNAL"', ServerError, False),
        ('"fail_at": 1, "fail_code": "UNKNOWN"', ServerError, False),
        ('"fail_at": 1, "fail_code": "UNIMPLEMENTED"', ServerError, False),
        ('"fail_at": 1, "fail_code": "CANCELLED"', Cancelled, False),
        ('"fail_at": 1, "fail_code": "DEADLINE_EXCEEDED"', DeadlineExceeded, False),
        ('"fail_at": 0, "fail_code": "RESOURCE_EXHAUSTED"', Busy, True),
        ('"no_end": true', ServerError, False),
    ],
)
def test_each_failure_is_its_own_error(
    client: Client, script: str, error: type[YoutuError], retryable: bool
) -> None:
    with pytest.raises(YoutuError) as caught:
        client.chat("fake:{" + script + "}")
    assert type(caught.value) is error
    assert caught.value.retryable is retryable
    if '"fail_message": "top_p is 7"' in script:
        assert str(caught.value) == "top_p is 7"


def test_a_model_that_is_not_there_is_not_ready(fake: FakeTriton) -> None:
    """Triton 2.51 refuses unknown models and tensors without a status, whatever metadata it was sent."""
    client = Client(fake.address, model="other")
    with pytest.raises(NotReady, match="unknown model: 'other'"):
        client.chat("x")
    with pytest.raises(NotReady):
        client.model_info()
    assert not client.ready()
    assert client.live()


def test_a_stream_that_breaks_keeps_what_came_and_raises(client: Client) -> None:
    stream = client.stream('fake:{"tokens": 9, "fail_at": 2, "fail_message": "out of luck"}')
    assert [next(stream).text, next(stream).text] == ["t0 ", "t1 "]
    with pytest.raises(ServerError, match="failed: out of luck"):
        next(stream)
    assert stream.done
    assert list(stream) == []
    with pytest.raises(ServerError):
        _ = stream.answer


def test_an_answer_before_the_end_is_a_mistake_of_the_caller(client: Client) -> None:
    with client.stream('fake:{"tokens": 2}') as stream, pytest.raises(RuntimeError):
        _ = stream.answer


def test_a_server_that_nobody_runs(fake: FakeTriton) -> None:
    client = Client(f"127.0.0.1:{free_ports(1)[0]}")
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="no connection to 127"):
        client.chat("x")
    assert not client.live()
    assert not client.ready()
    with pytest.raises(ConnectionFailed):
        client.model_info()
    assert time.monotonic() - began < WAIT_S


def test_a_server_that_dies_mid_stream(client: Client, fake: FakeTriton) -> None:
    stream = client.stream(UNENDING)
    next(stream)
    fake.stop()
    with pytest.raises(ConnectionFailed):
        list(stream)


def test_a_server_that_comes_back_is_found(client: Client, fake: FakeTriton) -> None:
    client.chat("x")
    fake.stop()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        with pytest.raises(ConnectionFailed):
            client.chat("x")
        time.sleep(0.1)
    fake.start()
    began = time.monotonic()
    while True:
        try:
            client.chat("x")
            break
        except ConnectionFailed:
            assert time.monotonic() - began < WAIT_S
            time.sleep(0.05)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    fake: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC sends even loopback through $http_proxy."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert Client(fake.address).chat("x").text == "You said: x"


@pytest.mark.parametrize("servers", ["", "localhost", "http://localhost:8001", "a:b", [], ["a:1", "b"]])
def test_an_address_that_is_none(servers: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"server|address"):
        Client(servers)


def test_model_info(client: Client) -> None:
    info = client.model_info()
    assert (info.id, info.demo, info.context, info.slots, info.queue) == ("youtu-demo", True, 2048, 4, 64)
    assert info.description.startswith("A fake")
    assert info.defaults == {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}


def test_a_probe_tells_what_keeps_text_from_coming(client: Client, fake: FakeTriton) -> None:
    assert client.probe() == Probed(0.0, None)
    fake.device_memory = [1, 2]
    assert client.probe() == Probed(0.0, (1, 2))
    fake.stalled = True
    with pytest.raises(EngineStalled, match=r"no progress for 16\.0 s"):
        client.probe()
    assert not client.ready()
    fake.stalled, fake.ready = False, False
    with pytest.raises(NotReady) as refused:
        client.probe()
    assert not isinstance(refused.value, EngineStalled)
    assert fake.calls == []


def test_ready_follows_the_server(client: Client, fake: FakeTriton) -> None:
    assert client.ready()
    fake.ready = False
    assert not client.ready()
    assert client.live()
    fake.live = False
    assert not client.live()


# Leaving. What counts is that the server learns of it; `make promises` measures how soon.


@pytest.mark.parametrize("prompt", [UNENDING, SILENT], ids=["mid-stream", "silent prefill"])
@pytest.mark.parametrize("way", ["close", "with", "drop", "error", "generator"])
def test_leaving_cancels_the_call(client: Client, fake: FakeTriton, prompt: str, way: str) -> None:
    stream = client.stream(prompt)
    (call,) = fake.wait_calls(1)
    if prompt == UNENDING:
        next(stream)
    if way == "close":
        stream.close()
    elif way == "with":
        with stream:
            pass
    elif way == "drop":
        del stream
        gc.collect()
    elif way == "error":
        with pytest.raises(ZeroDivisionError), stream:
            _ = 1 / 0
    else:

        def pieces() -> Generator[str, None, None]:
            with client.stream(prompt) as inner:
                yield "first"
                yield from (piece.text for piece in inner)

        stream.close()
        generator = pieces()
        next(generator)
        call = fake.wait_calls(2)[1]
        generator.close()
    call.wait_cancelled()


def test_break_out_of_a_bare_loop_cancels(client: Client, fake: FakeTriton) -> None:
    for _ in client.stream(UNENDING):
        break
    fake.calls[0].wait_cancelled()


def test_close_from_another_thread_wakes_the_reader(client: Client, fake: FakeTriton) -> None:
    stream = client.stream(SILENT)
    fake.wait_calls(1)
    threading.Timer(0.1, stream.close).start()
    with pytest.raises(Cancelled, match="closed before its end"):
        next(stream)
    with pytest.raises(Cancelled):
        next(stream)
    with pytest.raises(Cancelled):
        _ = stream.answer
    fake.calls[0].wait_cancelled()


def test_a_whole_answer_is_not_cancelled_after_its_end(client: Client, fake: FakeTriton) -> None:
    with client.stream("x") as stream:
        list(stream)
    stream.close()
    assert fake.calls[0].over.wait(WAIT_S)
    assert fake.calls[0].cancelled is None
    assert stream.answer.text == "You said: x"


def test_closing_the_client_ends_its_streams(fake: FakeTriton) -> None:
    client = Client(fake.address)
    stream = client.stream(SILENT)
    fake.wait_calls(1)
    client.close()
    with pytest.raises(Cancelled):
        next(stream)


@pytest.mark.parametrize("prompt", [UNENDING, SILENT], ids=["mid-stream", "silent prefill"])
def test_deadline(client: Client, fake: FakeTriton, prompt: str) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="timeout"):
        list(client.stream(prompt, timeout=0.3))
    assert 0.25 < time.monotonic() - began < WAIT_S
    fake.calls[0].wait_cancelled()


def test_the_client_s_own_timeout_is_the_default(fake: FakeTriton) -> None:
    with pytest.raises(DeadlineExceeded):
        Client(fake.address, timeout=0.2).chat(SILENT)


# Polling.


def test_poll_waits_a_bounded_time(client: Client, fake: FakeTriton) -> None:
    stream = client.stream('fake:{"tokens": 3, "stepped": true}')
    began = time.monotonic()
    assert stream.poll(0.05) is None
    assert 0.04 < time.monotonic() - began < WAIT_S
    assert stream.poll(0) is None
    fake.wait_calls(1)[0].step(3)
    texts = []
    while not stream.done:
        piece = stream.poll(0.03)
        if piece is not None:
            texts.append(piece.text)
    assert texts == ["t0 ", "t1 ", "t2 "]
    assert stream.poll(1) is None
    assert stream.answer.usage.completion_tokens == 3


def test_poll_and_iteration_may_be_mixed(client: Client) -> None:
    stream = client.stream('fake:{"tokens": 4}')
    first = next(stream)
    second = stream.poll(WAIT_S)
    assert [first.text, second and second.text, *(piece.text for piece in stream)] == [
        "t0 ",
        "t1 ",
        "t2 ",
        "t3 ",
    ]


def test_poll_raises_what_went_wrong(client: Client) -> None:
    stream = client.stream('fake:{"queue_full": true}')
    with pytest.raises(Busy):
        stream.poll(WAIT_S)
    assert stream.done


@pytest.mark.parametrize("where", ["at its start", "in its midst"])
def test_a_reading_thread_that_dies_does_not_keep_the_reader_waiting(
    client: Client, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The fault: without memory for the thread the caller waited until the deadline."""

    def die(_call: Any, _box: Any, reading: Any) -> None:
        if where == "in its midst":
            reading.begun = reading.ended = True

    monkeypatch.setattr(stream, "_read", die)
    monkeypatch.setattr(stream, "BEGIN_S", 0.2)
    with client.stream(SILENT) as waiting:

        def poll_for_long() -> None:
            until = time.monotonic() + WAIT_S
            while time.monotonic() < until:
                waiting.poll(0.05)

        with pytest.raises(RuntimeError, match="has died"):
            poll_for_long()


def test_the_reading_thread_ends_with_the_stream(
    client: Client, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    ended: list[object] = []
    read = stream._read

    def counted(*arguments: Any) -> None:
        begun.append(1)
        read(*arguments)
        ended.append(1)

    def readers() -> int:
        return len(begun) - len(ended)

    monkeypatch.setattr(stream, "_read", counted)
    list(client.stream("x"))
    assert begun == []
    closed, dropped = client.stream(SILENT), client.stream(SILENT)
    assert closed.poll(0.01) is None
    assert dropped.poll(0.01) is None
    fake.wait_calls(3)
    until = time.monotonic() + WAIT_S
    while len(begun) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert readers() == 2
    closed.close()
    del dropped
    for call in fake.calls[-2:]:
        call.wait_cancelled()
    until = time.monotonic() + WAIT_S
    while readers():
        assert time.monotonic() < until
        time.sleep(0.01)


def read_out(stream: Stream, way: str) -> None:
    if way == "iterate":
        list(stream)
    while not stream.done:
        stream.poll(WAIT_S)


@pytest.mark.parametrize("way", ["iterate", "poll"])
@pytest.mark.parametrize(
    "fault", ['"queue_full": true', '"fail_at": 1, "fail_code": "INTERNAL"', '"no_end": true']
)
def test_a_failed_stream_lets_go_of_its_call(client: Client, fault: str, way: str) -> None:
    """Kept by a traceback, gRPC would take it down when the interpreter ends, and wait for a lock there."""
    gc.disable()
    try:
        failing = client.stream("fake:{" + fault + "}")
        call = weakref.ref(failing._call)
        with pytest.raises(YoutuError) as caught:
            read_out(failing, way)
        del failing
        until = time.monotonic() + WAIT_S
        while call() is not None:  # the reading thread ends a little later
            assert time.monotonic() < until
            time.sleep(0.01)
        assert isinstance(caught.value, YoutuError)
    finally:
        gc.enable()


# Several servers.


def test_requests_take_turns(fake: FakeTriton) -> None:
    with FakeTriton() as other:
        client = Client([fake.address, other.address])
        for _ in range(10):
            client.chat("x")
        assert (len(fake.calls), len(other.calls)) == (5, 5)


@pytest.mark.parametrize("way", ["iterate", "poll"])
@pytest.mark.parametrize("fault", ["nobody", "not ready"])
def test_a_server_that_is_away_is_passed_over(
    fake: FakeTriton, fault: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("youtu_client.servers.DOWN_SECONDS", NEVER_S)
    with FakeTriton() as other:
        other.ready = False
        away = f"127.0.0.1:{free_ports(1)[0]}" if fault == "nobody" else other.address
        client = Client(f"{away},{fake.address}")
        for _ in range(6):
            stream = client.stream("x")
            while way == "poll" and not stream.done:
                stream.poll(1)
            list(stream)
            assert stream.answer.text == "You said: x"
        assert client.ready()
        assert client.live()
        assert client.model_info().id == "youtu-demo"
        # It was asked once, and then not again until DOWN_SECONDS are over.
        assert len(other.calls) == (1 if fault == "not ready" else 0)
    assert len(fake.calls) == 6


def test_busy_is_not_carried_to_another_server(fake: FakeTriton) -> None:
    with FakeTriton() as other:
        other.queue_full = True
        client = Client([other.address, fake.address])
        with pytest.raises(Busy):
            client.chat("x")
    assert not fake.calls


def test_nothing_is_asked_twice_once_a_piece_was_delivered(fake: FakeTriton) -> None:
    with FakeTriton() as other:
        client = Client([fake.address, other.address])
        stream = client.stream(UNENDING)
        next(stream)
        fake.stop()
        with pytest.raises(ConnectionFailed):
            list(stream)
        assert not other.calls


def test_all_servers_away(fake: FakeTriton) -> None:
    client = Client([f"127.0.0.1:{free_ports(1)[0]}", f"127.0.0.1:{free_ports(1)[0]}"])
    with pytest.raises(ConnectionFailed):
        client.chat("x")


def test_a_lost_server_is_tried_again_every_two_seconds() -> None:
    """Left alone, gRPC waits ever longer, up to two minutes, before it looks for a restarted server."""
    assert dict(OPTIONS)["grpc.max_reconnect_backoff_ms"] <= 2_000


def test_pings_are_rarer_than_triton_resents() -> None:
    """Pings a minute apart: Triton 2.51 hung up (too_many_pings) on a call after 240 s of silent prefill."""
    assert dict(OPTIONS)["grpc.keepalive_time_ms"] > 300_000


# Threads and processes.


def test_sixty_four_streams_at_once(client: Client, fake: FakeTriton) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        pieces = [f"{number}-{at} " for at in range(20)]
        script = 'fake:{"delay": 0.01, "pieces": ' + str(pieces).replace("'", '"') + "}"
        results[number] = "".join(piece.text for piece in client.stream(script))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert results == {n: "".join(f"{n}-{at} " for at in range(20)) for n in range(64)}
    assert len({call.id for call in fake.calls}) == 64


FORK = """
import os, sys
from youtu_client import Client
client = Client(sys.argv[1])
if sys.argv[2] == "used":
    client.chat("parent")
child = os.fork()
if child == 0:
    try:
        print(client.chat("child").text, flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("used", "says"), [("fresh", "You said: child"), ("used", "one per process")])
def test_a_client_and_a_fork(fake: FakeTriton, used: str, says: str) -> None:
    """A channel that was used hangs in a forked child: say so instead; an unused client works."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, fake.address, used],
        env={**os.environ, "PYTHONPATH": "client", "GRPC_VERBOSITY": "NONE"},
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert says in done.stdout, done.stderr


def test_tokens_come_with_their_piece_and_with_the_whole(client: Client) -> None:
    stream = client.stream('fake:{"pieces": ["a", "好"]}', return_log_probs=True, top_log_probs=2)
    a = Token(b"a", -0.5, ((b"a", -0.5), (b"<other 1>", -1.5)))
    good = Token("好".encode(), -0.5, (("好".encode(), -0.5), (b"<other 1>", -1.5)))
    assert [piece.tokens for piece in stream] == [(a,), (good,)]
    assert stream.answer.tokens == (a, good)
    plain = client.chat('fake:{"pieces": ["a", "好"]}', return_log_probs=True)
    assert plain.tokens == (Token(b"a", -0.5), Token("好".encode(), -0.5))
    assert client.chat("hello").tokens is None


@pytest.mark.parametrize("prompt", ["a好", [97, 0x597D]])
def test_the_prompt_comes_back_on_request_sent_as_text_or_as_token_ids(client: Client, prompt: Any) -> None:
    answer = client.complete(
        prompt, return_log_probs=True, return_prompt_log_probs=True, top_log_probs=2, max_tokens=1
    )
    assert answer.prompt_tokens is not None
    first, second = answer.prompt_tokens
    assert (first.data, math.isnan(first.log_prob), first.top) == (b"a", True, ())
    assert second == Token("好".encode(), -0.5, (("好".encode(), -0.5), (b"<other 1>", -1.5)))
    with client.stream_complete(prompt, return_log_probs=True, return_prompt_log_probs=True) as stream:
        assert "".join(piece.text for piece in stream) == "You said: a好"
    assert [token.data for token in stream.answer.prompt_tokens or ()] == [b"a", "好".encode()]
    assert client.complete(prompt, return_log_probs=True).prompt_tokens is None


def test_a_stream_says_that_it_starts_in_thinking_with_its_first_piece(client: Client) -> None:
    stream = client.stream('fake:{"tokens": 3, "thinking": true}')
    assert not stream.starts_in_thinking
    next(stream)
    assert stream.starts_in_thinking
    assert [*stream][-1].text == "t2 "
    assert stream.answer.starts_in_thinking
    assert not client.chat("hello").starts_in_thinking
    assert client.chat('fake:{"thinking": true}').starts_in_thinking


def test_the_capabilities_of_the_engine_are_listed_and_old_servers_have_none(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = client.model_info()
    assert (info.guided_decoding, info.top_log_probs, info.prompt_log_probs) == (True, 20, True)
    for name in ("guided_decoding", "top_log_probs", "prompt_log_probs"):
        monkeypatch.delitem(PARAMETERS, name)
    info = client.model_info()
    assert (info.guided_decoding, info.top_log_probs, info.prompt_log_probs) == (False, 0, False)


def test_a_refused_call_is_read_to_its_end(client: Client, fake: FakeTriton) -> None:
    """Triton 2.51 waits for ever for some calls that are cancelled between a refusal and their end."""
    for ask in (
        lambda: client.chat("x", temperature=-1),
        lambda: list(client.stream("x", temperature=-1)),
        lambda: client.stream("x", temperature=-1).poll(WAIT_S),
    ):
        with pytest.raises(InvalidRequest):
            ask()
        call = fake.calls[-1]
        assert call.over.wait(WAIT_S)
        assert call.cancelled is None
