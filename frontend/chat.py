"""`POST /chat`: a question in, an answer out, whole or piece by piece.

Whole (`application/json`): `schema.facts`. With `"stream": true` (`text/event-stream`):

    data: {"delta": "Hel"}                 one event per piece of text; together they are `response`
    : ping                                 a comment when there was nothing to say for PING_S seconds
    event: done
    data: {"response": "Hello", "time_cost": "0.3s", "token_count": 2, …}     what the JSON would be

and instead of `done`, when something fails after the first byte:

    event: error
    data: {"error": {"message": "…", "type": "…", "param": null, "code": "…"}}

Nothing is sent until the first piece or the first failure is there, so a refusal has its own status; a model
that is silent for longer (HEAD_S seconds: waiting for a slot, a long prompt) gets status 200 and a ping, so
that what lies between does not take the connection for dead. A caller that leaves cancels the call.

It knows requests, events and statuses; the model, its tokens and its queue are behind the client.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from youtu_client import Answer, ConnectionFailed, NotReady, Piece, Stream, YoutuError

from . import body
from .access import Entry, entry
from .caller import LOOK_EVERY_S, Caller
from .drain import Drain
from .errors import ApiError, ending, from_client
from .model import ServedModel
from .schema import FIELDS, ChatRequest, facts

HEAD_S = 2.0
PING_S = 5.0

EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class CallerLeft(Exception):
    """Nobody is there to be answered any more."""


def blueprint(served: ServedModel, drain: Drain, max_body: int) -> Blueprint:
    """The route, answering with `served` until `drain`. `max_body` in bytes."""
    routes = Blueprint("chat", __name__)

    @routes.post("/chat")
    def chat() -> Response:
        wanted = body.validate(ChatRequest, body.parse(body.read(request, max_body)))
        if drain.begun:
            raise ending()
        conversation = Conversation(served, wanted, Caller(request.environ), drain, entry())
        if not wanted.stream:
            return conversation.whole()
        return conversation.streamed()

    return routes


class Conversation:
    """One request on its way: the call to the model, the caller who waits, the line in the log."""

    def __init__(
        self, served: ServedModel, wanted: ChatRequest, caller: Caller, drain: Drain, line: Entry
    ) -> None:
        self._served = served
        self._asked_as = "prompt" if wanted.messages is None else "messages"
        self._caller = caller
        self._drain = drain
        self._line = line
        try:
            self._model = served.info().id
            self._stream: Stream = served.client.stream(
                wanted.conversation(), **wanted.sampling(line.request_id)
            )
        except YoutuError as error:
            raise self._failed(error) from error

    def whole(self) -> Response:
        """The answer as JSON."""
        with self._stream:
            try:
                while not self._stream.done:
                    self._poll()
                return jsonify(self._facts(self._stream.answer))
            except YoutuError as error:
                raise self._failed(error) from error
            except CallerLeft:
                return self._nobody()

    def streamed(self) -> Response:
        """The answer as events; the first piece, a failure or HEAD_S of silence settles the status."""
        until = time.monotonic() + HEAD_S
        first: Piece | None = None
        try:
            while first is None and not self._stream.done and time.monotonic() < until:
                first = self._poll()
        except YoutuError as error:
            raise self._failed(error) from error
        except CallerLeft:
            self._stream.close()
            return self._nobody()
        except BaseException:
            self._stream.close()
            raise
        # Not direct_passthrough: gunicorn sends each event as it is yielded.
        response = Response(self._events(first), content_type="text/event-stream; charset=utf-8")
        response.headers.update(EVENT_HEADERS)
        # A generator that was never started runs no `finally`; this runs whatever becomes of the response.
        response.call_on_close(self._stream.close)
        return response

    def _events(self, first: Piece | None) -> Iterator[str]:
        try:
            yield _data({"delta": first.text}) if first else ": ping\n\n"
            last = time.monotonic()
            while not self._stream.done:
                piece = self._poll()
                now = time.monotonic()
                if piece is not None:
                    yield _data({"delta": piece.text})
                    last = now
                elif now - last >= PING_S:
                    yield ": ping\n\n"
                    last = now
            yield "event: done\n" + _data(self._facts(self._stream.answer))
        except YoutuError as error:
            yield "event: error\n" + _data(self._failed(error).body())
        except ApiError as error:
            yield "event: error\n" + _data(error.body())
        except CallerLeft:
            self._line.left = True
        except GeneratorExit:
            self._line.left = True
            raise
        finally:
            self._stream.close()

    def _poll(self) -> Piece | None:
        if self._caller.gone():
            raise CallerLeft
        if self._drain.over:
            raise ending()
        return self._stream.poll(LOOK_EVERY_S)

    def _facts(self, answer: Answer) -> dict[str, Any]:
        self._line.finish_reason = answer.finish_reason
        self._line.prompt_tokens = answer.usage.prompt_tokens
        self._line.tokens = answer.usage.completion_tokens
        self._line.ttft_s = round(answer.timings.ttft, 4)
        return facts(answer, model=self._model, seconds=self._line.seconds())

    def _failed(self, error: YoutuError) -> ApiError:
        if isinstance(error, (ConnectionFailed, NotReady)):
            self._served.forget()
        # Only its kind: the words of an error may quote the text. Triton's log has them, under the same id.
        self._line.error = type(error).__name__
        return from_client(error, FIELDS, asked_as=self._asked_as)

    def _nobody(self) -> Response:
        self._line.left = True
        return current_app.response_class(status=499)


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
