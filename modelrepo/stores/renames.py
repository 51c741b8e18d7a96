"""Exchange two names in one step, where the system can."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_AT_FDCWD = -100


def exchange_names(temporary: Path, path: Path) -> None:
    """Put `temporary` in `path`'s place; what was at `path` is at `temporary` afterwards, nothing where there was none.

    Where the system has no such call, a save between the last two steps is not kept.
    """
    if _exchange(temporary, path):
        return
    kept = temporary.with_name(f"{temporary.name}-kept")
    try:
        os.link(path, kept)
    except OSError:
        temporary.replace(path)
        return
    temporary.replace(path)
    kept.replace(temporary)


def _exchange(one: Path, other: Path) -> bool:
    call = _system_call()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    problem = ctypes.get_errno()
    if problem in (errno.ENOENT, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(problem, os.strerror(problem), str(other))


@cache
def _system_call() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        return lambda one, other: libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return lambda one, other: libc.renamex_np(one, other, _RENAME_SWAP)
    return None
