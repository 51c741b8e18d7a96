"""The two locks of a slot: who owns it, and whether any process of it is left."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from modelrepo.errors import AlreadyServed

# A killed child returns its device memory within seconds; a driver that hangs longer needs a person.
LEFTOVERS_END_S = 20.0


class SlotLocks:
    """`owner.lock` is held by the supervisor alone, `slot.lock` also by every process of its children.

    Both are flocks on open files: the kernel lets go of them with the last holder, however that one ends.
    """

    def __init__(self, folder: Path, slot: str) -> None:
        self.folder, self.slot = folder, slot
        self._owner: int | None = None
        self.slot_descriptor = -1

    @property
    def children(self) -> Path:
        """Where each child has a folder, with the record of its process."""
        return self.folder / "children"

    def acquire(
        self, end_recorded_group: Callable[[Path], tuple[int, ...]], *, limit_s: float = LEFTOVERS_END_S
    ) -> tuple[int, ...]:
        """Become the slot's owner, and end what a killed owner's children left; return the pids that were ended.

        Raises:
            AlreadyServed: a live worker owns the slot, or processes of an earlier one cannot be ended.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = os.open(self.folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _try_lock(owner):
            pid = os.pread(owner, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(owner)
            raise AlreadyServed(
                f"cannot serve slot {self.slot}: it is served by pid {pid}; stop that worker, or choose other --slots"
            )
        os.ftruncate(owner, 0)
        os.pwrite(owner, f"{os.getpid()}\n".encode(), 0)
        self._owner = owner
        try:
            return self._take_slot(end_recorded_group, time.monotonic() + limit_s)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of both locks; children that live on keep `slot.lock`. Twice is legal."""
        for descriptor in (self.slot_descriptor, self._owner):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self.slot_descriptor, self._owner = -1, None

    def _take_slot(self, end_recorded_group: Callable[[Path], tuple[int, ...]], until: float) -> tuple[int, ...]:
        ended: list[int] = []
        for folder in sorted(self.children.glob("*")):
            try:
                ended += end_recorded_group(folder)
            except TimeoutError as error:
                raise AlreadyServed(f"cannot serve slot {self.slot}: {error}; it needs a restart of the box") from None
            shutil.rmtree(folder, ignore_errors=True)
        path = self.folder / "slot.lock"
        self.slot_descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        while not _try_lock(self.slot_descriptor):
            if time.monotonic() >= until:
                holders = ", ".join(map(str, holders_of(path))) or "unknown"
                raise AlreadyServed(
                    f"cannot serve slot {self.slot}: processes of an earlier worker hold it (pids {holders}); end them"
                )
            time.sleep(0.02)
        return tuple(ended)


def holders_of(path: Path) -> tuple[int, ...]:
    """List the processes, other than this one, that have a file open; empty where there is no /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if any(link.readlink() == path for link in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return tuple(sorted(found))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
