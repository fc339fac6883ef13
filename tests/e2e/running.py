"""A whole server, started as `make serve` starts it, on free ports and with a data folder of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serve.addresses import free_ports
from serve.run_folder import HOME, PREFIX, REGIONS
from serve.settings import Settings
from tests.limits import START_S, WAIT_S

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"


class RunningServer:
    """`python -m serve` (or another command that comes to it) and its addresses; `settings` are strings."""

    def __init__(
        self,
        data_dir: Path,
        *,
        command: Sequence[str] = (),
        cwd: Path = ROOT,
        terminal: bool = False,
        **settings: str,
    ) -> None:
        assert PYTHON.exists(), f"{PYTHON} is missing: run make install"
        names = ("port", "http_port", "grpc_port", "metrics_port")
        ports = {name: str(port) for name, port in zip(names, free_ports(4), strict=True)}
        given = {"data_dir": str(data_dir), "drain_timeout": "10", **ports, **settings}
        ours = {name: value for name, value in os.environ.items() if not name.startswith("YOUTU_")}
        self.environment = ours | {f"YOUTU_{name.upper()}": value for name, value in given.items()}
        self.settings = Settings.load(self.environment)
        self.http_url = f"http://127.0.0.1:{self.settings.port}"
        self.triton_http_url = f"http://127.0.0.1:{self.settings.http_port}"
        self.grpc_url = f"127.0.0.1:{self.settings.grpc_port}"
        self.data_dir = data_dir
        self._output = data_dir / f"output-{time.monotonic_ns()}.txt"
        data_dir.mkdir(parents=True, exist_ok=True)
        self._keyboard, keyboard = pty.openpty() if terminal else (-1, -1)

        def control_the_terminal() -> None:
            if terminal:
                fcntl.ioctl(keyboard, termios.TIOCSCTTY, 0)

        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command or [str(PYTHON), "-m", "serve"],
                cwd=cwd,
                env=self.environment,
                stdin=keyboard if terminal else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=control_the_terminal,
            )
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        """What it has written to its terminal so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_for_line(self, text: str, times: int = 1, timeout: float = START_S) -> None:
        """Wait until `text` stands in the output `times` times; fails when it does not come or all ends."""
        deadline = time.monotonic() + timeout
        while self.log.count(text) < times:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"no {text!r} in {timeout} s:\n{self.log}"
            time.sleep(0.05)

    def wait_until_up(self) -> RunningServer:
        self.wait_for_line("Up after")
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal to the started process; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def press(self, keys: bytes) -> None:
        """Type on its terminal."""
        os.write(self._keyboard, keys)

    def wait(self) -> int:
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {WAIT_S} s:\n{self.log}") from None

    def processes(self) -> dict[int, str]:
        """Pid -> command line of every living process of this server, told by its environment."""
        marks = [f"YOUTU_DATA_DIR={self.data_dir}", *(f"YOUTU_RUN={folder}" for folder in self.run_folders)]
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                variables = (entry / "environ").read_text(errors="replace").split("\0")
                if set(marks) & set(variables) and (command := (entry / "cmdline").read_bytes()):
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    @property
    def run_folders(self) -> list[Path]:
        """The folders of the runs from this data folder, the latest last; most of them are gone."""
        names = sorted(entry.name for entry in (self.data_dir / "log").glob("2*"))
        return [HOME / f"{PREFIX}{name}" for name in names]

    @property
    def run_folder(self) -> Path:
        return self.run_folders[-1]

    def pid_of(self, *texts: str, without: str = "serve.guard") -> int:
        """The process whose command line has all `texts` and not `without`; the oldest of several."""
        fitting = [
            pid
            for pid, command in self.processes().items()
            if all(text in command for text in texts) and without not in command
        ]
        assert fitting, f"no process with {texts} in {self.processes()}"
        return min(fitting)

    def left_behind(self, within: float = 0.0) -> list[str]:
        """Processes and shared memory that are still there after at most `within` seconds."""
        deadline = time.monotonic() + within
        while True:
            names = [folder.name.removeprefix(PREFIX) for folder in self.run_folders]
            files = [file for name in names for file in HOME.glob(f"{REGIONS}{name}-*")]
            left = [*self.processes().values(), *map(str, files)]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    def kill(self) -> None:
        """End whatever is left, by force: for the end of a failed test."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class KeptServer:
    """A server for many tests, started when the first of them asks for it and ended with the context.

    A start that fails, or a server that has died, fails one test: the next one gets a new server.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self._settings = settings
        self._server: RunningServer | None = None

    def running(self) -> RunningServer:
        if self._server is not None and self._server.process.poll() is not None:
            self._server.kill()
            self._server = None
        if self._server is None:
            server = RunningServer(self._folder, **self._settings)
            try:
                self._server = server.wait_until_up()
            finally:
                if self._server is None:
                    server.kill()
        return self._server

    def __enter__(self) -> KeptServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._server is None:
            return
        try:
            assert self._server.end() == 0, self._server.log
            assert self._server.left_behind(within=WAIT_S) == []
        finally:
            self._server.kill()
