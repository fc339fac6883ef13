"""The hub ModelScope, for use where Hugging Face is unreachable: the same files, by their SHA-256.

Its HTTP interface, as its own client (modelscope-hub 0.5) asks it: `/api/v1/models/ID/repo/files` lists, and
`/api/v1/models/ID/repo` gives a file, in ranges where asked.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from build.errors import BuildError
from build.hub_calls import OFFLINE, TIMEOUT, Hub, RemoteFile, Response, Retry, reason

MOST_FILES = 3000  # a listing is cut there without a word
REVISION = "master"


class ModelScope(Hub):
    """The hub that MODELSCOPE_ENDPOINT names when this is made; MODELSCOPE_API_TOKEN is sent to it alone."""

    def __init__(self, repo: str, retry: Retry) -> None:
        super().__init__(repo, os.environ.get("MODELSCOPE_ENDPOINT") or "https://modelscope.cn", retry)
        self._token = os.environ.get("MODELSCOPE_API_TOKEN", "")
        self._client = httpx2.Client(follow_redirects=True, timeout=TIMEOUT)
        self._api = f"{self.endpoint}/api/v1/models/{repo}/repo"

    def listing(self) -> tuple[str, dict[str, RemoteFile]]:
        """A hash of names and checksums, as the listing has no commit; and the files by name."""

        def ask() -> tuple[str, dict[str, RemoteFile]]:
            query = {"Revision": REVISION, "Recursive": "True"}
            response = self._client.get(f"{self._api}/files", params=query, headers=self._headers())
            hf_raise_for_status(response)
            try:
                answer = response.json()
                if answer.get("Success") is False:
                    raise BuildError(f"{self.endpoint} has no model {self.repo}: {answer.get('Message')}")
                listed = answer["Data"]["Files"]
                files = {file.name: file for entry in listed if (file := _file(entry)) is not None}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise BuildError(
                    f"{self.endpoint} does not respond like ModelScope ({error!r}): check "
                    "MODELSCOPE_ENDPOINT and proxies"
                ) from None
            if not files or len(listed) >= MOST_FILES:
                found = f"more than {MOST_FILES} files" if files else "no files with checksums"
                raise BuildError(f"{self.endpoint} lists {found} for {self.repo}")
            facts = "".join(f"{name} {file.checksum}\n" for name, file in sorted(files.items()))
            return hashlib.sha256(facts.encode()).hexdigest()[:40], files

        return self._persist("asking for the list of files", ask, lambda: 0)

    def _open(self, file: RemoteFile, revision: str, headers: dict[str, str]) -> Response:
        query = {"Revision": REVISION, "FilePath": file.name}
        return self._client.stream("GET", self._api, params=query, headers=self._headers() | headers)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _in_words(self, what: str, error: Exception, kept: str) -> str:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403) and self._token:
            return (
                f"{self.endpoint} rejects the MODELSCOPE_API_TOKEN for {self.repo} (status {status}): "
                "check the token"
            )
        if status in (401, 403, 404):
            return (
                f"{self.endpoint} has no {self.repo}, lacks this file, or shows it to members only "
                f"(status {status}): check the name, set MODELSCOPE_API_TOKEN if it is private"
            )
        if status is not None:
            return (
                f"{what} of {self.repo}: {self.endpoint} returned status {status}{kept}: "
                f"try again later, {OFFLINE}"
            )
        return (
            f"{what} of {self.repo}: {self.endpoint} cannot be reached ({reason(error)}){kept}: "
            f"check the network, the proxy and MODELSCOPE_ENDPOINT, {OFFLINE}"
        )


def _file(entry: dict[str, Any]) -> RemoteFile | None:
    """None for a folder, and for a file without a checksum."""
    if entry.get("Type") == "tree" or not entry.get("Sha256"):
        return None
    return RemoteFile(str(entry["Path"]), int(entry["Size"]), "sha256", str(entry["Sha256"]).lower())
