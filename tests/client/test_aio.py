"""The asyncio client against the fake: the same behaviour as the sync one."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from youtu_client import (
    AsyncClient,
    Busy,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    EngineStalled,
    InvalidRequest,
    NotReady,
    ServerError,
    Token,
    YoutuError,
)

from serve.addresses import free_ports
from tests.client.fake_triton import Call, FakeTriton
from tests.client.test_client import SILENT, UNENDING
from tests.limits import START_S, WAIT_S

Scene = Callable[[AsyncClient], Coroutine[Any, Any, None]]


def play(address: str | list[str], scene: Scene, **settings: Any) -> None:
    """Run a scene with a client, and fail on whatever asyncio would only log."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with AsyncClient(address, **settings) as client:
            await scene(client)
        gc.collect()

    asyncio.run(asyncio.wait_for(main(), START_S))
    assert not complaints


async def cancelled(call: Call) -> None:
    await asyncio.to_thread(call.wait_cancelled)


def test_answers_streams_and_facts(fake: FakeTriton) -> None:
    async def scene(client: AsyncClient) -> None:
        answer = await client.chat("hello", request_id="r", return_log_probs=True)
        assert (answer.text, answer.request_id, answer.log_probs) == ("You said: hello", "r", (-0.5,) * 3)
        assert (await client.complete("raw")).text == "You said: raw"
        async with client.stream('fake:{"tokens": 3, "delay": 0.01}') as stream:
            assert [piece.text async for piece in stream] == ["t0 ", "t1 ", "t2 "]
        assert stream.done
        assert stream.answer.usage.completion_tokens == 3
        assert [piece.text async for piece in client.stream_complete("a b")] == ["You", " said:", " a", " b"]
        thinks = client.stream('fake:{"tokens": 2, "thinking": true}', return_log_probs=True, top_log_probs=1)
        assert not thinks.starts_in_thinking
        first = await anext(thinks)
        assert thinks.starts_in_thinking
        assert first.tokens == (Token(b"t0 ", -0.5, ((b"t0 ", -0.5),)),)
        thinks.close()
        assert await client.live()
        assert await client.ready()
        assert (await client.model_info()).id == "youtu-demo"
        fake.stalled = True
        with pytest.raises(EngineStalled):
            await client.probe()
        assert not await client.ready()
        fake.stalled, fake.ready = False, False
        assert not await client.ready()

    play(fake.address, scene)
    assert fake.calls[1].inputs["text_input"] == "raw"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ('"queue_full": true', Busy),
        ('"not_ready": true', NotReady),
        ('"fail_at": 1, "fail_code": "INVALID_ARGUMENT"', InvalidRequest),
        ('"fail_at": 1', ServerError),
        ('"fail_at": 1, "fail_code": "CANCELLED"', Cancelled),
        ('"no_end": true', ServerError),
    ],
)
def test_each_failure_is_its_own_error(fake: FakeTriton, script: str, error: type[YoutuError]) -> None:
    async def scene(client: AsyncClient) -> None:
        with pytest.raises(YoutuError) as caught:
            await client.chat("fake:{" + script + "}")
        assert type(caught.value) is error
        stream = client.stream("fake:{" + script + "}")
        with pytest.raises(error):
            await _poll_out(stream)
        with pytest.raises(error):
            _ = stream.answer

    play(fake.address, scene)


def test_bad_arguments_are_refused_before_sending(fake: FakeTriton) -> None:
    async def scene(client: AsyncClient) -> None:
        with pytest.raises(InvalidRequest, match="seed: must be from 0 to"):
            await client.chat("x", seed=-1)
        with pytest.raises(InvalidRequest, match="timeout"):
            client.stream("x", timeout=-1)

    play(fake.address, scene)
    assert not fake.calls


@pytest.mark.parametrize("prompt", [UNENDING, SILENT], ids=["mid-stream", "silent prefill"])
@pytest.mark.parametrize("way", ["close", "with", "drop", "task", "timeout", "drop while polling"])
def test_leaving_cancels_the_call(fake: FakeTriton, prompt: str, way: str) -> None:
    async def scene(client: AsyncClient) -> None:
        stream = client.stream(prompt)
        if prompt == UNENDING:
            await anext(stream)
        else:
            assert await stream.poll(0.1) is None
        (call,) = await asyncio.to_thread(fake.wait_calls, 1)
        if way == "close":
            stream.close()
            with pytest.raises(Cancelled):
                await anext(stream)
        elif way == "with":
            async with stream:
                pass
        elif way == "drop":
            del stream
            gc.collect()
        elif way == "drop while polling":
            while await stream.poll(0) is not None:
                pass
            del stream
        elif way == "task":

            async def read() -> None:
                async for _ in stream:
                    pass

            task = asyncio.create_task(read())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_exhaust(stream), 0.05)
        await cancelled(call)

    play(fake.address, scene)


async def _poll_out(stream: Any) -> None:
    while not stream.done:
        await stream.poll(1)


async def _exhaust(stream: Any) -> None:
    async for _ in stream:
        pass


def test_close_wakes_another_task_that_reads(fake: FakeTriton) -> None:
    async def scene(client: AsyncClient) -> None:
        stream = client.stream(SILENT)
        task = asyncio.create_task(_exhaust(stream))
        await asyncio.sleep(0.05)
        stream.close()
        with pytest.raises(Cancelled):
            await task

    play(fake.address, scene)


def test_closing_the_client_ends_its_streams_with_an_error_and_not_with_a_cancelled_task(
    fake: FakeTriton,
) -> None:
    async def scene(client: AsyncClient) -> None:
        task = asyncio.create_task(_exhaust(client.stream(SILENT)))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(Cancelled):
            await task

    play(fake.address, scene)


def test_poll_waits_a_bounded_time_and_loses_nothing(fake: FakeTriton) -> None:
    async def scene(client: AsyncClient) -> None:
        stream = client.stream('fake:{"tokens": 3, "stepped": true}')
        assert await stream.poll(0.02) is None
        (call,) = await asyncio.to_thread(fake.wait_calls, 1)
        for at in range(3):
            began = time.monotonic()
            assert await stream.poll(0.02) is None
            assert 0.01 < time.monotonic() - began < WAIT_S
            assert await stream.poll(0) is None
            call.step()
            piece = await stream.poll(WAIT_S)
            assert piece is not None
            assert piece.text == f"t{at} "
        await _poll_out(stream)
        assert stream.answer.text == "t0 t1 t2 "

    play(fake.address, scene)


def test_a_stream_dropped_after_its_server_died_leaves_no_complaint(fake: FakeTriton) -> None:
    """asyncio logs "exception was never retrieved" for a pending read that nobody looked at."""

    async def scene(client: AsyncClient) -> None:
        stream = client.stream(SILENT)
        assert await stream.poll(0.1) is None
        await asyncio.to_thread(fake.stop)
        await asyncio.sleep(0.1)
        del stream

    play(fake.address, scene)


@pytest.mark.parametrize(
    "fault", ['"queue_full": true', '"fail_at": 1, "fail_code": "INTERNAL"', '"no_end": true']
)
def test_a_failed_stream_lets_go_of_its_call(fake: FakeTriton, fault: str) -> None:
    async def scene(client: AsyncClient) -> None:
        stream = client.stream("fake:{" + fault + "}")
        call = weakref.ref(stream._call)
        with pytest.raises(YoutuError) as caught:
            await _exhaust(stream)
        del stream
        until = time.monotonic() + WAIT_S
        while call() is not None:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert isinstance(caught.value, YoutuError)

    gc.disable()
    try:
        play(fake.address, scene)
    finally:
        gc.enable()


def test_requests_take_turns(fake: FakeTriton) -> None:
    with FakeTriton() as other:

        async def scene(client: AsyncClient) -> None:
            for _ in range(4):
                await client.chat("x")

        play([fake.address, other.address], scene)
        assert (len(fake.calls), len(other.calls)) == (2, 2)


def test_deadline(fake: FakeTriton) -> None:
    async def scene(client: AsyncClient) -> None:
        for prompt in (UNENDING, SILENT):
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await client.chat(prompt, timeout=0.3)
            assert 0.25 < time.monotonic() - began < WAIT_S
            await cancelled(fake.calls[-1])

    play(fake.address, scene)


def test_a_server_that_is_away_is_passed_over(fake: FakeTriton) -> None:
    with FakeTriton() as other:
        other.ready = False

        async def scene(client: AsyncClient) -> None:
            for _ in range(6):
                assert (await client.chat("x")).text == "You said: x"
            assert await client.ready()
            assert (await client.model_info()).id == "youtu-demo"

        play([f"127.0.0.1:{free_ports(1)[0]}", other.address, fake.address], scene)
    assert len(fake.calls) == 6


def test_nothing_is_asked_twice_once_a_piece_was_delivered(fake: FakeTriton) -> None:
    with FakeTriton() as other:

        async def scene(client: AsyncClient) -> None:
            stream = client.stream(UNENDING)
            await anext(stream)
            await asyncio.to_thread(fake.stop)
            with pytest.raises(ConnectionFailed):
                await _exhaust(stream)

        play([fake.address, other.address], scene)
        assert not other.calls


def test_sixty_four_streams_at_once(fake: FakeTriton) -> None:
    async def scene(client: AsyncClient) -> None:
        async def one(number: int) -> str:
            pieces = ", ".join(f'"{number}-{at} "' for at in range(20))
            stream = client.stream('fake:{"delay": 0.01, "pieces": [' + pieces + "]}")
            return "".join([piece.text async for piece in stream])

        results = await asyncio.gather(*(one(number) for number in range(64)))
        assert results == ["".join(f"{number}-{at} " for at in range(20)) for number in range(64)]

    play(fake.address, scene)
