"""How much main memory this machine, or the container around us, has left."""

from __future__ import annotations

from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that can be taken without swapping: the system's, or less where a control group says so."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    return min([available, *_control_group_room()])


def _control_group_room() -> list[int]:
    """What the memory limit of our control group (version 2) leaves, if there is one.

    As the kubelet counts: pages of files that were read and are not in use do not count as used. A checkpoint
    just fetched and converted would else fill any limit.
    """
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        folder = CONTROL_GROUPS / group.lstrip("/")
        limit = (folder / "memory.max").read_text().strip()
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used = int((folder / "memory.current").read_text()) - int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return []
    return [] if limit == "max" else [int(limit) - used]
