"""Where fetched checkpoints are, and which are complete. Reads only the disk; build.fetch fills it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    mark = mark_of(folder)
    try:
        whole = all((folder / name).stat().st_size == size for name, size in mark["files"].items())
        return Fetched(repo, str(mark["revision"]), folder) if whole else None
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def mark_of(folder: Path) -> dict[str, Any]:
    """What was written last into a folder that is whole; empty where nothing readable was."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def write_mark(folder: Path, mark: dict[str, Any]) -> None:
    """Say that `folder` is whole."""
    draft = folder / f".{MARK}.part"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(mark, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / MARK)
