"""A mixed crowd: good, bad and vanishing callers at once. Nobody is harmed and nothing is left behind.

Guards three faults of Triton 2.51 that a quiet test does not meet: decoupled BLS locked the stub up after
some hundred calls, asking about the cancel of a request that had ended killed the server, and cancelling a
model's own call of another model while a response came locked it up or killed it.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter

import pytest
from youtu_client import Client
from youtu_client.errors import InvalidRequest

from tests.e2e.running import RunningServer

CALLERS, SECONDS = 12, 12.0


def tritons(server: RunningServer) -> set[str]:
    """Ids of the tritonserver processes of this server."""
    found = subprocess.run(
        ["pgrep", "-f", f"tritonserver.*{server.data_dir}"], capture_output=True, text=True
    )
    return set(found.stdout.split())


@pytest.mark.slow
def test_a_mixed_crowd(server: RunningServer) -> None:
    before = tritons(server)
    done: Counter[str] = Counter()
    faults: list[str] = []
    with Client(server.grpc_url) as client:
        expected = client.chat("怎么退货？", temperature=0.0).text

        def caller(seed: int) -> None:
            rng = random.Random(seed)
            until = time.monotonic() + SECONDS
            while time.monotonic() < until and not faults:
                kind = rng.choice(("good", "bad", "gone"))
                try:
                    if kind == "good":
                        text = client.chat("怎么退货？", temperature=0.0, timeout=60).text
                        if text != expected:
                            faults.append(f"another answer: {text!r}")
                    elif kind == "bad":
                        with pytest.raises(InvalidRequest):
                            client.chat("怎么退货？", temperature=-1.0, timeout=60)
                    else:
                        with client.stream(
                            "怎么退货？", min_tokens=300, max_tokens=300, timeout=60
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
            thread.join(SECONDS + 70)
        assert not faults, faults[:3]
        assert min(done.values()) > 20, done
        began = time.monotonic()
        assert client.chat("怎么退货？", temperature=0.0).text == expected
        assert time.monotonic() - began < 2.0, "slots were left behind"
    assert tritons(server) == before, "Triton was restarted"
