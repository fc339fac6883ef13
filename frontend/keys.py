"""API keys: a file of names and hashes, and who a given key belongs to.

    # comment
    shop  sha256:5e88…

`make key` makes a key, adds its line to the file and prints the key, which is kept nowhere. Keys made so are
256 random bits: a slow hash or a salt would add nothing against guessing. Whoever picks a short `api_key` is
not protected by this module. It knows no HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from serve.settings import Settings

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+sha256:(?P<digest>[0-9a-f]{64})")


class KeysError(Exception):
    """The file cannot be used; the message names it and the line."""


class Keys:
    """Name -> SHA-256 of the keys that are accepted. Empty: nobody is asked for one."""

    def __init__(self, digests: dict[str, bytes]) -> None:
        self._digests = digests

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """`keys_file` and `api_key`, whose name is "api_key". Raises KeysError."""
        digests = {} if settings.keys_file is None else _read(settings.keys_file)
        if settings.api_key is not None:
            digests["api_key"] = _digest(settings.api_key.get_secret_value().encode())
        return cls(digests)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, key: bytes) -> str | None:
        """The name of a key, None for one that is not accepted. Takes the same time whichever it is."""
        given, name = _digest(key), None
        for candidate, digest in self._digests.items():
            if hmac.compare_digest(digest, given):
                name = candidate
        return name


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _read(path: Path) -> dict[str, bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"keys_file: {path} cannot be read: {error}") from error
    digests: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:  # The line is not shown: somebody may have written a key into it.
            raise KeysError(f"keys_file: line {number} of {path} is not `name sha256:<64 hex digits>`")
        if found["name"] in digests:
            raise KeysError(f"keys_file: line {number} of {path}: the name {found['name']} stands twice")
        digests[found["name"]] = bytes.fromhex(found["digest"])
    if not digests:
        raise KeysError(f"keys_file: {path} holds no key; make one with `make key`")
    return digests


def add(path: Path, name: str) -> str:
    """Append a new key's line to the file, which only its owner may read; gives the key. Raises KeysError."""
    key = secrets.token_urlsafe(32)
    line = f"{name}  sha256:{_digest(key.encode()).hex()}"
    if _LINE.fullmatch(line) is None:
        raise KeysError(f"a name has 1 to 64 letters, digits, dots, dashes or underscores, not {name!r}")
    if path.exists() and path.stat().st_size and name in _read(path):
        raise KeysError(f"{path} has a key named {name} already; remove its line first")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(line + "\n")
    return key
