"""Measure memory: what the box and its control group leave, less what is promised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from modelrepo_runtime.memory_limits import group_limits
from modelrepo_runtime.worker.footprint import Footprint
from modelrepo_runtime.worker.swap_plan import Room


def host_room(root: Path = Path("/"), evictable_bytes: Callable[[], int] = lambda: 0) -> Room:
    """Measure the memory that a new child may take: MemAvailable, or less where a control group says so.

    What nobody uses of the pool (`evictable_bytes`) is given back before anybody lacks it, and so counts as free.
    """
    memory = psutil.virtual_memory()
    free, total = [int(memory.available)], [int(memory.total)]
    for limit, used in group_limits(root):
        free.append(max(0, limit - used))
        total.append(limit)
    return Room(min(min(free) + evictable_bytes(), min(total)), min(total))


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
