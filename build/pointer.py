"""A git-LFS pointer: the few lines that stand for a file in a clone that was made without git-LFS."""

from __future__ import annotations

from pathlib import Path

from build.errors import BuildError

_BEGIN = b"version https://git-lfs"


def refuse_pointer(path: Path) -> None:
    """BuildError when `path` is a git-LFS pointer."""
    with path.open("rb") as file:
        begin = file.read(len(_BEGIN))
    if begin == _BEGIN:
        raise BuildError(
            f"{path} is a git-LFS pointer, not the file itself: run `git lfs pull` in its folder"
        )
