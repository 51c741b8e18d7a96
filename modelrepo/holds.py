"""Locks on files of this box that last exactly as long as somebody uses what the file stands for.

A hold is a `flock`: shared by those who use a thing, exclusive for the one who makes or removes it. The kernel frees it
with the last process that has it open, however that one ends; children may inherit it. Whoever has a file exclusively
may unlink it: those who wait see that it is no longer the one at its path, and begin anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from modelrepo.errors import Stopped

POLL_S = 0.05  # the kernel tells nobody that a flock became free without blocking him


class Hold:
    """A lock that is held until `release`, or until nothing refers to it any more."""

    def __init__(self, descriptor: int, path: Path, *, shared: bool) -> None:
        self.path = path
        self._descriptor = descriptor
        self._release = weakref.finalize(self, _let_go, descriptor, shared)

    def fileno(self) -> int:
        """Return the descriptor, for children that shall hold on to it too."""
        return self._descriptor

    def release(self) -> None:
        """Let go; twice is legal."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def try_take(path: Path, *, shared: bool) -> Hold | None:
    """Take a hold if it is free; None where it is not. The file is made; its folder must be there.

    A shared hold stamps the file's time as it is taken and as it is let go: the last use of what it stands for. Who may
    only read has it without a stamp.
    """
    while True:
        descriptor = _open(path, shared)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                if shared:
                    _stamp(descriptor)
                return Hold(descriptor, path, shared=shared)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # unlinked by the one who had it before


def take(path: Path, *, shared: bool, stop: Callable[[], bool] | None = None, what: str = "") -> Hold:
    """Take a hold, waiting until it is free.

    Raises:
        Stopped: `stop()` said so before; `what` says in words what was waited for.
    """
    while True:
        hold = try_take(path, shared=shared)
        if hold is not None:
            return hold
        if stop is not None and stop():
            raise Stopped(f"stopped while {what or f'another process held {path}'}")
        time.sleep(POLL_S)


def holders_of(path: Path) -> tuple[int, ...]:
    """List the processes that have a file open; empty where there is no /proc or no such file."""
    try:
        wanted = path.stat()
    except OSError:
        return ()
    processes = (process for process in Path("/proc").glob("[0-9]*") if _has_open(process, wanted))
    return tuple(sorted(int(process.name) for process in processes))


def _has_open(process: Path, wanted: os.stat_result) -> bool:
    try:
        links = list((process / "fd").iterdir())
    except OSError:
        return False
    for link in links:
        try:
            # What a link names spares a stat of sockets, and of devices that may hang.
            if link.readlink().is_absolute() and os.path.samestat(wanted, link.stat()):
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _open(path: Path, shared: bool) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except OSError as error:
        if not shared or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        try:
            return os.open(path, os.O_RDONLY | flags)  # somebody else's cache, or a disk that is only read
        except FileNotFoundError:
            raise error from None


def _stamp(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.utime(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _let_go(descriptor: int, shared: bool) -> None:
    try:
        if shared:
            _stamp(descriptor)
    finally:
        os.close(descriptor)
