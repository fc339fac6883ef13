"""What the routes share: the model behind Triton, the end of this process, admission and metrics.

Uses the client and a clock; independent of HTTP.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from youtu_client import (
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    EngineStalled,
    ModelInfo,
    NotReady,
    YoutuError,
)

from serve.settings import Settings

from .admission import Admission
from .documents.collection import Collection
from .errors import ApiError, shown
from .metrics import Metrics

PROBE_S = 2.0
"""Seconds one question to Triton may take when somebody asks for our health."""

RECENT_S = 5.0
"""Seconds for which an answer will do while the next is on its way, so that few threads wait for it."""

ModelState = Literal["ready", "loading", "stalled", "down"]
State = ModelState | Literal["draining"]


class ServedModel:
    """The model that `client` reaches. One per process; threads share it.

    `learnt` is called with the facts about the model whenever they were asked for. `names`: what it is called
    in the API, the first in replies; its own name unless there are any.
    """

    def __init__(
        self, client: Client, learnt: Callable[[ModelInfo], None], names: Sequence[str] = ()
    ) -> None:
        self.client = client
        self._names = names
        self._learnt = learnt
        self._info: ModelInfo | None = None
        self._asking = threading.Lock()
        self._state: ModelState = "down"
        self.device_memory: tuple[int, int] | None = None
        """Bytes in use and in all of the card, as of the last question; None where the engine names none."""
        self._asked_at = -math.inf  # when the question began that `_state` is the answer to
        self._answered_at = -math.inf

    def info(self) -> ModelInfo:
        """Facts about the model, asked for once per life of the server behind. Raises YoutuError."""
        if self._info is None:
            try:
                self._info = self.client.model_info(timeout=PROBE_S)
            except DeadlineExceeded as error:  # of this question; the request's own deadline is not over
                raise NotReady(f"the server is not responding: {error}", server=error.server) from error
            if self._names:
                self._info = replace(self._info, id=self._names[0])
            self._learnt(self._info)
        return self._info

    def names(self) -> Sequence[str]:
        """All its names. Raises YoutuError."""
        return self._names or (self.info().id,)

    def named(self, model: str | None) -> ModelInfo:
        """`info`, for a caller who asks for `model`. Raises ApiError 404 where that is another one."""
        info = self.info()
        if model is not None and model not in self.names():
            there = " and ".join(map(shown, self.names()))
            message = f"model {shown(model)} does not exist; available: {there}"
            raise ApiError("model_not_found", message, param="model")
        return info

    def forget(self) -> None:
        """What was known may be out of date: the server failed, and another may come back in its place."""
        self._info = None

    def state(self) -> ModelState:
        """Whether text would come out now: asks Triton, the text model and the engine.

        Takes at most 2 * PROBE_S. Who comes while others ask gets what was answered last, if that is recent,
        or shares the next question with all who wait.
        """
        came = time.monotonic()
        if self._asking.locked() and came - self._answered_at < RECENT_S:
            return self._state
        with self._asking:
            if self._asked_at < came:
                self._asked_at = time.monotonic()
                self._state = self._ask()
                self._answered_at = time.monotonic()
            return self._state

    def _ask(self) -> ModelState:
        try:
            self.device_memory = self.client.probe(timeout=PROBE_S).device_memory
        except (EngineStalled, DeadlineExceeded):
            return "stalled"
        except ConnectionFailed:
            self.forget()
            return "down"
        except YoutuError:
            self.forget()
            return "loading"
        return "ready"

    def described(self) -> ModelInfo | None:
        """`info`, or None when it is unavailable."""
        try:
            return self.info()
        except YoutuError:
            return None


class Drain:
    """The end of this process: when it began, and when what still runs must be done.

    Shared by the server, which begins it, and the routes, which heed it. First we are unready, but take
    what comes for `leave` seconds, until balancers have seen it; then what runs has `seconds` left.
    """

    def __init__(self, seconds: float, leave: float = 0.0) -> None:
        self._seconds, self._leave = seconds, leave
        self._refuses = self._ends = math.inf

    def begin(self, leave: float = 0.0) -> None:
        """Safe in a signal handler. `leave`: seconds, where that is more than we leave anyway."""
        if not self.begun:
            self._refuses = time.monotonic() + max(leave, self._leave)
            self._ends = time.monotonic() + self._leave + self._seconds

    @property
    def begun(self) -> bool:
        return self._ends < math.inf

    @property
    def refuses(self) -> bool:
        """Whether nothing new is taken in any more."""
        return time.monotonic() >= self._refuses

    @property
    def over(self) -> bool:
        """Whether the time of running answers is up."""
        return self.over_for(0)

    def over_for(self, seconds: float) -> bool:
        """Whether it has been up for `seconds`."""
        return time.monotonic() >= self._ends + seconds


@dataclass(frozen=True)
class Service:
    """One per process, shared by all its threads."""

    settings: Settings
    served: ServedModel
    admission: Admission
    drain: Drain
    metrics: Metrics
    documents: Collection

    def state(self) -> State:
        """Whether an answer would come out now; asks the model like `ServedModel.state`."""
        return "draining" if self.drain.begun else self.served.state()
