"""The limits of this machine: read bandwidth, and matrix products in f32 and int8, all cores
together.

One stream's decode cannot be faster than bandwidth / bytes read per token (every weight once); prefill not
faster than the matrix rate / (2 operations x weights per token). Best of several tries, because others slow
one down and nobody speeds one up. `python -m benchmarks.limits` prints them as JSON; int8 needs torch.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TRIES = 7
SLICE = 64 << 20  # numbers a core reads; far beyond any cache
SIDE = 2048


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of TRIES runs."""
    taken = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def read_bandwidth() -> float:
    """Bytes per second: each core looks for the maximum of memory of its own."""
    slices = [np.ones(SLICE, np.float32) for _ in os.sched_getaffinity(0)]

    def work() -> None:
        threads = [threading.Thread(target=each.max) for each in slices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return sum(each.nbytes for each in slices) / best(work)


def f32_rate() -> float:
    """Operations per second of numpy's f32 matrix product."""
    matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    return float(2 * SIDE**3 / best(lambda: matrix @ matrix))


def int8_rate() -> float | None:
    """Operations per second of torch's int8 matrix product; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    matrix = torch.randint(-127, 127, (SIDE, SIDE), dtype=torch.int8)
    return float(2 * SIDE**3 / best(lambda: torch._int_mm(matrix, matrix)))


def measured() -> dict[str, Any]:
    """All three, per second."""
    return {"read_bandwidth": read_bandwidth(), "f32_rate": f32_rate(), "int8_rate": int8_rate()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measured()) + "\n")
