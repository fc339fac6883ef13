"""A Hugging Face hub on 127.0.0.1 that serves one folder, for tests and for trying things by hand.

It speaks what huggingface_hub asks of the real one: model info, tree, and resolve with HEAD, ETag, Range
and the X-Repo-Commit and X-Linked-* headers. Weights are redirected to a second port, as the real hub sends
them to another host. Faults are asked for beforehand: break off once, serve a file corrupt, answer with an
error, want a token.

    python -m tests.build.hub --root build/demo/checkpoint --repo tencent/Youtu-LLM-2B --break-once
    model.safetensors HF_ENDPOINT=http://127.0.0.1:PORT make serve MODEL=tencent/Youtu-LLM-2B
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from tests.limits import WAIT_S

ALWAYS = 1 << 30


@dataclass
class Asked:
    """A request as it came in, and how many bytes of body went out for it."""

    method: str
    path: str
    range: str | None
    token: str | None
    port: int
    sent: int = 0


@dataclass
class Faults:
    """What is to go wrong, by file name; each count goes down as it does."""

    break_at: dict[str, list[int]] = field(
        default_factory=dict
    )  # after so many bytes of the file, one per GET
    corrupt: dict[str, int] = field(default_factory=dict)  # times
    statuses: list[int] = field(default_factory=list)  # of the next requests
    retry_after: str | None = None
    token: str | None = None  # without it: 401
    gated: bool = False
    ignore_range: bool = False
    missing: set[str] = field(default_factory=set)  # listed, but 404


class FakeHub:
    """`with FakeHub(folder, "organisation/name") as hub:` serves at `hub.url`; `hub.asked` says what."""

    def __init__(
        self,
        root: Path,
        repo: str,
        *,
        port: int = 0,
        faults: Faults | None = None,
        handler: type[_Handler] | None = None,
    ) -> None:
        self.root, self.repo, self.faults = root, repo, faults or Faults()
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        bound = type("Handler", (handler or _Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", number), bound) for number in (port, 0)]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def files(self) -> dict[str, Path]:
        return {
            str(path.relative_to(self.root)): path for path in sorted(self.root.rglob("*")) if path.is_file()
        }

    @property
    def commit(self) -> str:
        facts = "".join(name + _sum(path)[1] for name, path in self.files().items())
        return hashlib.sha1(facts.encode()).hexdigest()

    def bodies(self, name: str) -> list[Asked]:
        """The GET requests that were answered with content of the file."""
        wanted = self.files()[name]
        return [
            asked
            for asked in self.asked
            if asked.method == "GET"
            and asked.sent
            and asked.path.endswith((f"/{name}", f"/{_sum(wanted)[1]}"))
        ]


def _sum(path: Path) -> tuple[bool, str]:
    """Whether a file is in LFS, and what the hub calls it: SHA-256, or git's SHA-1."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return True, hashlib.sha256(content).hexdigest()
    return False, hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    timeout = WAIT_S

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def port(self) -> int:
        return cast("tuple[str, int]", self.server.server_address)[1]

    def _answer(self) -> None:
        hub, faults = self.hub, self.hub.faults
        path = unquote(urlsplit(self.path).path)
        asked = Asked(
            self.command, path, self.headers.get("Range"), self.headers.get("Authorization"), self.port
        )
        with hub.lock:
            hub.asked.append(asked)
            status = faults.statuses.pop(0) if faults.statuses else 200
        if status != 200:
            extra = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            return self._error(status, "", f"status {status} as asked", **extra)
        if digest := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            return self._cdn(digest[1], asked)
        if faults.token is not None and asked.token != f"Bearer {faults.token}":
            if asked.token is not None:
                return self._error(401, "", "Invalid credentials in Authorization header")
            return self._error(401, "RepoNotFound", "Invalid username or password.")
        if match := re.fullmatch(rf"/api/models/{re.escape(hub.repo)}(?:/revision/([^/]+))?", path):
            return self._json(self._info(), asked)
        if match := re.fullmatch(rf"/api/models/{re.escape(hub.repo)}/tree/([^/]+)", path):
            return self._json(self._tree(), asked)
        if match := re.fullmatch(rf"/{re.escape(hub.repo)}/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], asked)
        return self._error(404, "RepoNotFound", "Repository not found")

    def _info(self) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for name, path in self.hub.files().items():
            size, (lfs, digest) = path.stat().st_size, _sum(path)
            entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": digest[:40]}
            if lfs:
                entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append(entry)
        return {
            "_id": "0" * 24,
            "id": self.hub.repo,
            "modelId": self.hub.repo,
            "sha": self.hub.commit,
            "private": False,
            "gated": "manual" if self.hub.faults.gated else False,
            "disabled": False,
            "tags": [],
            "siblings": siblings,
        }

    def _tree(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for name, path in self.hub.files().items():
            size, (lfs, digest) = path.stat().st_size, _sum(path)
            entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": digest[:40]}
            if lfs:
                entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
            entries.append(entry)
        return entries

    def _resolve(self, revision: str, name: str, asked: Asked) -> None:
        hub = self.hub
        if hub.faults.gated:
            return self._error(403, "GatedRepo", "Access to this model is restricted")
        if revision not in ("main", hub.commit):
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        if name not in hub.files() or name in hub.faults.missing:
            return self._error(404, "EntryNotFound", "Entry not found")
        lfs, digest = _sum(hub.files()[name])
        size = hub.files()[name].stat().st_size
        headers = {"X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
        if lfs:
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(size),
                "Location": f"{hub.cdn}/cdn/{digest}",
            }
            return self._head(302, 0, headers)
        return self._body(name, headers, asked)

    def _cdn(self, digest: str, asked: Asked) -> None:
        for name, path in self.hub.files().items():
            if _sum(path)[1] == digest:
                return self._body(name, {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}, asked)
        return self._error(404, "", "no such blob")

    def _body(self, name: str, headers: dict[str, str], asked: Asked) -> None:
        faults, content = self.hub.faults, self.hub.files()[name].read_bytes()
        begin, status = 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.range or "")
        if wanted and not faults.ignore_range:
            begin, status = int(wanted[1]), 206
            if begin >= len(content):
                return self._error(416, "", "no such range", **{"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        stop = len(content)
        if self.command == "GET":
            with self.hub.lock:
                if faults.corrupt.get(name, 0) > 0:
                    faults.corrupt[name] -= 1
                    content = content[:-1] + bytes([content[-1] ^ 1])
                if breaks := faults.break_at.get(name):
                    stop = breaks.pop(0)
        self._head(status, len(content) - begin, headers)
        if self.command == "HEAD":
            return
        part = content[begin : max(stop, begin)]
        asked.sent = len(part)
        self.wfile.write(part)
        if stop < len(content):
            self.wfile.flush()
            self.close_connection = True  # with fewer bytes than Content-Length said

    def _json(self, value: object, asked: Asked) -> None:
        body = json.dumps(value).encode()
        self._head(200, len(body), {"Content-Type": "application/json"})
        asked.sent = len(body)
        self.wfile.write(body)

    def _error(self, status: int, code: str, message: str, **headers: str) -> None:
        if code:
            headers["X-Error-Code"] = code
        self._head(status, 0, {"X-Error-Message": message, **headers})

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def main() -> None:
    """Serve until interrupted; the address is the first line on stdout, then a line per request."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.build.hub", description="a hub that serves one folder"
    )
    parser.add_argument("--root", type=Path, required=True, help="the checkpoint folder to serve")
    parser.add_argument("--repo", default="tencent/Youtu-LLM-2B")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--break-once", metavar="FILE", help="break off in the middle of this file once")
    parser.add_argument("--corrupt-once", metavar="FILE")
    parser.add_argument("--corrupt-always", metavar="FILE")
    parser.add_argument("--token", help="answer 401 without this token")
    arguments = parser.parse_args()
    for name in ("", arguments.break_once, arguments.corrupt_once, arguments.corrupt_always):
        if name is not None and not (arguments.root / name).exists():
            sys.exit(f"{arguments.root / name} does not exist")
    faults = Faults(token=arguments.token)
    if arguments.break_once:
        faults.break_at[arguments.break_once] = [(arguments.root / arguments.break_once).stat().st_size // 2]
    if arguments.corrupt_once:
        faults.corrupt[arguments.corrupt_once] = 1
    if arguments.corrupt_always:
        faults.corrupt[arguments.corrupt_always] = ALWAYS
    with FakeHub(arguments.root, arguments.repo, port=arguments.port, faults=faults) as hub:
        print(hub.url, flush=True)
        shown = 0
        try:
            while True:
                threading.Event().wait(0.2)
                for asked in hub.asked[shown:]:
                    print(f"{asked.method} {asked.path} {asked.range or ''}".rstrip(), flush=True)
                    shown += 1
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
