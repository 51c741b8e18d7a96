"""The memory control groups that this process is in, versions 1 and 2: their limits, and what is used of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# A limit this high means "none": version 1 writes the largest multiple of a page.
_UNLIMITED_BYTES = 1 << 60


def group_limits(root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of each group that has a limit, innermost first; page cache that goes first is not used."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit_file, used_file, cache = (
                root / "sys/fs/cgroup",
                "memory.max",
                "memory.current",
                "inactive_file",
            )
        elif "memory" in controllers.split(","):
            mount, limit_file, used_file = (
                root / "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
            cache = "total_inactive_file"
        else:
            continue
        folder = mount / path.strip("/")
        # In a container the path is the host's: the mount itself is then our own group.
        for group in [folder, *folder.parents] if folder.is_dir() else [mount]:
            limit, used = _number(group / limit_file), _number(group / used_file)
            if limit is not None and used is not None and limit < _UNLIMITED_BYTES:
                yield limit, used - _statistic(group / "memory.stat", cache)
            if group == mount:
                break


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _statistic(path: Path, name: str) -> int:
    """Read one line of memory.stat: page cache that the kernel gives up first does not count as used."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
