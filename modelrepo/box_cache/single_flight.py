"""One fetch of a content at a time on a box, whichever version it is fetched for."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

# Locks that belong to the open file, not to the process: two threads are as strange to each other as two processes.
_LINUX_SET = getattr(fcntl, "F_OFD_SETLK", None)
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})


class ContentLocks:
    """Locks on contents, each a byte of one file: thousands cost one descriptor, and a dead holder's are free.

    Nobody ever waits for a lock while he has others, so there is no order to keep and nothing to deadlock.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._guard = threading.Lock()
        self._taken: set[str] = set()

    def try_take(self, key: str) -> bool:
        """Take the lock of a content; False where another fetch has it."""
        with self._guard:
            if key in self._taken:
                return True
            if not self._set(key, fcntl.F_WRLCK):
                return False
            self._taken.add(key)
            return True

    def release(self, key: str) -> None:
        """Let go of a content's lock."""
        with self._guard:
            self._taken.discard(key)
            self._set(key, fcntl.F_UNLCK)

    def release_all(self) -> None:
        """Let go of every lock; legal at any time."""
        with self._guard:
            self._taken.clear()
            if _LINUX_SET is None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            else:
                fcntl.fcntl(self._descriptor, _LINUX_SET, struct.pack("hhqqi", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _set(self, key: str, how: int) -> bool:
        try:
            if _LINUX_SET is not None:
                place = int(key[:15], 16)  # 60 bits; two contents that share a byte would only wait for each other
                fcntl.fcntl(self._descriptor, _LINUX_SET, struct.pack("hhqqi", how, os.SEEK_SET, place, 1, 0))
            elif how == fcntl.F_WRLCK:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one for all, until `release_all`
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True
