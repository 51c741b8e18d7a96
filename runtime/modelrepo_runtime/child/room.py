"""How much memory a file on tmpfs may take before something is killed for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MARGIN_BYTES = 64 << 20
"""Left to everybody else of the box, and of our control group."""
_UNLIMITED_BYTES = 1 << 60


def room_on_tmpfs(folder: Path, root: Path = Path("/")) -> int:
    """Return how many bytes may be written into a folder on tmpfs. Raises OSError where it is not there.

    The file system, the box's memory and the limits of our control groups all count: on tmpfs a group's limit is met
    with a kill, not with an error.
    """
    facts = os.statvfs(folder)
    free = [facts.f_bavail * facts.f_frsize]
    available = _available(root)
    if available is not None:
        free.append(available - MARGIN_BYTES)
    free += [limit - used - MARGIN_BYTES for limit, used in _limits(root)]
    return max(0, min(free))


def _available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of the memory control groups that this process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = mount / path.strip("/")
        # In a container the path is the host's: the mount itself is then our own group.
        for group in [folder, *folder.parents] if folder.is_dir() else [mount]:
            limit, used = _number(group / names[0]), _number(group / names[1])
            if limit is not None and used is not None and limit < _UNLIMITED_BYTES:
                yield limit, used
            if group == mount:
                break


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
