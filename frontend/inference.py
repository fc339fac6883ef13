"""The inference for one request: its turn, its calls to the model, the caller who waits, its figures.

The caller defines how the calls are opened and in which form the answers go out (`Format`); here is when: the
request waits for its slots, every wait ends at once when the caller leaves, the server is out of time or the
deadline is over, and whatever happens the calls are closed and the slots given back.

Streamed, nothing is sent until the first piece or the first failure is there, so a refusal has its own
status; a model that is silent for longer (HEAD_S seconds: waiting for a slot, a long prompt) gets status 200
and a comment, so that proxies do not drop the connection. Independent of any route's fields.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog
from flask import Response, current_app, jsonify
from flask import request as http_request
from pydantic import BaseModel
from youtu_client import Answer, ConnectionFailed, NotReady, Piece, Stream, YoutuError

from .access import log_record
from .admission import Full, Ticket
from .environ import Caller
from .errors import ApiError, draining, from_client, internal_error, out_of_time, queue_full, too_busy
from .replies import Reply
from .service import Service

log = structlog.get_logger()

HEAD_S = 2.0
PING_S = 5.0
LOOK_EVERY_S = 0.1
"""How long a wait for the model may last before the caller is looked for again."""

POLL_S = 0.005
"""How long one of several answers is waited for before the next is looked at."""

EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Open = Callable[[float], Stream]
"""Starts one call to the model, given the seconds it may take."""


class Format(Protocol):
    """How a route says in server-sent events what happens to its answers, which are numbered from 0."""

    def piece(self, index: int, piece: Piece) -> str:
        """Events for what is new of one answer; "" for nothing."""

    def answer(self, index: int, answer: Answer) -> str:
        """Events for the end of one answer."""

    def end(self, answers: list[Answer]) -> str:
        """Events for the end of all."""

    def error(self, error: ApiError) -> str:
        """Events for a failure after the first byte."""


class CallerLeft(Exception):
    """Nobody is there to be answered any more."""


Event = tuple[int, Piece | Answer]


class Inference:
    """The answers to one request, one for each of `opens`, either `whole` or `streamed`.

    `names`: what the caller calls the model's inputs, so that a refusal names the caller's fields. `request`:
    the whole of it, for the log. Raises ApiError when there is no place. Once per request, in its context.
    """

    def __init__(
        self, service: Service, opens: list[Open], names: dict[str, str], request: BaseModel
    ) -> None:
        if service.drain.refuses:
            raise draining()
        self._service = service
        self._opens = opens
        self._names = names
        self._caller = Caller.of(http_request.environ)
        self._record = log_record()
        self._record.asked = request
        self._deadline = self._record.started + service.settings.request_timeout
        self._streams: list[Stream] = []
        self._read = self._made = (
            0  # tokens of which the pieces told; of an answer that is whole its end tells
        )
        if service.settings.log_text == "on":
            self._record.text["asked"] = request.model_dump(exclude_none=True)
        try:
            self._ticket: Ticket = service.admission.ask(
                self._record.client, len(opens), self._record.request_id
            )
        except Full as full:
            raise self._queue_full(full) from None

    def whole(self, build: Callable[[list[Answer]], Reply]) -> Response:
        """All answers as one JSON object."""
        answers: dict[int, Answer] = {}
        try:
            for event in self._events():
                if event is not None and isinstance(event[1], Answer):
                    answers[event[0]] = event[1]
            return jsonify(build(self._answered(answers)).to_dict())
        except YoutuError as error:
            raise self._failed(error) from error
        except CallerLeft:
            return self._caller_left()
        finally:
            self.close()

    def streamed(self, form: Format) -> Response:
        """The answers as events."""
        events = self._events()
        until = time.monotonic() + HEAD_S
        first: Event | None = None
        try:
            for first in events:
                if first is not None or time.monotonic() >= until:
                    break
        except YoutuError as error:
            self.close()
            raise self._failed(error) from error
        except CallerLeft:
            self.close()
            return self._caller_left()
        except BaseException:
            self.close()
            raise
        # Each event is sent as it is yielded.
        body = self._body(form, itertools.chain([first], events))
        response = Response(body, content_type="text/event-stream; charset=utf-8")
        response.headers.update(EVENT_HEADERS)
        # A generator that was never started runs no `finally`; this runs whatever becomes of the response.
        response.call_on_close(self.close)
        return response

    def close(self) -> None:
        """Give up what is still under way, and the slots."""
        for stream in self._streams:
            stream.close()
            self._service.metrics.moved(stream.moved)
        self._streams.clear()
        self._ticket.release()
        if self._record.tokens is None and self._made:  # broken off
            self._record.tokens, self._record.prompt_tokens = self._made, self._read or None

    def _body(self, form: Format, events: Iterator[Event | None]) -> Iterator[str]:
        answers: dict[int, Answer] = {}
        last = time.monotonic() - PING_S  # The head goes out at once, if only with a comment.
        try:
            for event in events:
                chunk = ""
                if event is not None:
                    index, what = event
                    if isinstance(what, Answer):
                        answers[index] = what
                        chunk = form.answer(index, what)
                    else:
                        chunk = form.piece(index, what)
                elif time.monotonic() - last >= PING_S:
                    chunk = ": ping\n\n"
                if chunk:
                    yield chunk
                    last = time.monotonic()
            yield form.end(self._answered(answers))
        except YoutuError as error:
            yield form.error(self._failed(error))
        except ApiError as error:
            self._record.failed(error)
            yield form.error(error)
        except CallerLeft:
            self._record.left = True
        except Exception as error:
            reply = internal_error(error, self._record.request_id, self._record.typed())
            self._record.failed(reply)
            yield form.error(reply)
        except GeneratorExit:
            self._record.left = True
            raise
        finally:
            self.close()

    def _events(self) -> Iterator[Event | None]:
        """Pieces as they come and each answer at its end; None when nothing came for a while."""
        yield from self._turn()
        starts = enumerate(self._opens)
        running: dict[int, Stream] = {}
        wait_s = LOOK_EVERY_S if len(self._opens) == 1 else POLL_S
        came: dict[int, float] = {}
        while self._open_more(starts, running):
            silent = True
            for index, stream in list(running.items()):
                self._check()
                try:
                    piece = stream.poll(wait_s)
                except RuntimeError as error:  # no thread could be started to read the call
                    log.error("no_thread", error=str(error))
                    raise too_busy() from error
                if piece is not None:
                    silent = False
                    self._count(piece)
                    self._measure(came, index)
                    yield index, piece
                elif stream.done:
                    silent = False
                    del running[index]
                    answer = stream.answer
                    if not self._open_more(starts, running):
                        self._ticket.release()  # The engine is done; how fast the caller reads is no matter.
                    yield index, answer
            if silent:
                yield None

    def _open_more(self, starts: Iterator[tuple[int, Open]], running: dict[int, Stream]) -> bool:
        """Open as many calls as there are slots; whether any run. One fails: all that are open get closed."""
        while len(running) < self._ticket.weight and (start := next(starts, None)) is not None:
            index, begin = start
            running[index] = begin(max(0.001, self._left()))
            self._streams.append(running[index])
        return bool(running)

    def _turn(self) -> Iterator[None]:
        ticket = self._ticket
        try:
            while not ticket.wait(LOOK_EVERY_S):
                self._check()
                yield None
        except Full as full:
            raise self._queue_full(full) from None
        waited = time.monotonic() - ticket.asked
        self._record.queue_s = round(waited, 4)
        self._service.metrics.queued(waited)

    def _check(self) -> None:
        if self._caller.gone():
            raise CallerLeft
        if self._service.drain.over:
            raise draining()
        if self._left() <= 0:
            raise out_of_time()

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _measure(self, came: dict[int, float], index: int) -> None:
        now = time.monotonic()
        if index in came:
            self._service.metrics.next_token(now - came[index])
        elif not came:
            self._record.ttft_s = round(now - self._record.started, 4)
            self._service.metrics.first_token(now - self._record.started)
        came[index] = now

    def _count(self, piece: Piece) -> None:
        """Without its tokens' ids a piece counts as one: it has one at least."""
        self._read += len(piece.prompt_token_ids or ())
        self._made += 1 if piece.token_ids is None else len(piece.token_ids)

    def _answered(self, answers: dict[int, Answer]) -> list[Answer]:
        found = [answers[index] for index in sorted(answers)]
        self._record.answered(found)
        if self._service.settings.log_text == "on":
            self._record.text["answers"] = [answer.text for answer in found]
        self._service.metrics.answered(found, self._record.seconds())
        return found

    def _failed(self, error: YoutuError) -> ApiError:
        if isinstance(error, (ConnectionFailed, NotReady)):
            self._service.served.forget()
        reply = from_client(
            error,
            self._names,
            retry_after=self._service.admission.retry_after(),
            typed=self._record.typed(),
        )
        self._record.failed(reply)
        if reply.status == 429:
            self._service.metrics.refused(reply.code)
        return reply

    def _queue_full(self, full: Full) -> ApiError:
        self._service.metrics.refused("queue_full")
        return queue_full(full.waiting, full.retry_after)

    def _caller_left(self) -> Response:
        self._record.left = True
        return current_app.response_class(status=499)
