"""Where fetched checkpoints lie, and which of them are whole. Asks the disk only; build.fetch fills it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

MARK = "fetched.json"  # written last: revision, and the size of each file


@dataclass(frozen=True)
class Fetched:
    """A whole checkpoint in `path`, as it was at the commit `revision`."""

    repo: str
    revision: str
    path: Path


def folder_of(repo: str, data_dir: Path) -> Path:
    """Where the files of `repo` are kept."""
    return data_dir / "downloads" / repo.replace("/", "--")


def fetched(repo: str, data_dir: Path) -> Fetched | None:
    """What an earlier fetch() left, if it is whole; asks the disk only."""
    folder = folder_of(repo, data_dir)
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in mark["files"].items())
        return Fetched(repo, str(mark["revision"]), folder) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
