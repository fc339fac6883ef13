"""One request on its way: its turn, its calls to the model, the caller who waits, its figures.

Whoever asks says how the calls are opened and in which form the answers go out (`Format`); here is when: the
request waits for its slots, every wait ends at once when the caller leaves, the server is out of time or the
deadline is over, and whatever happens the calls are closed and the slots given back.

Streamed, nothing is sent until the first piece or the first failure is there, so a refusal has its own
status; a model that is silent for longer (HEAD_S seconds: waiting for a slot, a long prompt) gets status 200
and a comment, so that what lies between does not take the connection for dead. It knows no route's fields.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import structlog
from flask import Response, current_app, jsonify, request
from pydantic import BaseModel
from youtu_client import Answer, ConnectionFailed, NotReady, Piece, Stream, YoutuError

from .access import entry
from .admission import Full, Ticket
from .caller import LOOK_EVERY_S, Caller
from .errors import ApiError, ending, from_client, mistake, out_of_time, queue_full, too_busy
from .service import Service

log = structlog.get_logger()

HEAD_S = 2.0
PING_S = 5.0
POLL_S = 0.005
"""How long one of several answers is waited for before the next is looked at."""

EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Open = Callable[[float], Stream]
"""Starts one call to the model, given the seconds it may take."""


class Format(Protocol):
    """How a route says in server-sent events what happens to its answers, which are numbered from 0."""

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        """Events for new text of one answer; "" for none. `thinking`: the answer starts in its midst."""

    def answer(self, index: int, answer: Answer) -> str:
        """Events for the end of one answer."""

    def end(self, answers: list[Answer]) -> str:
        """Events for the end of all."""

    def error(self, error: ApiError) -> str:
        """Events for a failure after the first byte."""


class CallerLeft(Exception):
    """Nobody is there to be answered any more."""


Event = tuple[int, Piece | Answer]


class Answering:
    """The answers to one request, one for each of `opens`, either `whole` or `streamed`.

    `names`: what the caller calls the model's inputs, to tell a refusal in the caller's words. `asked`: the
    request itself, for the log. Raises ApiError when there is no place. Once per request, in its context.
    """

    def __init__(self, service: Service, opens: list[Open], names: dict[str, str], asked: BaseModel) -> None:
        if service.drain.begun:
            raise ending()
        self._service = service
        self._opens = opens
        self._names = names
        self._caller = Caller.of(request.environ)
        self._line = entry()
        self._line.asked = asked
        self._deadline = self._line.started + service.settings.request_timeout
        self._streams: list[Stream] = []
        if service.settings.log_text == "on":
            self._line.text["asked"] = asked.model_dump(exclude_none=True)
        try:
            self._ticket: Ticket = service.admission.ask(self._line.client, len(opens))
        except Full as full:
            raise self._no_place(full) from None

    def whole(self, form: Callable[[list[Answer]], dict[str, Any]]) -> Response:
        """All answers as one JSON object."""
        answers: dict[int, Answer] = {}
        try:
            for event in self._events():
                if event is not None and isinstance(event[1], Answer):
                    answers[event[0]] = event[1]
            return jsonify(form(self._answered(answers)))
        except YoutuError as error:
            raise self._failed(error) from error
        except CallerLeft:
            return self._nobody()
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
            return self._nobody()
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
        self._ticket.release()

    def _body(self, form: Format, events: Iterator[Event | None]) -> Iterator[str]:
        answers: dict[int, Answer] = {}
        last = time.monotonic() - PING_S  # The head goes out at once, if only with a comment.
        try:
            for event in events:
                said = ""
                if event is not None:
                    index, what = event
                    if isinstance(what, Answer):
                        answers[index] = what
                        said = form.answer(index, what)
                    else:
                        said = form.piece(index, what, self._streams[index].starts_in_thinking)
                elif time.monotonic() - last >= PING_S:
                    said = ": ping\n\n"
                if said:
                    yield said
                    last = time.monotonic()
            yield form.end(self._answered(answers))
        except YoutuError as error:
            yield form.error(self._failed(error))
        except ApiError as error:
            self._line.failed(error)
            yield form.error(error)
        except CallerLeft:
            self._line.left = True
        except Exception as error:
            told = mistake(error, self._line.request_id, self._line.typed())
            self._line.failed(told)
            yield form.error(told)
        except GeneratorExit:
            self._line.left = True
            raise
        finally:
            self.close()

    def _events(self) -> Iterator[Event | None]:
        """Pieces as they come and each answer at its end; None when nothing came for a while."""
        yield from self._turn()
        for start in self._opens:  # One by one: when the last cannot be opened, the others must be closed.
            self._streams.append(start(max(0.001, self._left())))
        running = dict(enumerate(self._streams))
        patience = LOOK_EVERY_S if len(running) == 1 else POLL_S
        came: dict[int, float] = {}
        while running:
            silent = True
            for index, stream in list(running.items()):
                self._look()
                try:
                    piece = stream.poll(patience)
                except RuntimeError as error:  # no thread could be started to read the call
                    log.error("no_thread", error=str(error))
                    raise too_busy() from error
                if piece is not None:
                    silent = False
                    self._measure(came, index)
                    yield index, piece
                elif stream.done:
                    silent = False
                    del running[index]
                    answer = stream.answer
                    if not running:
                        self._ticket.release()  # The engine is done; how fast the caller reads is no matter.
                    yield index, answer
            if silent:
                yield None

    def _turn(self) -> Iterator[None]:
        ticket = self._ticket
        try:
            while not ticket.wait(LOOK_EVERY_S):
                self._look()
                yield None
        except Full as full:
            raise self._no_place(full) from None
        waited = time.monotonic() - ticket.asked
        self._line.queue_s = round(waited, 4)
        self._service.metrics.queued(waited)

    def _look(self) -> None:
        if self._caller.gone():
            raise CallerLeft
        if self._service.drain.over:
            raise ending()
        if self._left() <= 0:
            raise out_of_time()

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _measure(self, came: dict[int, float], index: int) -> None:
        now = time.monotonic()
        if index in came:
            self._service.metrics.next_token(now - came[index])
        elif not came:
            self._line.ttft_s = round(now - self._line.started, 4)
            self._service.metrics.first_token(now - self._line.started)
        came[index] = now

    def _answered(self, answers: dict[int, Answer]) -> list[Answer]:
        found = [answers[index] for index in sorted(answers)]
        self._line.answered(found)
        if self._service.settings.log_text == "on":
            self._line.text["answers"] = [answer.text for answer in found]
        self._service.metrics.answered(found, self._line.seconds())
        return found

    def _failed(self, error: YoutuError) -> ApiError:
        if isinstance(error, (ConnectionFailed, NotReady)):
            self._service.served.forget()
        told = from_client(
            error,
            self._names,
            retry_after=self._service.admission.retry_after(),
            typed=self._line.typed(),
        )
        self._line.failed(told)
        if told.status == 429:
            self._service.metrics.refused(told.code)
        return told

    def _no_place(self, full: Full) -> ApiError:
        self._service.metrics.refused("queue_full")
        return queue_full(full.waiting, full.retry_after)

    def _nobody(self) -> Response:
        self._line.left = True
        return current_app.response_class(status=499)
