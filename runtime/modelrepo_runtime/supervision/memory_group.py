"""A memory cgroup for each child, on cgroup v1 and v2, where this process may create one."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .descendants import kill_all

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class MemoryGroups:
    """Where children's cgroups go; `problem` says in words why there can be none."""

    parent: Path | None
    version: int
    problem: str | None = None

    def create(self, name: str, limit_bytes: int | None) -> MemoryGroup | None:
        """Make a cgroup, or None where there can be none. A limit that cannot be set is an OSError."""
        if self.parent is None:
            return None
        folder = self.parent / f"modelrepo-{os.getpid()}-{next(_numbers)}-{name}"
        folder.mkdir()
        group = MemoryGroup(folder, self.version)
        try:
            if limit_bytes is not None:
                group.limit(limit_bytes)
        except OSError:
            group.remove()
            raise
        return group


class MakesGroups(Protocol):
    """Where a process gets its cgroup from."""

    def create(self, name: str, limit_bytes: int | None) -> MemoryGroup | None: ...


class SharedMemory:
    """One cgroup for all ranks of a group: made for the first of them, and removed with the last."""

    def __init__(self, groups: MakesGroups) -> None:
        self._groups = groups
        self._lock = threading.Lock()
        self._group: MemoryGroup | None = None
        self._members = 0

    def create(self, name: str, limit_bytes: int | None) -> MemoryGroup | None:
        """Make the cgroup, or join it. A limit that cannot be set is an OSError."""
        with self._lock:
            if self._group is None:
                self._group = self._groups.create(name, limit_bytes)
            if self._group is None:
                return None
            self._members += 1
            return _Member(self._group.folder, self._group.version, self)

    def leave(self) -> bool:
        """One rank and all that it has started are gone."""
        with self._lock:
            self._members -= 1
            if self._group is None or self._members > 0:
                return False
            group, self._group = self._group, None
        group.kill()
        return group.remove()


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """One child's cgroup."""

    folder: Path
    version: int

    def limit(self, size_bytes: int) -> None:
        """Hold memory (and swap with it) to a size."""
        if self.version == 2:
            _write(self.folder / "memory.max", size_bytes)
            swap = self.folder / "memory.swap.max"
            if swap.exists():
                _write(swap, 0)
            with contextlib.suppress(OSError):
                _write(self.folder / "memory.oom.group", 1)
            return
        _write(self.folder / "memory.limit_in_bytes", size_bytes)
        with contextlib.suppress(OSError):
            _write(self.folder / "memory.memsw.limit_in_bytes", size_bytes)

    def add(self, pid: int) -> None:
        """Move a process in; what it starts later is in too."""
        _write(self.folder / "cgroup.procs", pid)

    def pids(self) -> tuple[int, ...]:
        """The processes that are in it."""
        with contextlib.suppress(OSError):
            return tuple(int(line) for line in (self.folder / "cgroup.procs").read_text().split())
        return ()

    def out_of_memory_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return _counter(self.folder / name, "oom_kill")

    def peak_bytes(self) -> int:
        return _number(self.folder / ("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"))

    def kill(self) -> None:
        """Kill whatever is in it."""
        kill_all(self.pids())

    def remove(self) -> bool:
        """Delete it; False where a process is still in it."""
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Member(MemoryGroup):
    """One rank's share of a cgroup: what ends it leaves the other ranks alone."""

    shared: SharedMemory

    def kill(self) -> None:
        """Leave the others to whoever ends the group."""

    def remove(self) -> bool:
        return self.shared.leave()


def find_memory_groups(
    mounts: Path = Path("/proc/self/mounts"), membership: Path = Path("/proc/self/cgroup")
) -> MemoryGroups:
    """Find out whether and where this process may make memory cgroups."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
        lines = [line.split(":", 2) for line in membership.read_text().splitlines() if line]
    except OSError:
        return MemoryGroups(
            None, 0, "this system has no cgroups: a child that runs out of memory may take the worker along"
        )
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            points = [row[1] for row in rows if row[2] == "cgroup" and "memory" in row[3].split(",")]
            return _first_version(points, path)
    for number, _, path in lines:
        points = [row[1] for row in rows if row[2] == "cgroup2"]
        if number == "0" and points:
            return _second_version(Path(points[0]), path)
    return MemoryGroups(
        None, 0, "no memory controller is mounted: a child that runs out of memory may take the worker along"
    )


def remove_abandoned(groups: MemoryGroups) -> None:
    """Delete the empty cgroups of workers that are gone."""
    if groups.parent is None:
        return
    for folder in groups.parent.glob("modelrepo-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not Path("/proc", owner).exists():
            MemoryGroup(folder, groups.version).remove()


def _first_version(points: list[str], path: str) -> MemoryGroups:
    for point in points:
        own = Path(point + path)
        parent = own if own.is_dir() else Path(point)
        return _tried(parent, 1, parent / "memory.limit_in_bytes")
    return MemoryGroups(None, 1, "the memory controller is not mounted here, so children get no memory cgroup")


def _second_version(point: Path, path: str) -> MemoryGroups:
    own = Path(f"{point}{path}".rstrip("/"))
    if not own.is_dir():
        own = point
    try:
        if "memory" not in (own / "cgroup.controllers").read_text().split():
            return MemoryGroups(None, 2, f"cgroup {own} has no memory controller, so children get no memory cgroup")
        if "memory" not in (own / "cgroup.subtree_control").read_text().split():
            _leave_to(own)
            (own / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        return MemoryGroups(
            None, 2, f"cgroup {own} may not be divided ({error.strerror}), so children get no memory cgroup"
        )
    return _tried(own, 2, own / "cgroup.procs")


def _leave_to(own: Path) -> None:
    """Make room for children: v2 allows no processes beside divided cgroups. Moves nobody but this process."""
    members = (own / "cgroup.procs").read_text().split()
    if members == [str(os.getpid())]:
        leaf = own / "modelrepo-worker"
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", os.getpid())


def _tried(parent: Path, version: int, must_exist: Path) -> MemoryGroups:
    probe = parent / f"modelrepo-{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return MemoryGroups(
            None, version, f"no cgroup may be made under {parent} ({error.strerror}), so children get no memory cgroup"
        )
    if not must_exist.exists():
        return MemoryGroups(None, version, f"{parent} is no memory cgroup, so children get none")
    return MemoryGroups(parent, version)


def _write(path: Path, value: int) -> None:
    path.write_text(str(value))


def _number(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def _counter(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
