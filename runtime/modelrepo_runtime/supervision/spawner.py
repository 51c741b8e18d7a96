"""The one thread that starts children, and the marks by which their descendants are known."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from . import descendants

_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_S = 5.0
"""How often ended descendants that nobody waits for are collected."""


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """A command with what it inherits."""

    command: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    stdin: int
    output: int
    pass_fds: tuple[int, ...]
    new_session: bool = True


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started process; `mark` is the number that all its descendants carry."""

    process: subprocess.Popen[bytes]
    mark: int | None


class Spawner:
    """Starts processes from a thread that never ends, since the kernel's parent-death signal follows the thread.

    Makes this process the subreaper, so that what a child leaves behind becomes ours to end. One a process is enough.
    """

    def __init__(self) -> None:
        self.is_subreaper = _become_subreaper()
        self._requests: queue.SimpleQueue[tuple[SpawnRequest, Future[Spawned]]] = queue.SimpleQueue()
        self._own_mark = descendants.mark_of(os.getpid())
        self._alive: dict[int, int | None] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="spawner", daemon=True)
        self._thread.start()

    def spawn(self, request: SpawnRequest) -> Spawned:
        """Start a process. Raises OSError where the kernel refuses."""
        answer: Future[Spawned] = Future()
        self._requests.put((request, answer))
        return answer.result()

    def forget(self, spawned: Spawned) -> None:
        """Say that a process and all its descendants are gone."""
        with self._lock:
            self._alive.pop(spawned.process.pid, None)

    def _serve(self) -> None:
        while True:
            try:
                request, answer = self._requests.get(timeout=_SWEEP_S)
            except queue.Empty:
                self._sweep()
                continue
            try:
                answer.set_result(self._start(request))
            except BaseException as error:  # noqa: BLE001 - belongs to the caller; this thread goes on
                answer.set_exception(error)

    def _start(self, request: SpawnRequest) -> Spawned:
        process = subprocess.Popen(
            list(request.command),
            env=dict(request.env),
            cwd=request.folder,
            stdin=request.stdin,
            stdout=request.output,
            stderr=request.output,
            pass_fds=request.pass_fds,
            start_new_session=request.new_session,
        )
        with self._lock:
            mark = descendants.mark(process.pid, {*self._alive.values(), self._own_mark})
            self._alive[process.pid] = mark
        return Spawned(process, mark)

    def _sweep(self) -> None:
        with self._lock:
            leaders, marks = set(self._alive), set(self._alive.values()) - {None}
        if leaders:
            descendants.collect_zombies(marks, leaders)


_shared: list[Spawner] = []
_shared_lock = threading.Lock()


def shared_spawner() -> Spawner:
    """The process's one spawner, made when first asked for."""
    with _shared_lock:
        if not _shared:
            _shared.append(Spawner())
        return _shared[0]


def _become_subreaper() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        call: Callable[..., int] = ctypes.CDLL(None).prctl
        return call(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    return False
