"""How much memory a pool file may take now, by everything that bounds it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from modelrepo.fetching.disk import human
from modelrepo_runtime.memory_limits import group_limits
from modelrepo_runtime.pool.memory_node import MemoryNode
from modelrepo_runtime.pool.stock import Headroom


def measure(folder: Path, node: MemoryNode | None = None, root: Path = Path("/")) -> Headroom:
    """Measure what is free of the folder's tmpfs, of the box, of our control groups, and of a node."""
    facts = os.statvfs(folder)
    total = facts.f_blocks * facts.f_frsize
    free = {}
    if total:  # a tmpfs without a limit says 0
        free[f"in {folder} (a tmpfs of {human(total)})"] = facts.f_bavail * facts.f_frsize
    free["on this box"] = int(psutil.virtual_memory().available)
    for limit, used in group_limits(root):
        place = f"in the control group's {human(limit)}"
        free[place] = min(free.get(place, limit), max(0, limit - used))
    if node is not None:
        free[f"on memory node {node.number}"] = node.free_bytes()
    return Headroom(free)


def total_bytes(folder: Path) -> int:
    """Return the most that the folder's tmpfs, the box and our control groups could ever give."""
    facts = os.statvfs(folder)
    sizes = [int(psutil.virtual_memory().total), *(limit for limit, _ in group_limits())]
    if facts.f_blocks:
        sizes.append(facts.f_blocks * facts.f_frsize)
    return min(sizes)
