"""Answers probes: whether this model can answer now.

A probe takes the path of a request, through the engine's Triton model, but needs no place and no slot. A
separate thread asks the engine, once for all waiting probes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import triton_python_backend_utils as pb_utils
from engine_client import Probed
from youtu_contract.errors import Error
from youtu_contract.responder import Responder
from youtu_contract.rows import TEXT_OUTPUTS
from youtu_contract.values import Array, array_of

ENGINE_TIMEOUT = 5.0  # s that the engine has to answer


class Prober:
    """`probe(timeout)` asks the engine.

    When it has stalled for `hang_timeout` seconds, a probe is answered with an error; 0: never.
    """

    def __init__(self, probe: Callable[[float], Probed], hang_timeout: float) -> None:
        self._probe, self._hang_timeout = probe, hang_timeout
        self._waiting: queue.SimpleQueue[Responder | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def ask(self, caller: Responder) -> None:
        """Have `caller` answered; returns at once."""
        self._waiting.put(caller)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (caller := self._waiting.get()) is not None:
            callers = [caller]
            # Those that came meanwhile get the same answer; what closes the queue stays in it.
            for _ in range(self._waiting.qsize()):
                another = self._waiting.get()
                if another is None:
                    self._waiting.put(None)
                else:
                    callers.append(another)
            answer = self._ask()
            for each in callers:
                try:
                    if isinstance(answer, Error):
                        each.refuse(answer)
                    else:
                        each.send(_outputs(answer), final=True)
                except Exception as error:
                    pb_utils.Logger.log_error(f"a probe failed: {error}")

    def _ask(self) -> Probed | Error:
        try:
            answer = self._probe(ENGINE_TIMEOUT)
        except Exception as error:
            return Error("not_ready", str(error))
        if self._hang_timeout and answer.stalled_s >= self._hang_timeout:
            message = (
                "the engine has stalled: it has work but has made no progress for "
                f"{answer.stalled_s:.1f} s, the limit is {self._hang_timeout:g} s"
            )
            return Error("engine_stalled", message)
        return answer


def _outputs(answer: Probed) -> dict[str, Array]:
    outputs = {"stalled_ms": array_of(TEXT_OUTPUTS["stalled_ms"], round(1000 * answer.stalled_s))}
    if answer.device_memory:
        outputs["device_memory"] = array_of(TEXT_OUTPUTS["device_memory"], answer.device_memory)
    return outputs
