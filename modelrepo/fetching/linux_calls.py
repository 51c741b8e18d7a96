"""Two calls of Linux about files that Python lacks; elsewhere, and where a file system knows no such thing, no-ops."""

from __future__ import annotations

import ctypes
import errno
import os

_WRITE = 2  # SYNC_FILE_RANGE_WRITE: begin, do not wait
_NOT_KNOWN = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ESPIPE})

_libc = ctypes.CDLL(None, use_errno=True)
_allocate = getattr(_libc, "fallocate", None)
_write_range = getattr(_libc, "sync_file_range", None)


def allocate(fd: int, size_bytes: int) -> None:
    """Reserve a file's blocks and set its size.

    Not by `posix_fallocate`, which would write into every block where the file system cannot.

    Raises:
        OSError: there is no room, mostly.
    """
    if _allocate is None:
        return
    if _allocate(ctypes.c_int(fd), ctypes.c_int(0), ctypes.c_int64(0), ctypes.c_int64(size_bytes)) != 0:
        number = ctypes.get_errno()
        if number not in _NOT_KNOWN:
            raise OSError(number, os.strerror(number))


def begin_writing(fd: int, start: int, size_bytes: int) -> None:
    """Let the disk begin with a run of bytes, so that the `fsync` at the end finds little left to do."""
    if _write_range is not None:
        _write_range(ctypes.c_int(fd), ctypes.c_int64(start), ctypes.c_int64(size_bytes), ctypes.c_uint(_WRITE))
