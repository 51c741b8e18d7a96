"""Open a checkpoint's file where it is nearest: the box's pool in shared memory, else the disk."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from pathlib import Path
from typing import Any

PooledFile = tuple[str, int, int]
"""Path in the pool, size in bytes and time of change in nanoseconds, as the supervisor saw them."""


class SharedFile:
    """An open file. A map of it keeps the descriptor, and with it the lock by which the pool knows of its use."""

    def __init__(self, path: Path, pooled: PooledFile | None = None) -> None:
        self.path = path
        found = _open_pooled(pooled, path) if pooled is not None else None
        self.in_pool = found is not None
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if found is None else found
        self._map: mmap.mmap | None = None

    def map(self) -> mmap.mmap:
        """Return the whole file as private memory: what is written stays in this process, and breaks nothing."""
        if self._map is None:
            self._map = mmap.mmap(self.descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        return self._map

    def read_into(self, view: memoryview, at: int) -> None:
        """Fill `view` with the file's bytes from `at`, by reads, which fault no pages. Raises: EOFError."""
        while view:
            count = os.preadv(self.descriptor, [view], at)
            if count == 0:
                raise EOFError(f"{self.path} ends at byte {at}")
            view, at = view[count:], at + count

    def __enter__(self) -> SharedFile:
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self.descriptor)


def _open_pooled(pooled: PooledFile, path: Path) -> int | None:
    """Open an entry of the pool under a shared lock; None, said on standard error, where it is not as it was."""
    name, size, mtime_ns = pooled
    descriptor = -1
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        if (found.st_size, found.st_mtime_ns) == (size, mtime_ns):
            return descriptor
        problem = "it has changed since it was brought there"
    except OSError as error:
        problem = error.strerror or str(error)
    if descriptor >= 0:
        os.close(descriptor)
    print(f"modelrepo: {path} is read from the disk, not from the pool's {name}: {problem}", file=sys.stderr)
    return None
