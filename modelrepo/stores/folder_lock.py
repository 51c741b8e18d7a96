"""An advisory lock on a folder, against other threads and processes of the box."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK_FILE = ".tmp-lock"
"""Only where the folder itself cannot be locked; the prefix hides it from listings."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder`'s exclusive `flock`; the kernel frees it when the holder dies."""
    descriptor = _lock(folder, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        os.close(descriptor)
        # Linux turns flock over NFS into a record lock, which a folder, never open for writing, cannot have.
        if flags == os.O_RDONLY and error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOLCK):
            return _lock(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
        raise
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
