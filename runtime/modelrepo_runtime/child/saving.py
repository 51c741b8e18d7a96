"""Keep the states of one attempt: in shared memory, else on the disk, the two newest of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import state_file
from .room import room_on_tmpfs
from .state_file import SUFFIX, Packed

PART = ".part"
KEPT = 2
SPARES = 2
"""Files to be written over that are kept: one of them may be on its way out of the box."""


class Saved(NamedTuple):
    """What became of one state. `path` None: it was not saved, and `why` says why."""

    number: int
    path: Path | None
    size_bytes: int
    blocked_s: float
    in_memory: bool
    why: str = ""
    """Why it is not in shared memory."""


class _File(NamedTuple):
    """A file with its map; held open so that it can be written over without its pages being taken anew."""

    path: Path
    descriptor: int
    view: mmap.mmap
    in_memory: bool


class Saver:
    """The states of one attempt. Numbers go on where those of the attempts before ended."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        """`request`: `folders`, the one in shared memory or None first, `about`, and `first`, the next number."""
        memory, disk = request["folders"]
        self._memory, self._disk = None if memory is None else Path(memory), Path(disk)
        self._about: dict[str, Any] = request["about"]
        self._next: int = request["first"]
        self._kept: list[_File] = []
        self._spares: list[_File] = []
        self._closed = False
        self._saving = threading.Lock()

    def save(self, state: Mapping[str, Any], progress: Mapping[str, Any]) -> Saved:
        """Keep a state; returns once its bytes are where they stay. Raises TypeError for what no state can hold."""
        with self._saving:
            return self._save(state, progress)

    def close(self) -> None:
        """Let go of the files; what is kept of them stays. Nothing is saved any more."""
        with self._saving:
            self._closed = True
            for spare in self._spares:
                _drop(spare)
            for file in self._kept:
                _let_go(file)
            self._kept, self._spares = [], []

    def _save(self, state: Mapping[str, Any], progress: Mapping[str, Any]) -> Saved:
        began = time.perf_counter()
        number = self._next
        about = {**self._about, **progress, "number": number, "saved_at": time.time()}
        packed = state_file.pack(state, about)
        if self._closed:
            return Saved(number, None, packed.size_bytes, 0.0, False, "its stage is over")
        file, why = self._write(packed, number)
        if file is None:
            return Saved(number, None, packed.size_bytes, time.perf_counter() - began, False, why)
        self._next += 1
        self._kept.append(file)
        if len(self._kept) > KEPT:
            self._retire(self._kept.pop(0))
        return Saved(number, file.path, packed.size_bytes, time.perf_counter() - began, file.in_memory, why)

    def _write(self, packed: Packed, number: int) -> tuple[_File | None, str]:
        file = self._take_spare(packed, number)
        if file is not None:
            return self._fill(file, packed, number), ""
        why = "this box has no shared memory for states"
        if self._memory is not None:
            try:
                return self._fill(self._fresh(self._memory, packed, number, in_memory=True), packed, number), ""
            except OSError as error:
                why = _words(error, self._memory)
        try:
            return self._fill(self._fresh(self._disk, packed, number, in_memory=False), packed, number), why
        except OSError as error:
            return None, f"{why}; {_words(error, self._disk)}"

    def _take_spare(self, packed: Packed, number: int) -> _File | None:
        """Return the file of a state before the last two, to be written over, unless it does not fit or is read."""
        for spare in list(self._spares):
            if len(spare.view) != packed.size_bytes:
                self._spares.remove(spare)
                _drop(spare)
            elif _try_lock(spare.descriptor):
                self._spares.remove(spare)
                path = spare.path.with_name(f"{number}{PART}")
                spare.path.replace(path)
                return spare._replace(path=path)
        return None

    def _fresh(self, folder: Path, packed: Packed, number: int, *, in_memory: bool) -> _File:
        for each in (folder.parent.parent, folder.parent, folder):  # not by `parents`: these would be open to others
            each.mkdir(mode=0o700, exist_ok=True)
        if in_memory and room_on_tmpfs(folder) < packed.size_bytes:
            raise OSError(errno.ENOSPC, f"{packed.size_bytes} bytes are more than it has room for")
        path = folder / f"{number}{PART}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _reserve(descriptor, packed.size_bytes)
            view = mmap.mmap(descriptor, packed.size_bytes)
        except (OSError, ValueError):
            os.close(descriptor)
            path.unlink()
            raise
        _try_lock(descriptor)
        return _File(path, descriptor, view, in_memory)

    def _fill(self, file: _File, packed: Packed, number: int) -> _File:
        try:
            state_file.write(packed, file.view)
            if not file.in_memory:
                file.view.flush()
                os.fsync(file.descriptor)
            path = file.path.with_name(f"{number}{SUFFIX}")
            file.path.replace(path)
        except BaseException:
            _drop(file)
            raise
        if not file.in_memory:
            _sync_folder(path.parent)
        fcntl.flock(file.descriptor, fcntl.LOCK_UN)
        return file._replace(path=path)

    def _retire(self, file: _File) -> None:
        """The third newest: nobody starts from it any more, and the next state may be written over it."""
        if not file.in_memory:
            _drop(file)
            return
        path = file.path.with_suffix(PART)
        with contextlib.suppress(OSError):
            file.path.replace(path)
            self._spares.append(file._replace(path=path))
            if len(self._spares) > SPARES:
                _drop(self._spares.pop(0))
            return
        _drop(file)


def _reserve(descriptor: int, size_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
    else:
        os.ftruncate(descriptor, size_bytes)


def _try_lock(descriptor: int) -> bool:
    """Keep readers out of a file while it is written over; False where one reads it now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _let_go(file: _File) -> None:
    os.close(file.descriptor)
    with contextlib.suppress(BufferError):  # a tensor still looks into it: it goes with that
        file.view.close()


def _drop(file: _File) -> None:
    with contextlib.suppress(OSError):
        file.path.unlink()
    _let_go(file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _words(error: OSError, folder: Path) -> str:
    return f"{folder}: {error.strerror or error}"
