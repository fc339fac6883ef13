"""A server to be measured: started as `make serve` starts it, on free ports, and ended again.

Also its memory, asked of the system: this is the one place that looks at the server from outside.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from serve import processes
from serve.addresses import free_ports

ROOT = Path(__file__).resolve().parent.parent
SERVING = ROOT / ".venv" / "bin" / "python"
START_TIMEOUT = 1800.0  # a large engine is made on the way up
END_TIMEOUT = 90.0
ENGINE_STUBS = ("youtu_engine", "tensorrt_llm")


class CannotStart(Exception):
    """The server did not come up; the message is the server's."""


@dataclass(frozen=True)
class Memory:
    """Bytes. `engine`: the process that holds weights and KV cache; `file` of it are pages of its files,
    which the system may drop and read again; `peak`: the most it has held; `all`: every process of the
    server, shared pages counted once (PSS).
    """

    engine: int
    file: int
    peak: int
    all: int


class Served:
    """`python -m serve` with MODEL and settings of its own; a context manager that ends it.

    command: what Python is given instead of `-m serve`, and comes to it.
    """

    def __init__(
        self, model: str, data_dir: Path, *, command: Sequence[str] = ("-m", "serve"), **settings: object
    ) -> None:
        ports = dict(zip(("port", "http_port", "grpc_port", "metrics_port"), free_ports(4), strict=True))
        given: Mapping[str, object] = {
            "model": model,
            "data_dir": data_dir,
            "drain_timeout": 5,
            "log_level": "warning",
            **ports,
            **settings,
        }
        self.url = f"http://127.0.0.1:{given['port']}"
        self.grpc = f"127.0.0.1:{given['grpc_port']}"
        data_dir.mkdir(parents=True, exist_ok=True)
        self._output = data_dir / "serve.txt"
        ours = {name: value for name, value in os.environ.items() if not name.startswith("YOUTU_")}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [str(SERVING if SERVING.exists() else sys.executable), *command],
                cwd=ROOT,
                env=ours | {f"YOUTU_{name.upper()}": str(value) for name, value in given.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is for us; the server is ended in order
                # and it does not outlive us, however we end
                preexec_fn=functools.partial(processes.end_with_parent, signal.SIGTERM, os.getpid()),
            )

    def __enter__(self) -> Served:
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while "Up after" not in self.log():
                if self._process.poll() is not None:
                    raise CannotStart(self._complaint())
                if time.monotonic() > deadline:
                    raise CannotStart(f"not up after {START_TIMEOUT:.0f} s; see {self._output}")
                time.sleep(0.1)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _complaint(self) -> str:
        """The reason of its failure in one line, and where the rest is."""
        lines = self.log().strip().splitlines()
        refused = [line.removeprefix("cannot serve: ") for line in lines if line.startswith("cannot serve: ")]
        return f"{'; '.join(refused) or 'the server ended as it started'} ({self._output})"

    def log(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def family(self) -> list[psutil.Process]:
        """The launcher's process and all below it."""
        launcher = psutil.Process(self._process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def memory(self) -> Memory:
        """What its processes hold now. RuntimeError when the engine's process is not there."""
        members = self.family()
        engine = [p for p in members if _is_engine(p)]
        if len(engine) != 1:
            raise RuntimeError(f"{len(engine)} engine processes found, expected one")
        total = 0
        for process in members:
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        status = _status(engine[0].pid)
        return Memory(status["VmRSS"], status["RssFile"], status["VmHWM"], total)

    def processor_seconds(self) -> dict[str, float]:
        """What has been used so far by: frontend, triton, each model that has a process of its own, other."""
        family = [psutil.Process(self._process.pid)]
        spent: dict[str, float] = {}
        for process in [*family, *family[0].children(recursive=True)]:
            try:
                times, name = process.cpu_times(), _role(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            spent[name] = spent.get(name, 0.0) + times.user + times.system
        return spent

    def end(self) -> None:
        """SIGTERM, and by force after a while."""
        if self._process.poll() is None:
            family = psutil.Process(self._process.pid).children(recursive=True)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                for process in family:
                    if process.is_running():
                        process.kill()
                self._process.kill()
                self._process.wait()


def _role(command: Sequence[str]) -> str:
    words = " ".join(command)
    if "serve.guard" in words:
        return "other"
    if "triton_python_backend_stub" in words:
        return next((name for name in (*ENGINE_STUBS, "youtu_llm") if f"/{name}/" in words), "other")
    if "tritonserver" in words:
        return "triton"
    return "frontend" if "-m frontend" in words else "other"


def _is_engine(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return "triton_python_backend_stub" in command and any(f"/{name}/" in command for name in ENGINE_STUBS)


def _status(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes."""
    fields = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in fields if value.endswith(" kB")}
