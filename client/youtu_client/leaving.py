"""Leaving a call before its end: ask the model to stop it, and read what still comes.

Not by cancelling the gRPC call: in Triton 2.51 a cancel that meets a response locks up or kills the server's
gRPC port, about once in a thousand times. Cancelling is what is left when the model does not stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from . import wire
from .servers import Server

TRIES, PAUSE = 20, 0.05
"""How often the model is asked, and the seconds between: the first time may come before the request."""
PATIENCE = 1.0
"""Seconds that one asking may take."""
GOODBYE = 1.0
"""Seconds that closing a client waits for those who leave; then it cancels their calls with its channel."""


def leave(server: Server, call: Any, request: Any, *, being_read: bool) -> None:
    """End `call`, which `server.infer(request)` opened, in the background.

    `being_read`: somebody reads it to its end; else that is done here.
    """
    ended = threading.Event()
    if not call.add_callback(ended.set):
        return  # It is over already.
    if not being_read:
        threading.Thread(target=drain, args=(call,), name="youtu-drain", daemon=True).start()
    thread = threading.Thread(
        target=_leave, args=(server, call, request, ended), name="youtu-leave", daemon=True
    )
    server.leaving.add(thread)
    thread.start()


def wait_for_leaving(server: Server) -> None:
    until = time.monotonic() + GOODBYE
    for thread in list(server.leaving):
        thread.join(max(0.0, until - time.monotonic()))


def drain(call: Any) -> None:
    """Read a call to its end."""
    with contextlib.suppress(Exception):
        for _ in call:
            pass


def _leave(server: Server, call: Any, request: Any, ended: threading.Event) -> None:
    stop = wire.stop_request(request)
    try:
        # Nobody answers there any more, or the client is closed: then there is nothing to stop either.
        with contextlib.suppress(grpc.RpcError, ValueError):
            for _ in range(TRIES):
                for _ in server.infer(stop, timeout=PATIENCE):
                    pass
                if ended.wait(PAUSE):
                    return
        call.cancel()
    finally:
        server.leaving.discard(threading.current_thread())


def leave_async(server: Server, call: Any, request: Any, reading: asyncio.Future[Any] | None) -> None:
    """The same for asyncio. `reading`: a read of `call` that is under way; there cannot be two."""
    if call.done():
        return
    leaving = _leave_async(server, call, request, reading)
    try:
        task = asyncio.get_running_loop().create_task(leaving)
    except RuntimeError:  # There is no loop any more in which to do it well.
        leaving.close()
        call.cancel()
        return
    server.leaving.add(task)
    task.add_done_callback(server.leaving.discard)


async def wait_for_leaving_async(server: Server) -> None:
    if server.leaving:
        await asyncio.wait(set(server.leaving), timeout=GOODBYE)


async def _leave_async(server: Server, call: Any, request: Any, reading: asyncio.Future[Any] | None) -> None:
    drained = asyncio.ensure_future(drain_async(call, reading))
    stop = wire.stop_request(request)
    try:
        for _ in range(TRIES):
            await drain_async(server.infer(stop, timeout=PATIENCE))
            await asyncio.wait({drained}, timeout=PAUSE)
            if drained.done():
                return
    finally:
        if not drained.done():
            call.cancel()


async def drain_async(call: Any, reading: asyncio.Future[Any] | None = None) -> None:
    """Read a call to its end, after `reading`, which is under way."""
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        response = await reading if reading is not None else None
        while response is not grpc.aio.EOF:
            response = await call.read()
