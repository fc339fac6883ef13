"""The knowledge base: the documents of one folder and those below it, read once and again when they change.

Only regular files below the folder are read: no link is followed, neither to a file nor to a folder, also
where one takes a file's place between two looks. Names that begin with a dot are passed over. What was read
is kept in the run's folder, so that a frontend that is replaced does not read everything again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from .library import Document
from .reader import Busy, Contents, Reader
from .unreadable import Unreadable

log = structlog.get_logger()

SCAN_S = 5.0
"""How often the folder is looked at."""
FILES = 10_000
BYTES = 512 * 2**20
"""Of all its documents in memory; what is beyond is not read."""
WAIT_S = 600.0
"""How long a file waits behind those that callers send."""

Version = tuple[int, int, int]
"""Time of the last change in nanoseconds, size, inode."""


@dataclass(frozen=True)
class _Entry:
    version: Version
    document: Document | None
    error: Unreadable | None


@dataclass(frozen=True)
class State:
    """What is in the knowledge base. `complete`: all files were looked at once."""

    complete: bool
    documents: tuple[Document, ...]
    unreadable: dict[str, Unreadable]


class Folder:
    """`largest`: bytes of a file. `cache`: where what was read is kept; None keeps it in memory alone."""

    def __init__(self, root: Path, reader: Reader, largest: int, cache: Path | None = None) -> None:
        self._root = root
        self._reader = reader
        self._largest = largest
        self._cache = cache
        self._entries: dict[str, _Entry] = {}
        self._complete = False
        self._missing = False
        self._state = State(False, (), {})

    @property
    def state(self) -> State:
        """As of the last look."""
        return self._state

    def start(self) -> None:
        """Look at it now and every few seconds, in a thread that ends with the process."""
        threading.Thread(target=self._watch, name="documents", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.look()
            except Exception:
                log.exception("documents_not_read")
            pause.wait(SCAN_S)

    def look(self) -> None:
        """Read what is new or changed, forget what is gone."""
        found: set[str] = set()
        read = 0
        for name, version, folder in self._files():
            found.add(name)
            before = self._entries.get(name)
            if before is None or before.version != version:
                self._entries[name] = self._read(name, version, folder)
                read += 1
        gone = self._entries.keys() - found
        for name in gone:
            del self._entries[name]
        first, self._complete = not self._complete, True
        if read or gone or first:
            self._publish()
            self._forget_cached()
            failed = len(self._state.unreadable)
            log.info("documents_read", files=len(found), read=read, gone=len(gone), failed=failed)

    def _publish(self) -> None:
        entries = sorted(self._entries.items())
        documents = tuple(entry.document for _, entry in entries if entry.document is not None)
        unreadable = {name: entry.error for name, entry in entries if entry.error is not None}
        self._state = State(self._complete, documents, unreadable)

    def _files(self) -> Iterator[tuple[str, Version, int]]:
        """Path below the root, version and descriptor of its folder, of each regular file."""
        root = self._root.resolve()
        if root.is_dir() == self._missing:
            self._missing = not self._missing
            if self._missing:
                log.error("documents_missing", folder=str(self._root))
        if self._missing:
            return
        count = 0
        # Relative to descriptors, so that a folder that becomes a link meanwhile leads nowhere else.
        for path, folders, names, folder in os.fwalk(root, follow_symlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                try:
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except OSError:
                    continue
                if name.startswith(".") or not stat.S_ISREG(status.st_mode):
                    continue
                count += 1
                if count > FILES:
                    return
                relative = os.path.relpath(os.path.join(path, name), root)  # noqa: PTH118
                yield relative, (status.st_mtime_ns, status.st_size, status.st_ino), folder

    def _read(self, name: str, version: Version, folder: int) -> _Entry:
        shown = name.encode("utf-8", "replace").decode()
        try:
            answer = self._cached(name, version)
            if answer is None:
                data = self._bytes(name, folder)
                answer = self._reader.read(data, shown, WAIT_S)
                self._keep(name, version, answer)
            contents = Contents.from_json(json.loads(answer))
            used = sum(entry.document.contents.size for entry in self._entries.values() if entry.document)
            if used + contents.size > BYTES:
                message = f"the knowledge base is full: its texts may take {BYTES} bytes of memory"
                raise Unreadable("document_too_long", message)
        except Unreadable as error:
            log.warning("document_not_read", code=error.code)
            return _Entry(version, None, error)
        except (OSError, Busy) as error:
            reason = getattr(error, "strerror", None) or "other files are read"
            # Of no version that a file has, so that it is tried again at the next look.
            return _Entry((0, 0, 0), None, Unreadable("document_damaged", f"it cannot be opened: {reason}"))
        id = f"file-{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"
        return _Entry(version, Document(id, shown, contents), None)

    def _bytes(self, name: str, folder: int) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(os.path.basename(name), flags, dir_fd=folder), "rb") as file:  # noqa: PTH119
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable("document_kind", "this is no regular file")
            data = file.read(self._largest + 1)
        if len(data) > self._largest:
            raise Unreadable("document_too_long", f"the file has more than {self._largest} bytes")
        return data

    # What was read before, by an earlier frontend of this run

    def _place(self, name: str, version: Version) -> Path | None:
        digest = hashlib.sha256(os.fsencode(name) + repr(version).encode()).hexdigest()
        return None if self._cache is None else self._cache / f"{digest}.json"

    def _cached(self, name: str, version: Version) -> bytes | None:
        place = self._place(name, version)
        try:
            return None if place is None else place.read_bytes()
        except OSError:
            return None

    def _keep(self, name: str, version: Version, answer: bytes) -> None:
        place = self._place(name, version)
        if place is None:
            return
        draft = place.with_suffix(".draft")
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            draft.write_bytes(answer)
            draft.replace(place)
        except OSError as error:  # then it is read again by the next frontend
            log.warning("document_not_kept", reason=error.strerror)

    def _forget_cached(self) -> None:
        if self._cache is None or not self._cache.is_dir():
            return
        kept = {self._place(name, entry.version) for name, entry in self._entries.items()}
        for path in self._cache.iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)
