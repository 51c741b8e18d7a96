"""Measure memory: what the box and its control group leave, and what a child's processes hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from modelrepo_runtime.worker.swap_plan import Room

# A limit this high means "none": version 1 writes the largest multiple of a page.
_UNLIMITED_BYTES = 1 << 60


def host_room(root: Path = Path("/")) -> Room:
    """Measure the memory that a new child may take: MemAvailable, or less where a control group says so."""
    memory = psutil.virtual_memory()
    free, total = [int(memory.available)], [int(memory.total)]
    for limit, used in _cgroups(root):
        free.append(max(0, limit - used))
        total.append(limit)
    return Room(min(free), min(total))


def group_bytes(pid: int) -> int | None:
    """Add up the resident memory of a child and all that descend from it; None where it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(int(one.memory_info().rss) for one in [process, *process.children(recursive=True)])
    except psutil.Error:
        return None


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of the memory control groups that this process is in, innermost first."""
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
