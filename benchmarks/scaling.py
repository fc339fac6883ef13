"""`make scaling`: answers per second with 1, 2 and 4 servers behind one frontend, and what bounds them.

The servers are fakes with as many slots as an engine has, each answer takes the same time: what is measured
is the frontend and its distribution, not a model. Callers ask again as soon as they are answered, twice as
many as there are slots. The ideal is slots / time of an answer. In the last rows answers come as fast as
the frontend takes them: that is its own limit.

Prints a table, and one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks import runs
from benchmarks.machine import facts
from benchmarks.measuring import say
from benchmarks.served import ROOT, Served

TOKENS = 20


class Fakes:
    """Fake Tritons, a process each; a context manager."""

    def __init__(self, count: int, slots: int) -> None:
        command = [sys.executable, "-m", "tests.client.fake_triton", "--slots", str(slots)]
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        self.addresses = [
            str(process.stdout and process.stdout.readline().strip()) for process in self._processes
        ]

    def __enter__(self) -> Fakes:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


class Callers:
    """Threads that ask for streams without a pause."""

    def __init__(self, url: str, count: int, delay: float) -> None:
        self._address = urlsplit(url).netloc
        prompt = "fake:" + json.dumps({"tokens": TOKENS, "delay": delay})
        self._body = json.dumps({"prompt": prompt, "stream": True})
        self.answered = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = HTTPConnection(self._address, timeout=60)
        while not self._stop.is_set():
            connection.request("POST", "/chat", self._body, {"Content-Type": "application/json"})
            text = connection.getresponse().read()
            if b'"finish_reason"' in text.rsplit(b"data: ", 1)[-1]:
                with self._lock:
                    self.answered += 1
        connection.close()


def measure(servers: int, slots: int, delay: float, seconds: float, folder: Path) -> dict[str, float]:
    """Answers per second, and the share of a core that the frontend takes."""
    with Fakes(servers, slots) as fakes, ExitStack() as stack:
        frontend = stack.enter_context(
            Served("demo", folder, triton_servers=",".join(fakes.addresses), queue=1024)
        )
        (process,) = [each for each in frontend.family() if "frontend" in each.cmdline() and _is_python(each)]
        callers = Callers(frontend.url, 2 * servers * slots, delay)
        time.sleep(2)
        begun, before, cpu = time.monotonic(), callers.answered, sum(process.cpu_times()[:2])
        time.sleep(seconds)
        took = time.monotonic() - begun
        answers = (callers.answered - before) / took
        core = (sum(process.cpu_times()[:2]) - cpu) / took
        callers.close()
    ideal = servers * slots / ((TOKENS - 1) * delay) if delay else 0.0
    return {"servers": servers, "answers_s": answers, "ideal": ideal, "frontend_core": core}


def _is_python(process: psutil.Process) -> bool:
    return "serve.guard" not in process.cmdline()


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--slots", type=int, default=4, help="of a server (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, help="s between tokens (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for delay in (given.delay, 0.0):
            for servers in (1, 2, 4):
                say(f"{servers} servers, {delay} s between tokens")
                folder = Path(scratch, f"{servers}-{delay}")
                row = measure(servers, given.slots, delay, given.seconds, folder)
                rows.append({"delay": delay, **row})
    lines = [
        f"{'servers':>7} {'s/token':>8} {'answers/s':>10} {'tokens/s':>9} {'of ideal':>9} {'frontend':>9}"
    ]
    for row in rows:
        share = f"{row['answers_s'] / row['ideal']:9.0%}" if row["ideal"] else f"{'-':>9}"
        lines.append(
            f"{row['servers']:>7} {row['delay']:>8} {row['answers_s']:10.1f} "
            f"{TOKENS * row['answers_s']:9.0f} "
            f"{share} {row['frontend_core']:8.2f}c"
        )
    sys.stdout.write("\n".join([*lines, "c: cores of the frontend's process", ""]))
    asked = {"slots": given.slots, "tokens": TOKENS, "seconds": given.seconds}
    sys.stdout.write(runs.line({**asked, "machine": facts(), "rows": rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
