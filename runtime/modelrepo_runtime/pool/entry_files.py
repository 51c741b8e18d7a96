"""Files of the pool one by one: held by a shared flock, sealed by a time, removed only where nobody holds them.

A map keeps the descriptor that it was made from, and with it the lock: what can be locked exclusively is not mapped.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelrepo.holds import try_take

# Somebody looks whether an entry is free: that takes microseconds, unless he is stopped in the middle.
_BUSY_S, _BUSY_POLL_S = 2.0, 0.005


class Attached:
    """An entry that is held: it stays in memory until `release`, or until nothing refers to this any more.

    `fileno` may be handed to children, which hold it too.
    """

    def __init__(self, path: Path, descriptor: int, size_bytes: int, mtime_ns: int) -> None:
        self.path, self.size_bytes, self.mtime_ns = path, size_bytes, mtime_ns
        self._descriptor = descriptor
        self._release = weakref.finalize(self, _let_go, descriptor, mtime_ns)

    def fileno(self) -> int:
        return self._descriptor

    def release(self) -> None:
        """Let go; twice is legal."""
        self._release()


class Damaged(Exception):
    """An entry is not as it was sealed."""


def attach(path: Path, key: str, size_bytes: int) -> Attached | None:
    """Hold an entry; None where there is none. Raises: Damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:
        raise Damaged from None
    try:
        if not _share(descriptor) or not _is_at(descriptor, path):
            return None
        found, seal = os.fstat(descriptor), seal_of(key)
        if (found.st_size, found.st_mtime_ns) != (size_bytes, seal):
            raise Damaged
        attached = Attached(path, descriptor, size_bytes, seal)
        _stamp(descriptor, seal)
        descriptor = -1
        return attached
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def seal_of(key: str) -> int:
    """Return the time of change that an entry must show: drawn from its name, so that no write leaves it as it was."""
    return int(key[:15], 16) % 10**18


def seal(descriptor: int, key: str) -> None:
    """Make a whole file an entry, all but its name."""
    os.fchmod(descriptor, 0o444)
    os.utime(descriptor, ns=(time.time_ns(), seal_of(key)))


def is_free(path: Path) -> bool:
    """Tell whether nobody holds or maps a file: an exclusive lock can be had."""
    return _with_exclusive(path, lambda: None)


def remove_free(path: Path) -> bool:
    """Remove a file that nobody holds; False where somebody does, or it is gone."""
    return _with_exclusive(path, path.unlink)


def remove_dead(path: Path) -> bool:
    """Remove what a dead filler has left; False while its filler lives."""
    hold = try_take(path, shared=False)
    if hold is None:
        return False
    with hold:
        path.unlink(missing_ok=True)
    return True


def _let_go(descriptor: int, seal: int) -> None:
    try:
        _stamp(descriptor, seal)
    finally:
        os.close(descriptor)


def _stamp(descriptor: int, seal: int) -> None:
    """Write down that the entry was used now."""
    with suppress(OSError):
        if os.fstat(descriptor).st_mtime_ns == seal:
            os.utime(descriptor, ns=(time.time_ns(), seal))


def _share(descriptor: int) -> bool:
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_BUSY_POLL_S)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _with_exclusive(path: Path, then: Callable[[], None]) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, path):
            return False
        then()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
