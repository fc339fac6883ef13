"""The folder of one run: the files that a running server needs, under paths that are safe for Triton.

Triton starts its models' processes through a shell, without quoting their paths, and the Python in them reads
paths as ASCII: with a space, `&` or Chinese letters in the name of the checkout or the data folder they would
not start. So all that Triton and its models are given is in, or is linked into, a folder whose path is plain:

    /dev/shm/youtu-run-20261126-183355-k3x9/
        root/       link to the checkout               engine/   link to the engine's folder
        python/     link to the virtual environment    log/      link to this run's logs, or the logs
        models/     the rendered model repository      …         what else the caller writes

It is in /dev/shm because Triton's Python backend needs that anyway, and a start must not depend on free disk
space. The run holds a lock on the folder (flock): an unlocked folder belonged to a dead launcher.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from serve import processes

HOME = Path("/dev/shm")  # noqa: S108  where shm_open() puts its files, too
PREFIX = "youtu-run-"
REGIONS = "triton_python_backend_shm_region_youtu-"
"""Begins the names of all our shared-memory regions. Its first part is Triton's own: Tritons later than 2.51
let no client register a region whose name begins so (docs/ports.md)."""

VARIABLE = "YOUTU_RUN"
"""In the environment of every process of a run: the path of its folder."""

ROOT = Path(__file__).resolve().parent.parent
LOGS_KEPT = 10  # runs whose logs stay in the data folder
END_TIMEOUT = 20.0  # s for killed processes to be gone


class RunFolder:
    """The files of this run, locked for as long as this process lives or until `close`."""

    def __init__(self, data_dir: Path, home: Path = HOME) -> None:
        """Make the folder, and one for its logs in `data_dir`/log. OSError when `home` cannot be written."""
        draft = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}-", dir=home))
        self._lock = _lock(draft)
        # Locked before it has its name: another start takes an unlocked folder for what a dead run left.
        self.path = draft.rename(draft.with_name(draft.name.removeprefix(".")))
        self.name = self.path.name.removeprefix(PREFIX)
        self._log_lock = -1
        self.logs = self._log_folder(data_dir / "log")
        self.link("root", ROOT)
        self.link("python", Path(sys.prefix))
        self.python = self.inside_python(Path(sys.executable))

    @property
    def shared_memory_prefix(self) -> str:
        """Begins the names of Triton's shared-memory regions; another for every run."""
        return f"{REGIONS}{self.name}-"

    @property
    def python_path(self) -> str:
        """PYTHONPATH of our programs."""
        return os.pathsep.join((f"{self.path}/root", f"{self.path}/root/client"))

    def link(self, name: str, target: Path) -> Path:
        """A link of that name in the folder; the path through it is safe, whatever `target` is called."""
        link = self.path / name
        link.symlink_to(target.resolve(), target_is_directory=True)
        return link

    def inside_python(self, path: Path) -> Path:
        """The safe path of a file of the virtual environment; `path` itself when it lies elsewhere."""
        try:
            return self.path / "python" / path.relative_to(sys.prefix)
        except ValueError:
            return path

    def write(self, name: str, text: str) -> Path:
        """Write a file that only we may read."""
        return _write(self.path / name, text)

    def close(self) -> None:
        """Remove the folder and the run's shared memory; the logs stay in the data folder."""
        remove_regions(self.shared_memory_prefix, self.path.parent)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        if self._log_lock >= 0:
            os.close(self._log_lock)

    def _log_folder(self, home: Path) -> Path:
        """`home`/NAME, with `home`/latest linked to it; in this folder when the data folder takes no more."""
        folder = home / self.name
        try:
            home.mkdir(parents=True, exist_ok=True)
            home.chmod(0o700)
            folder.mkdir(mode=0o700)
            self._log_lock = _lock(folder)
            link = home / f".latest-{self.name}"
            link.symlink_to(self.name, target_is_directory=True)
            link.replace(home / "latest")
            # Fails where the disk is full: neither a folder nor a link needs room.
            _write(folder / "started", f"{time.ctime()}\n")
        except OSError:
            folder = self.path / "log"
            folder.mkdir(mode=0o700)
            return folder
        self.link("log", folder)
        _remove_old_logs(home)
        return folder

    @property
    def keeps_logs(self) -> bool:
        """Whether the logs stay when the run ends."""
        return not self.logs.is_relative_to(self.path)

    @property
    def safe_logs(self) -> Path:
        """The folder of the logs by its safe path."""
        return self.path / "log"


def _write(path: Path, text: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock on `folder`; BlockingIOError when a living process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_old_logs(home: Path) -> None:
    folders = sorted(entry for entry in home.iterdir() if entry.is_dir() and not entry.is_symlink())
    for folder in folders[:-LOGS_KEPT]:
        with contextlib.suppress(OSError):  # of a run that goes on
            descriptor = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def end_leftovers(home: Path = HOME) -> list[int]:
    """End what is left of earlier runs whose launcher is dead, and remove their files.

    Returns the pids of the processes that were killed. Runs whose launcher lives, and other users' runs, are
    left alone.
    """
    ended: list[int] = []
    for folder in home.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = _lock(folder)
        except OSError:  # it is in use, or was removed meanwhile
            continue
        try:
            ended += _end_processes(folder)
            remove_regions(f"{REGIONS}{folder.name.removeprefix(PREFIX)}-", home)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
    return ended


def living(home: Path = HOME) -> list[Path]:
    """The folders of this user's runs whose launcher lives, the newest first."""
    found = []
    for folder in sorted(home.glob(f"{PREFIX}*"), reverse=True):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            try:
                os.close(_lock(folder))
            except BlockingIOError:
                found.append(folder)
    return found


def remove_regions(prefix: str, home: Path = HOME) -> None:
    """Remove the shared memory whose name begins with `prefix`: a process that was killed has left it."""
    for region in home.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _end_processes(folder: Path) -> list[int]:
    """Kill every process of the run until there is none: one may start another meanwhile."""
    ended: list[int] = []
    deadline = time.monotonic() + END_TIMEOUT
    while time.monotonic() < deadline:
        found = processes.with_variable(VARIABLE, str(folder))
        processes.send(found, signal.SIGKILL)
        ended += [pid for pid in found if pid not in ended]
        if not found and not any(processes.holds_files(pid) for pid in ended):
            break
        time.sleep(0.05)
    return ended
