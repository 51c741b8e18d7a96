"""Make what a build has brought to this box outlive a power cut, without waiting for what others write to its disk.

uv does not sync what it unpacks, so a build that unpacked something has the system write everything down. Which of
uv's archives that has covered is kept beside them: an environment that is only links into those has few files of its
own, and these are synced one by one.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

DURABLE = ".durable"


def make_durable(building: Path, uv_cache: Path, *, copied: bool) -> None:
    """Return once a power cut leaves all of `building` whole; `copied` says that its files are no links."""
    archives = {path.name for path in uv_cache.glob("archive-v*/*")}  # before the sync, which covers these
    if not copied and archives <= _durable(uv_cache) and _is_linked(building):
        for path in _own_files(building):
            _sync(path)
        return
    os.sync()
    _note(uv_cache, archives)


def _durable(uv_cache: Path) -> set[str]:
    try:
        return set(json.loads((uv_cache / DURABLE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return set()


def _note(uv_cache: Path, archives: set[str]) -> None:
    if not archives:
        return
    draft = uv_cache / f"{DURABLE}-{uuid.uuid4().hex[:8]}"
    with contextlib.suppress(OSError):  # the next build has everything written down again
        draft.write_text(json.dumps(sorted(archives)), "utf-8")
        draft.replace(uv_cache / DURABLE)


def _is_linked(building: Path) -> bool:
    # Where the file system has no links uv copies, and says nothing.
    return all(path.stat().st_nlink > 1 for path in building.glob("lib/*/site-packages/*.dist-info/METADATA"))


def _own_files(building: Path) -> Iterator[Path]:
    for pattern in ("*", "bin/*", "lib/*/site-packages/*", "lib/*/site-packages/*.dist-info/*"):
        for path in building.glob(pattern):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                yield path


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
