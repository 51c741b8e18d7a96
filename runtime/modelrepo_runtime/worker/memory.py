"""Measure memory: what the box and its control group leave, less what is promised."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from modelrepo_runtime.worker.footprint import Footprint
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


class Reservations:
    """Memory promised to children of this worker that are still loading: two that load at once see each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promised: list[tuple[int, frozenset[str], int]] = []

    @contextmanager
    def of(self, need: Footprint, devices: frozenset[str]) -> Iterator[None]:
        """Promise a child's memory until it is loaded, and shows in what is measured."""
        promise = (need.host_bytes or 0, devices, need.device_bytes or 0)
        with self._lock:
            self._promised.append(promise)
        try:
            yield
        finally:
            with self._lock:
                self._promised.remove(promise)

    def less(self, host: Room, device: Room | None, devices: frozenset[str]) -> tuple[Room, Room | None]:
        """Take what is promised off what is free."""
        with self._lock:
            host_bytes = sum(promise for promise, _, _ in self._promised)
            device_bytes = sum(promise for _, held, promise in self._promised if held & devices)
        return _less(host, host_bytes), None if device is None else _less(device, device_bytes)


def _less(room: Room, size_bytes: int) -> Room:
    return Room(None if room.free_bytes is None else max(0, room.free_bytes - size_bytes), room.total_bytes)


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
