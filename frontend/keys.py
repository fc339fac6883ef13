"""API keys: a file of names and hashes, and who a given key belongs to.

    # comment
    shop  sha256:5e88…

`python -m frontend.keys FILE NAME` (`make key`) makes a key, adds its line to the file and prints the key,
which is kept nowhere. Keys made so are 256 random bits: a slow hash or a salt would add nothing against
guessing. A short `api_key` is not protected by this module. Independent of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import shlex
import stat
import sys
import threading
import time
from pathlib import Path

import structlog

from serve.settings import Settings

log = structlog.get_logger()

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+sha256:(?P<digest>[0-9A-Fa-f]{64})")
_RECENT_NS = 2 * 10**9
"""A file changed less long ago is read again: a second change may carry the same time stamp."""

_Version = tuple[int, ...]


class KeysError(Exception):
    """The file cannot be used; the message names it and the line."""


class Keys:
    """Name -> SHA-256 of the keys that are accepted. False: nobody is asked for one.

    The file is looked at for every key that is asked about and read again when it has changed.
    """

    def __init__(self, fixed: dict[str, bytes], path: Path | None) -> None:
        self._fixed = fixed
        self._path = path
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._in_file: dict[str, bytes] = {}
        self._fault: str | None = None
        if path is not None:
            self._in_file, self._version = _read(path)

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """`keys_file` and `api_key`, whose name is "api_key". Raises KeysError."""
        fixed = {}
        if settings.api_key is not None:
            fixed["api_key"] = _digest(settings.api_key.get_secret_value().encode())
        keys = cls(fixed, settings.keys_file)
        if settings.keys_file is not None and not keys._in_file:
            raise KeysError(f"keys_file: {settings.keys_file} contains no key; create one with `make key`")
        return keys

    def __bool__(self) -> bool:
        # Not whether there is a key: an emptied file must not let everybody in.
        return bool(self._fixed) or self._path is not None

    def owner(self, key: bytes) -> str | None:
        """The name of a key, None for one that is not accepted. Takes the same time whichever it is.

        Raises KeysError for a key that only the file could know, while the file cannot be used.
        """
        in_file, fault = self._current()
        given, name = _digest(key), None
        for candidate, digest in (in_file | self._fixed).items():
            if hmac.compare_digest(digest, given):
                name = candidate
        if name is None and fault is not None:
            raise KeysError(fault)
        return name

    def _current(self) -> tuple[dict[str, bytes], str | None]:
        """What the file holds now, and why it cannot be used: then it holds nothing."""
        if self._path is None:
            return {}, None
        with self._lock:
            try:
                if self._version is None or self._version != _version(self._path.stat()):
                    self._in_file, self._version = _read(self._path)
                    if self._fault is not None:
                        log.info("the keys file is readable again", path=str(self._path))
                    self._fault = None
            except (KeysError, OSError) as error:
                fault = str(error) if isinstance(error, KeysError) else _unreadable(self._path, error)
                if fault != self._fault:
                    log.error("no key of the keys file is accepted until it is repaired", reason=fault)
                self._in_file, self._version, self._fault = {}, None, fault
            return self._in_file, self._fault


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _version(facts: os.stat_result) -> _Version:
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _unreadable(path: Path, error: OSError) -> str:
    return f"keys_file: {path} cannot be read: {error.strerror}"


def _read(path: Path) -> tuple[dict[str, bytes], _Version | None]:
    """Names and hashes, and the version they are from (None: it may still be changing). Raises KeysError."""
    try:
        # Not blocking: the path may name a pipe that nobody writes to.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            facts = os.fstat(file.fileno())
            _check_access(path, facts)
            text = file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise KeysError(f"keys_file: {path} is not UTF-8: byte {error.start} is not") from error
    except OSError as error:
        raise KeysError(_unreadable(path, error)) from error
    recent = time.time_ns() - max(facts.st_mtime_ns, facts.st_ctime_ns) < _RECENT_NS
    return _parse(path, text), None if recent else _version(facts)


def _check_access(path: Path, facts: os.stat_result) -> None:
    """Raises KeysError when somebody but its owner may write the file, or anybody may read it.

    A mounted secret belongs to another user, and we read it as members of its group.
    """
    if not stat.S_ISREG(facts.st_mode):
        raise KeysError(f"keys_file: {path} is not a regular file")
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid == os.geteuid() and mode & 0o077:
        raise KeysError(
            f"keys_file: {path} has mode {mode:04o}, which makes it accessible to other users; "
            f"run: chmod 600 {shlex.quote(str(path))}"
        )
    if mode & 0o027:
        raise KeysError(
            f"keys_file: {path} belongs to user {facts.st_uid} and has mode {mode:04o}; only its owner "
            "may write it and other users may not read it: set mode 0440 and a group of this server's user"
        )


def _parse(path: Path, text: str) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.removeprefix("\ufeff").strip()  # A byte-order mark, as Windows writes it.
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:  # The line is not shown: somebody may have written a key into it.
            raise KeysError(
                f"keys_file: line {number} of {path} is not `name sha256:<64 hex digits>`: {_fault(line)}"
            )
        if found["name"] in digests:
            raise KeysError(f"keys_file: line {number} of {path}: duplicate name `{found['name']}`")
        digests[found["name"]] = bytes.fromhex(found["digest"])
    return digests


def _fault(line: str) -> str:
    parts = line.split()
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", parts[0]):
        return "the name must be 1 to 64 letters, digits, dots, dashes or underscores"
    if len(parts) != 2:
        return f"it has {len(parts)} parts, not 2"
    kind, colon, digits = parts[1].partition(":")
    if not colon or kind != "sha256":
        return "the second part does not begin with sha256:"
    if re.fullmatch(r"[0-9A-Fa-f]*", digits):
        return f"the hash has {len(digits)} digits"
    return "the hash contains characters that are not hex digits"


def add(path: Path, name: str) -> str:
    """Append a new key's line to the file, which only its owner may read; gives the key. Raises KeysError."""
    key = secrets.token_urlsafe(32)
    line = f"{name}  sha256:{_digest(key.encode()).hex()}\n"
    if _LINE.fullmatch(line.rstrip()) is None:
        raise KeysError(f"a name must be 1 to 64 letters, digits, dots, dashes or underscores, not {name!r}")
    if path.exists():
        if name in _read(path)[0]:
            raise KeysError(f"{path} already has a key named {name}; remove its line first")
        if (before := path.read_bytes()) and not before.endswith(b"\n"):
            line = "\n" + line
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(line)
    return key


def main() -> None:
    """Print a new key, whose hash goes into the file. Exit 1 with one line when it cannot be made."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m frontend.keys FILE NAME")
    try:
        key = add(Path(sys.argv[1]), sys.argv[2])
    except (KeysError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{key}\n")


if __name__ == "__main__":
    main()
