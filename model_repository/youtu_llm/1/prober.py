"""Answers probes: whether text would come out of this model now.

A probe takes the way of a request, through the engine's own Triton model, but needs no place and no slot. A
thread of its own asks the engine, once for all probes that wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from call import Call, refuse

ENGINE_TIMEOUT = 5.0  # s that the engine has to answer


class Prober:
    """`stalled_s(timeout)`: seconds for which the engine has made no progress although it has work.

    From `hang_timeout` seconds on a probe is answered with an error; 0: never.
    """

    def __init__(self, stalled_s: Callable[[float], float], hang_timeout: float) -> None:
        self._stalled_s, self._hang_timeout = stalled_s, hang_timeout
        self._waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def ask(self, call: Call) -> None:
        """Have `call` answered; returns at once."""
        self._waiting.put(call)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            calls = [call]
            # Those that came meanwhile get the same answer; what closes the queue stays in it.
            for _ in range(self._waiting.qsize()):
                another = self._waiting.get()
                if another is None:
                    self._waiting.put(None)
                else:
                    calls.append(another)
            try:
                stalled_s = self._stalled_s(ENGINE_TIMEOUT)
                fault = ""
                if self._hang_timeout and stalled_s >= self._hang_timeout:
                    fault = (
                        "the engine has stalled: it has work and has made no progress for "
                        f"{stalled_s:.1f} s, the limit is {self._hang_timeout:g} s"
                    )
            except Exception as error:
                fault = f"not ready: {error}"
            for each in calls:
                try:
                    if fault:
                        refuse(each, fault, "UNAVAILABLE")
                    else:
                        each.send(_response(stalled_s), final=True)
                except Exception as error:
                    pb_utils.Logger.log_error(f"a probe could not be answered: {error}")


def _response(stalled_s: float) -> Any:
    value = np.array([[round(1000 * stalled_s)]], np.int64)
    return pb_utils.InferenceResponse([pb_utils.Tensor("stalled_ms", value)])
