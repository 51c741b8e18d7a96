"""Find and end what a child has started, wherever it went.

A process group is left by `setsid`, an environment by `exec`, a parent by a double fork. What stays is a resource
limit: each child gets a soft limit for POSIX message queues that nobody else has (drawn from some 400,000 numbers), its
descendants inherit it, and it can be read even of zombies.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

_LEAST = 65536
_NO_LIMIT = 1 << 40
_FIELDS_BEFORE_START = 19
"""Of /proc/<pid>/stat behind the name: field 22 is the start time."""


@dataclass(frozen=True, slots=True)
class Process:
    """One row of /proc."""

    pid: int
    parent: int
    group: int
    session: int
    started: int
    """Clock ticks since boot: with the pid, the identity of a process."""
    zombie: bool


def mark(pid: int, taken: Collection[int | None] = ()) -> int | None:
    """Mark a process and all that it will start with a number of its own. None where the system has no such limits."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_MSGQUEUE)
        top = _NO_LIMIT if hard == resource.RLIM_INFINITY else hard
        if top >= _LEAST:
            number = next(n for n in iter(lambda: random.randrange(top // 2, top), None) if n not in taken)
            resource.prlimit(pid, resource.RLIMIT_MSGQUEUE, (number, hard))
            return number
    return None


def mark_of(pid: int) -> int | None:
    """Read a process's mark; None where it has none or cannot be looked at."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_MSGQUEUE)
        return soft if soft != hard else None
    return None


def read_process(pid: int) -> Process | None:
    """Look at one process; None where it is gone or the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (OSError, ValueError):
        return None
    rest = text[text.rindex(")") + 2 :].split()
    return Process(
        pid, int(rest[1]), int(rest[2]), int(rest[3]), int(rest[_FIELDS_BEFORE_START]), zombie=rest[0] in "ZX"
    )


def all_processes() -> dict[int, Process]:
    """Every process that can be seen."""
    try:
        names = [path.name for path in Path("/proc").iterdir()]
    except OSError:
        return {}
    found = (read_process(int(name)) for name in names if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def below(ancestor: int, processes: dict[int, Process]) -> list[Process]:
    """The descendants of a process."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [ancestor]
    while waiting:
        ours = children.get(waiting.pop(), [])
        found += ours
        waiting += [process.pid for process in ours]
    return found


def family(leader: int, number: int | None) -> list[Process]:
    """All living descendants of this process that belong to a child: its tree, its group, its session, its mark."""
    processes = all_processes()
    tree = {process.pid for process in below(leader, processes)} | {leader}
    return [
        process
        for process in below(os.getpid(), processes)
        if process.pid in tree
        or leader in (process.group, process.session)
        or (number is not None and mark_of(process.pid) == number)
    ]


def end_family(leader: int, number: int | None, limit_s: float) -> tuple[tuple[int, ...], bool]:
    """Kill a child's descendants until none is left, and collect those that became ours.

    The leader itself is its owner's to wait for. Returns the pids ended outside of the leader's group, and whether all
    are gone.
    """
    end = time.monotonic() + limit_s
    orphans: set[int] = set()
    while True:
        members = [process for process in family(leader, number) if process.pid != leader]
        for process in members:
            if process.zombie:
                _collect(process.pid)
            elif process.group != leader:
                orphans.add(process.pid)
        living = [process for process in members if not process.zombie]
        if not living:
            return tuple(sorted(orphans)), True
        if time.monotonic() >= end:
            return tuple(sorted(orphans)), False
        kill_all(process.pid for process in living)
        wait_gone((process.pid for process in living), min(1.0, end - time.monotonic()))


def kill_all(pids: Iterable[int], signal_number: int = signal.SIGKILL) -> None:
    """Signal processes, ignoring those that are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal_number)


def wait_gone(pids: Iterable[int], limit_s: float) -> None:
    """Wait until processes have ended or the time is over."""
    if not hasattr(os, "pidfd_open"):
        time.sleep(min(0.05, max(0.0, limit_s)))
        return
    end = time.monotonic() + limit_s
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll(max(0.0, end - time.monotonic()) * 1000)
        finally:
            os.close(descriptor)


def collect_zombies(marks: Collection[int | None], leaders: Collection[int]) -> None:
    """Wait for ended orphans of our children; never for a process that somebody else of this process started."""
    ours = os.getpid()
    for process in all_processes().values():
        if process.zombie and process.parent == ours and process.pid not in leaders and mark_of(process.pid) in marks:
            _collect(process.pid)


def _collect(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
