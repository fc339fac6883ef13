"""ModelScope on 127.0.0.1, which serves one folder: its listing and its files, in ranges, with faults."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.build.hub import Asked, FakeHub, _Handler


class FakeModelScope(FakeHub):
    """`with FakeModelScope(folder, "organisation/name") as hub:` serves at `hub.url`; faults as FakeHub's."""

    def __init__(self, root: Path, repo: str) -> None:
        super().__init__(root, repo, handler=_ModelScope)

    def bodies(self, name: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.sent and f"FilePath={name}" in asked.path]


class _ModelScope(_Handler):
    def _answer(self) -> None:
        hub, faults = self.hub, self.hub.faults
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        asked = Asked(
            self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"), self.port
        )
        with hub.lock:
            hub.asked.append(asked)
            status = faults.statuses.pop(0) if faults.statuses else 200
        if status != 200:
            extra = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            return self._error(status, "", f"status {status} as asked", **extra)
        if digest := re.fullmatch(r"/cdn/([0-9a-f]{64})", address.path):
            return self._blob(digest[1], asked)
        if faults.token is not None and asked.token != f"Bearer {faults.token}":
            return self._refuse(401, 10010205002, "no permission")
        model = f"/api/v1/models/{hub.repo}/repo"
        if query.get("Revision") != "master" or address.path not in (model, f"{model}/files"):
            return self._refuse(404, 10010205001, "record not found")
        if address.path.endswith("/files"):
            return self._json({"Code": 200, "Data": {"Files": self._files()}, "Success": True}, asked)
        name = query["FilePath"]
        if name not in hub.files() or name in faults.missing:
            return self._refuse(404, 10010205004, "file not found")
        if name.endswith(".safetensors"):  # large files are sent from another host
            return self._head(302, 0, {"Location": f"{hub.cdn}/cdn/{self._sha256(name)}?FilePath={name}"})
        return self._body(name, {"Accept-Ranges": "bytes"}, asked)

    def _files(self) -> list[dict[str, Any]]:
        folder = {"Name": "figures", "Path": "figures", "Type": "tree", "Size": 0, "Sha256": ""}
        return [folder] + [
            {
                "Name": path.name,
                "Path": name,
                "Type": "blob",
                "Size": path.stat().st_size,
                "Sha256": self._sha256(name),
                "Revision": "0" * 40,
                "IsLFS": name.endswith(".safetensors"),
            }
            for name, path in self.hub.files().items()
        ]

    def _sha256(self, name: str) -> str:
        return hashlib.sha256(self.hub.files()[name].read_bytes()).hexdigest()

    def _blob(self, digest: str, asked: Asked) -> None:
        for name in self.hub.files():
            if self._sha256(name) == digest:
                return self._body(name, {"Accept-Ranges": "bytes"}, asked)
        return self._error(404, "", "no such blob")

    def _refuse(self, status: int, code: int, message: str) -> None:
        body = json.dumps({"Code": code, "Message": message, "Success": False}).encode()
        self._head(status, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)
