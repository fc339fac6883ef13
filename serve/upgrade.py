"""`make upgrade`: which server is replaced, on which ports the new one runs, and how the old one ends.

The new server is a run of its own (serve.run_folder) with its own Triton. Its frontend takes the listening
socket of the old one, and accepts from it when its model is ready; then the old launcher is told to stop, and
finishes its answers.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from serve import preflight, run_folder
from serve.addresses import free_ports
from serve.run_folder import HOME, RunFolder
from serve.settings import Settings

FACTS = "launcher.json"
LISTENER = "listener.sock"


@dataclass(frozen=True)
class Running:
    """A server that runs: the process of its launcher, and where its frontend offers its socket."""

    pid: int
    listener: Path

    def end(self) -> None:
        """Ask it to finish its answers and end."""
        os.kill(self.pid, signal.SIGTERM)


def note(run: RunFolder, settings: Settings) -> None:
    """Write down what a later upgrade asks for."""
    run.write(FACTS, json.dumps({"pid": os.getpid(), "host": settings.host, "port": settings.port}))


def running(settings: Settings, home: Path = HOME) -> Running | None:
    """This user's server whose frontend has the address of `settings` and is ready to give it up."""
    for folder in run_folder.living(home):
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        there = (folder / LISTENER).exists()
        if there and (facts["host"], facts["port"]) == (settings.host, settings.port):
            return Running(facts["pid"], folder / LISTENER)
    return None


def beside(settings: Settings) -> Settings:
    """`settings` with other ports for Triton where the old one has them."""
    names = [name for name in settings.ports() if name != "port"]
    taken = [name for name in names if preflight.ports_in_use(settings, [name])]
    return settings.model_copy(update=dict(zip(taken, free_ports(len(taken)), strict=True)))
