"""A mixed crowd: good, bad and vanishing callers at once. Nobody is harmed and nothing is left behind.

Guards three faults of Triton 2.51 that a quiet test does not meet: decoupled BLS locked the stub up after
some hundred calls, asking about the cancel of a request that had ended killed the server, and cancelling a
model's own call of another model while a response came locked it up or killed it.
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections import Counter

import pytest
from youtu_client import Client
from youtu_client.errors import InvalidRequest

from tests.e2e.running import RunningServer
from tests.limits import START_S, WAIT_S

CALLERS, CALLS = 12, 60


def tritons(server: RunningServer) -> set[str]:
    """Ids of the tritonserver processes of this server."""
    found = subprocess.run(
        ["pgrep", "-f", f"tritonserver.*{server.data_dir}"], capture_output=True, text=True
    )
    return set(found.stdout.split())


def all_slots_are_free(client: Client, slots: int) -> bool:
    """Whether as many answers run at once: each begins before any of them ends."""
    streams = [client.stream("你好", min_tokens=1900, max_tokens=1900) for _ in range(slots)]
    for stream in streams:
        list(stream)
    times = [stream.answer.timings for stream in streams]
    return max(one.first_token_ns for one in times) < min(one.last_token_ns for one in times)


@pytest.mark.slow
def test_a_mixed_crowd(server: RunningServer) -> None:
    before = tritons(server)
    done: Counter[str] = Counter()
    faults: list[str] = []
    with Client(server.grpc_url) as client:
        expected = client.chat("怎么退货？", temperature=0.0).text

        def caller(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(CALLS):
                if faults:
                    return
                kind = rng.choice(("good", "bad", "gone"))
                try:
                    if kind == "good":
                        text = client.chat("怎么退货？", temperature=0.0, timeout=WAIT_S).text
                        if text != expected:
                            faults.append(f"another answer: {text!r}")
                    elif kind == "bad":
                        with pytest.raises(InvalidRequest):
                            client.chat("怎么退货？", temperature=-1.0, timeout=WAIT_S)
                    else:
                        with client.stream(
                            "怎么退货？", min_tokens=300, max_tokens=300, timeout=WAIT_S
                        ) as stream:
                            for _ in range(rng.randrange(3)):
                                next(stream)
                except Exception as error:
                    faults.append(f"{kind}: {error!r}")
                done[kind] += 1

        callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(CALLERS)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(2 * START_S)
        assert not faults, faults[:3]
        assert done.total() == CALLERS * CALLS, done
        assert client.chat("怎么退货？", temperature=0.0).text == expected
        assert any(all_slots_are_free(client, server.settings.slots) for _ in range(5)), (
            "slots were left behind"
        )
    assert tritons(server) == before, "Triton was restarted"
