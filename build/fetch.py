"""Download a checkpoint from a hub: resumed after an interruption, verified, marked when complete.

The hub is Hugging Face's, or ModelScope if that is unreachable. For the former, the listing, the
addresses, the token and the connection are huggingface_hub's. The transfer is not, because
its downloads restart from zero after an interruption and compare no checksum. The bytes come over plain
HTTP, never over Xet, so that any mirror set as HF_ENDPOINT serves. This module does not depend on what
the files are for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from build.catalogue import HUBS
from build.downloads import Fetched, fetched, folder_of, write_mark
from build.errors import BuildError
from build.hub_calls import Hub, HuggingFace, NoAnswer, RemoteFile, Retry
from build.locked import locked
from build.modelscope import ModelScope
from build.progress import Report, silent

log = logging.getLogger(__name__)

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "model.safetensors.index.json",
)
PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
SPARE_BYTES = 64 << 20


def fetch(
    repo: str,
    data_dir: Path,
    progress: Report = silent,
    *,
    check: Callable[[Path], Any] | None = None,
    headroom: float = 0.0,
    retry: Retry | None = None,
    more: Sequence[str] = (),
    pickled: bool = False,
    hub: str = "auto",
    modelscope: str | None = None,
) -> Fetched:
    """The checkpoint `repo` of the hub in `data_dir`/downloads, as its main branch is at the time.

    `hub` is one of HUBS; auto asks Hugging Face's, and ModelScope when that does not answer. `modelscope` is
    the id there when it is another.

    A checkpoint that is whole already is returned without a request. `check` is called with the folder when
    the small files are there, before the weights, and may raise. `headroom` is disk space the caller needs
    afterwards, as a share of the weights. `more` are names or globs of further small files; `pickled` weights
    are pytorch_model*.bin. BuildError says what to do: no network, no such model, not allowed, damaged, disk
    full.
    """
    if done := fetched(repo, data_dir):
        return done
    folder = folder_of(repo, data_dir)
    with locked(folder.with_name(f".{folder.name}.lock"), f"fetching {repo}"):
        if done := fetched(repo, data_dir):
            return done
        first, *others = _hubs(hub, repo, modelscope or repo, retry or Retry())
        wanted = _Wanted(check, headroom, more, pickled)
        try:
            return _fetch_from(first, repo, folder, wanted, progress)
        except NoAnswer as error:
            if not others:
                raise
            log.warning("%s does not respond: continuing with %s", first.endpoint, others[0].endpoint)
            try:
                return _fetch_from(others[0], repo, folder, wanted, progress)
            except BuildError as other:
                raise BuildError(f"{error}. {others[0].endpoint} failed too: {other}") from None


@dataclass(frozen=True)
class _Wanted:
    """What the caller of fetch() wants; see there."""

    check: Callable[[Path], Any] | None
    headroom: float
    more: Sequence[str]
    pickled: bool


def _hubs(hub: str, repo: str, there: str, retry: Retry) -> list[Hub]:
    """Those to ask, the first one first. `there`: the id on ModelScope."""
    if hub not in HUBS:
        raise BuildError(f"YOUTU_HUB must be one of {', '.join(HUBS)}, found {hub!r}")
    found: list[Hub] = [] if hub == "modelscope" else [HuggingFace(repo, retry)]
    return found if hub == "huggingface" else [*found, ModelScope(there, retry)]


def _fetch_from(source: Hub, repo: str, folder: Path, wanted: _Wanted, progress: Report) -> Fetched:
    """What is missing in `folder`. NoAnswer when `source` cannot be reached; what has come is kept."""
    revision, listed = source.listing()
    single = "pytorch_model.bin" if wanted.pickled else "model.safetensors"
    _refuse_other_formats(source, listed, Path(single).suffix)
    folder.mkdir(parents=True, exist_ok=True)
    patterns = (*SMALL_FILES, f"{single}.index.json", *wanted.more)
    small = [listed[name] for name in _matching(listed, patterns)]
    transfer = _Transfer(source, revision, folder, progress)
    transfer.get(small, total=sum(file.size for file in small))
    if wanted.check is not None:
        wanted.check(folder)
    weights = _weights(source, folder, listed, single)
    missing = sum(file.size - transfer.present(file) for file in weights)
    _refuse_full_disk(source, folder, missing, int(wanted.headroom * sum(file.size for file in weights)))
    transfer.get(weights, total=sum(file.size for file in (*small, *weights)))
    files = {file.name: file.size for file in (*small, *weights)}
    write_mark(folder, {"repo": repo, "hub": source.endpoint, "revision": revision, "files": files})
    return Fetched(repo, revision, folder)


class _Transfer:
    """Brings files into `folder`; a file has its name only when its checksum is right."""

    def __init__(self, hub: Hub, revision: str, folder: Path, progress: Report) -> None:
        self._hub, self._revision, self._folder, self._progress = hub, revision, folder, progress
        self._done = 0

    def get(self, files: list[RemoteFile], total: int) -> None:
        for file in files:
            self._get(file, total)
            self._done += file.size

    def present(self, file: RemoteFile) -> int:
        """How many bytes of the file lie on the disk already."""
        sizes = [path.stat().st_size for path in self._paths(file) if path.exists()]
        return min(file.size, max(sizes, default=0))

    def _paths(self, file: RemoteFile) -> tuple[Path, Path]:
        final = self._folder / file.name
        # the checksum in its name keeps parts of two revisions apart
        return final, final.with_name(f".{final.name}.{file.checksum[:16]}.part")

    def _get(self, file: RemoteFile, total: int) -> None:
        final, part = self._paths(file)
        if final.exists() and self._right(file, final):
            return
        final.parent.mkdir(exist_ok=True)

        def show(size: int) -> None:
            self._progress(f"Fetching {self._hub.repo}", self._done + size, total)

        for again in (False, True):
            self._hub.download(file, self._revision, part, show)
            if self._right(file, part):
                part.replace(final)
                for old in final.parent.glob(f".{final.name}.*.part"):
                    old.unlink()
                return
            part.unlink()
            if not again:
                log.warning("%s of %s arrived corrupted: fetching it again", file.name, self._hub.repo)
        raise BuildError(
            f"{file.name} of {self._hub.repo} arrived corrupted twice: its {file.algorithm} is not the "
            f"{file.checksum} "
            f"that {self._hub.endpoint} states; it was deleted, try again later or from another hub "
            "(HF_ENDPOINT, YOUTU_HUB)"
        )

    def _right(self, file: RemoteFile, path: Path) -> bool:
        if path.stat().st_size != file.size:
            return False
        if file.algorithm == "sha256":
            digest = hashlib.sha256()
        else:
            # what git calls the file: not a guard against an adversary, and the only sum the hub has for
            # small files
            digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        done = 0
        with path.open("rb") as stream:
            while block := stream.read(8 << 20):
                digest.update(block)
                done += len(block)
                if file.size > 256 << 20:
                    self._progress(f"Checking {file.name}", done, file.size)
        return digest.hexdigest() == file.checksum


def _matching(listed: dict[str, RemoteFile], patterns: Sequence[str]) -> list[str]:
    """SMALL_FILES, and plain names, that fit a pattern, in the order of the patterns."""
    names = [name for name in listed if PLAIN_NAME.fullmatch(name) or name in SMALL_FILES]
    return list(dict.fromkeys(name for pattern in patterns for name in names if fnmatch(name, pattern)))


def _refuse_other_formats(hub: Hub, listed: dict[str, RemoteFile], suffix: str) -> None:
    if "config.json" not in listed:
        hint = "; set MODEL= to one of its .gguf files" if any(n.endswith(".gguf") for n in listed) else ""
        raise BuildError(f"{hub.repo} on {hub.endpoint} has no config.json, so it is not a checkpoint{hint}")
    if not any(name.endswith(suffix) for name in listed):
        raise BuildError(
            f"{hub.repo} on {hub.endpoint} has no {suffix} file, the only supported weight format"
        )


def _weights(hub: Hub, folder: Path, listed: dict[str, RemoteFile], single: str) -> list[RemoteFile]:
    """The files that hold the weights: those of the index, else `single`."""
    index = folder / f"{single}.index.json"
    names = [single]
    if index.name in listed:
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{index.name} of {hub.repo} names no weight files: {error!r}") from None
    for name in names:
        if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name) or name not in listed:
            raise BuildError(
                f"{hub.repo} on {hub.endpoint} has no file {name!r}, which should contain weights"
            )
    return [listed[name] for name in names]


def _refuse_full_disk(hub: Hub, folder: Path, missing: int, afterwards: int) -> None:
    free, needed = shutil.disk_usage(folder).free, missing + afterwards + SPARE_BYTES
    if free < needed:
        raise BuildError(
            f"{folder.resolve()} is on a disk with {free / 1e9:.2f} GB free; {hub.repo} needs "
            f"{needed / 1e9:.2f} GB: "
            f"{missing / 1e9:.2f} GB to fetch and {afterwards / 1e9:.2f} GB for the engine. "
            "Free some space, or set YOUTU_DATA_DIR to another disk"
        )
