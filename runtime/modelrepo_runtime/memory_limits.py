"""The memory control groups that this process is in, versions 1 and 2: their limits, and what is used of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A limit this high means "none": version 1 writes the largest multiple of a page.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryFiles:
    """One group's folder, and what its files are called in its version of control groups."""

    folder: Path
    version: int

    @property
    def limit_bytes(self) -> int | None:
        """What its processes may have before the kernel ends one of them; None: no limit."""
        return _limit(self.folder / ("memory.max" if self.version == 2 else "memory.limit_in_bytes"))

    @property
    def high_bytes(self) -> int | None:
        """From where on the kernel slows its processes down; None: nowhere, or version 1."""
        return _limit(self.folder / "memory.high") if self.version == 2 else None

    @property
    def used_bytes(self) -> int | None:
        """What its processes have, page cache included."""
        return _number(self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes"))

    @property
    def idle_cache_bytes(self) -> int:
        """Page cache that was not used for long."""
        return self._statistic("inactive_file")

    @property
    def cache_bytes(self) -> int:
        """All page cache, which the kernel gives up before it ends anybody; files on tmpfs are no cache."""
        return self._statistic("inactive_file") + self._statistic("active_file")

    @property
    def kills(self) -> int | None:
        """How many of its processes the kernel has ended for want of memory; None where it does not count them."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return counter(self.folder / name, "oom_kill")

    def _statistic(self, name: str) -> int:
        return counter(self.folder / "memory.stat", name if self.version == 2 else f"total_{name}") or 0


def groups(root: Path = Path("/")) -> Iterator[MemoryFiles]:
    """Yield the groups that may bound this process, innermost first; some have no memory controller."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, version = root / "sys/fs/cgroup", 2
        elif "memory" in controllers.split(","):
            mount, version = root / "sys/fs/cgroup/memory", 1
        else:
            continue
        folder = mount / path.strip("/")
        # In a container the path is the host's: the mount itself is then our own group.
        for group in [folder, *folder.parents] if folder.is_dir() else [mount]:
            yield MemoryFiles(group, version)
            if group == mount:
                break


def group_limits(root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of each group that has a limit, innermost first; page cache that goes first is not used."""
    for group in groups(root):
        limit, used = group.limit_bytes, group.used_bytes
        if limit is not None and used is not None:
            yield limit, used - group.idle_cache_bytes


def memory_info(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return what is available of the box's memory, and all that it has; None where the kernel does not say."""
    meminfo = root / "proc/meminfo"
    available, total = counter(meminfo, "MemAvailable:"), counter(meminfo, "MemTotal:")
    return None if available is None or total is None else (available * 1024, total * 1024)


def out_of_memory_kills(root: Path = Path("/")) -> int | None:
    """Count the processes that the kernel has ended for want of memory: of our own control group, else of the box.

    None where it counts neither.
    """
    own = next((kills for group in groups(root) if (kills := group.kills) is not None), None)
    return counter(root / "proc/vmstat", "oom_kill") if own is None else own


def counter(path: Path, name: str) -> int | None:
    """Read one line `name number` of a file of such lines; None where it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)


def _limit(path: Path) -> int | None:
    found = _number(path)
    return found if found is not None and found < _UNLIMITED_BYTES else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
