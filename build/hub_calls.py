"""The requests to a hub, retried when that can help, and their error messages.

Wraps huggingface_hub and its HTTP library; independent of which files are needed and where they are stored.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal, TypeVar

import httpx2  # the HTTP library of huggingface_hub: its exceptions are the ones to catch
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from build.errors import BuildError

log = logging.getLogger(__name__)

T = TypeVar("T")
Response = AbstractContextManager[httpx2.Response]
TIMEOUT = httpx2.Timeout(30.0, connect=10.0)  # seconds without a byte
PROGRESS_BYTES = 1 << 20  # a try that brought fewer counts as failed, so that tries are bounded
RETRY_STATUS = (408, 429, 500, 502, 503, 504)
OFFLINE = "or use a checkpoint folder or .gguf file on this machine: MODEL=/path"


@dataclass(frozen=True)
class Retry:
    """How often a failing request is tried; seconds to wait before the second try, doubled each time."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it; `checksum` is the SHA-256, or git's SHA-1 where it is not in LFS."""

    name: str
    size: int
    algorithm: Literal["sha256", "git-sha1"]
    checksum: str


class NoAnswer(BuildError):
    """The hub cannot be reached, or what it sends breaks off again and again."""


class Hub(ABC):
    """One model on a hub, asked with patience. Every failure leaves as BuildError."""

    def __init__(self, repo: str, endpoint: str, retry: Retry) -> None:
        self.repo, self.endpoint, self._retry = repo, endpoint.rstrip("/"), retry

    @abstractmethod
    def listing(self) -> tuple[str, dict[str, RemoteFile]]:
        """The revision that is fetched, and its files by name. NoAnswer when the hub cannot be reached."""

    @abstractmethod
    def _open(self, file: RemoteFile, revision: str, headers: dict[str, str]) -> Response:
        """A request for the content of a file."""

    @abstractmethod
    def _in_words(self, what: str, error: Exception, kept: str) -> str:
        """What failed and what to do; `kept` follows what is said of the hub."""

    def download(self, file: RemoteFile, revision: str, part: Path, show: Callable[[int], None]) -> None:
        """Bring `part` to the length of `file`, from where it ends; `show` gets its length."""

        def length() -> int:
            return part.stat().st_size if part.exists() else 0

        def go_on() -> None:
            begin = length()
            show(min(begin, file.size))
            if begin >= file.size > 0:
                return
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
            with self._open(file, revision, headers) as response:
                if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    part.unlink()
                    raise httpx2.ReadError("the server does not support this range")
                hf_raise_for_status(response)
                resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
                with part.open("ab" if resumed else "wb", buffering=0) as out:
                    for block in response.iter_bytes():
                        out.write(block)
                        show(min(out.tell(), file.size))
                        if out.tell() > file.size:
                            return  # too long to be right: its checksum will say so
                    os.fsync(out.fileno())
            if length() < file.size:
                raise httpx2.ReadError(f"the connection ended {file.size - length()} bytes early")

        self._persist(f"fetching {file.name}", go_on, length)

    def _persist(self, what: str, ask: Callable[[], T], gained: Callable[[], int]) -> T:
        """`ask`, and again after a wait while its failure may pass; `attempts` in a row may bring nothing."""
        failures, had, attempts = 0, gained(), self._retry.attempts
        while True:
            try:
                return ask()
            except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
                if gained() >= had + PROGRESS_BYTES:
                    failures = 0
                had, failures = gained(), failures + 1
                # nothing answers and nothing ever did: more likely no network than a break
                alone = isinstance(error, httpx2.ConnectError) and not had
                if not _may_pass(error) or failures >= (min(3, attempts) if alone else attempts):
                    kept = "; the part received is kept" if had else ""
                    words = self._in_words(what, error, kept)
                    lost = _may_pass(error) and isinstance(error, httpx2.TransportError)
                    raise (NoAnswer if lost else BuildError)(words) from None
                wait = min(
                    max(self._retry.first_wait * 2 ** (failures - 1), _asked_wait(error)),
                    self._retry.longest_wait,
                )
                log.warning("%s of %s: %s; trying again in %.3g s", what, self.repo, reason(error), wait)
                time.sleep(wait)
            except OSError as error:
                raise BuildError(f"{what} of {self.repo} failed: {error}") from None


class HuggingFace(Hub):
    """The hub that HF_ENDPOINT names when this is made."""

    def __init__(self, repo: str, retry: Retry) -> None:
        super().__init__(repo, os.environ.get("HF_ENDPOINT") or "https://huggingface.co", retry)
        # else the library first asks the public hub, whatever HF_ENDPOINT says, for a list of agent programs
        constants.HF_HUB_DISABLE_TELEMETRY = True
        # get_token() reads HF_TOKEN now; it goes into headers only, never into a message
        self._token: str | bool = get_token() or False

    def listing(self) -> tuple[str, dict[str, RemoteFile]]:
        """The commit that "main" is now, and its files by name."""
        api = HfApi(endpoint=self.endpoint, token=self._token)

        def ask() -> tuple[str, dict[str, RemoteFile]]:
            try:
                info = api.model_info(self.repo, revision="main", timeout=30.0, files_metadata=True)
            except HfHubHTTPError:
                raise
            except (ValueError, KeyError, TypeError) as error:
                raise BuildError(
                    f"{self.endpoint} does not respond like a hub ({error}): check HF_ENDPOINT and proxies"
                ) from None
            files = {}
            for entry in info.siblings or []:
                lfs = entry.lfs
                if lfs is not None:
                    files[entry.rfilename] = RemoteFile(entry.rfilename, lfs.size, "sha256", lfs.sha256)
                elif entry.size is not None and entry.blob_id is not None:
                    files[entry.rfilename] = RemoteFile(
                        entry.rfilename, entry.size, "git-sha1", entry.blob_id
                    )
            if info.sha is None or not files:
                raise BuildError(
                    f"{self.endpoint} lists no files with checksums for {self.repo}: check HF_ENDPOINT"
                )
            return info.sha, files

        return self._persist("asking for the list of files", ask, lambda: 0)

    def _open(self, file: RemoteFile, revision: str, headers: dict[str, str]) -> Response:
        url = hf_hub_url(self.repo, file.name, revision=revision, endpoint=self.endpoint)
        headers = {**build_hf_headers(token=self._token), **headers}
        return get_session().stream("GET", url, headers=headers, timeout=TIMEOUT)

    def _in_words(self, what: str, error: Exception, kept: str) -> str:
        page = f"{self.endpoint}/{self.repo}"
        if isinstance(error, OfflineModeIsEnabled) or constants.is_offline_mode():
            return f"{self.repo} is not on this machine and HF_HUB_OFFLINE is set: unset it, {OFFLINE}"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, RemoteEntryNotFoundError):
            name = error.response.request.url.path.rsplit("/", 1)[-1]
            return f"{self.endpoint} lists {name} of {self.repo} but does not have it: try again later"
        if isinstance(error, GatedRepoError):
            return f"{self.repo} is gated: accept its terms on {page}, then set HF_TOKEN to your token"
        if status in (401, 403) and self._token:
            return f"{self.endpoint} rejects the HF_TOKEN for {self.repo} (status {status}): check the token"
        if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
            return (
                f"{self.endpoint} has no model {self.repo}, or only its members can see it (status "
                f"{status}): "
                "check the name, set HF_TOKEN if it is private"
            )
        if status is not None:
            status_text = f"{self.endpoint} returned status {status}"
            return f"{what} of {self.repo}: {status_text}{kept}: try again later, {OFFLINE}"
        return (
            f"{what} of {self.repo}: {self.endpoint} cannot be reached ({reason(error)}){kept}: "
            f"check the network, the proxy and HF_ENDPOINT, {OFFLINE}"
        )


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in RETRY_STATUS
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def _asked_wait(error: Exception) -> float:
    """The Retry-After of a response, in seconds; 0 when there is none."""
    if isinstance(error, HfHubHTTPError):
        value = error.response.headers.get("Retry-After", "")
        return float(value) if value.isdecimal() else 0.0
    return 0.0


def reason(error: Exception) -> str:
    """The failure in a few words."""
    if isinstance(error, HfHubHTTPError):
        return f"status {error.response.status_code}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
