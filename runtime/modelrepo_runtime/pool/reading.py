"""Read a file past the page cache, in large pieces."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

ALIGN_BYTES = 4096
PIECE_BYTES = 4 << 20
"""Of each buffer: what a few threads have asked for keeps a disk busy, and their buffers stay within a shared cache."""
_REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})


class ColdFile:
    """A file that is read once, by several threads: O_DIRECT, or large reads whose cache is given back."""

    def __init__(self, path: Path, *, direct: bool = True) -> None:
        self.path = path
        self._direct = direct and hasattr(os, "O_DIRECT")
        self._fd = self._open()

    def pieces(self, start: int, end: int, buffer: mmap.mmap) -> Iterator[tuple[int, memoryview]]:
        """Yield the bytes from `start` to `end` as (where, view of `buffer`); fewer where the file ends before.

        `buffer` is PIECE_BYTES long and page-aligned, and each view is good until the next.
        """
        view = memoryview(buffer)
        at = start - start % ALIGN_BYTES
        while at < end:
            wanted = min(PIECE_BYTES, -(-(end - at) // ALIGN_BYTES) * ALIGN_BYTES)
            count = self._read(view[:wanted], at)
            first, last = max(start - at, 0), min(end - at, count)
            if last > first:
                yield at + first, view[first:last]
            if at + count >= end:
                break
            if not count or count % ALIGN_BYTES:
                return  # the file is shorter than it should be
            at += count
        if not self._direct:
            with suppress(OSError):
                os.posix_fadvise(self._fd, start, end - start, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        if self._direct:
            try:
                return os.open(self.path, flags | os.O_DIRECT)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self._direct = False
        descriptor = os.open(self.path, flags)
        with suppress(OSError, AttributeError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return descriptor

    def _read(self, view: memoryview, at: int) -> int:
        try:
            return os.preadv(self._fd, [view], at)
        except OSError as error:
            if not self._direct or error.errno not in _REFUSED:
                raise
        # Opened directly, and refused only now, as some filesystems do: each reader goes on with a plain one.
        plain = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.preadv(plain, [view], at)
        finally:
            os.close(plain)


def buffer() -> mmap.mmap:
    """Return memory for one reader: page-aligned, as O_DIRECT wants it."""
    return mmap.mmap(-1, PIECE_BYTES)
