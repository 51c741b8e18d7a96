"""A disk that dies at a chosen change, and forgets what nobody made durable."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from modelrepo.fetching.disk import Disk


class PowerCut(BaseException):
    """Stands for a kill, or for the end of the power: nothing that comes after it happens."""


class FragileDisk(Disk):
    """Dies at its `at`-th change, half-way through it where that is a write; `count` says how many there were.

    As it stands then a killed process leaves it. `lose_power` takes back what was not synced: names, their removal, and
    bytes; nothing is really synced, which would only take time. `attic` is a folder of the same file system, outside of
    what is looked at.
    """

    def __init__(self, attic: Path, at: int | None = None) -> None:
        self.at, self.count = at, 0
        self._attic = attic
        self._guard = threading.RLock()
        self._undo: list[tuple[Path, Callable[[], object]]] = []
        self._unwritten: dict[int, Path] = {}

    def lose_power(self) -> None:
        """Take back every change that was not made durable, the latest first."""
        for path in self._unwritten.values():
            with contextlib.suppress(OSError):
                path.chmod(0o600)
                os.truncate(path, 0)
        for _, undo in reversed(self._undo):
            with contextlib.suppress(OSError):
                undo()

    def make_folder(self, path: Path) -> None:
        self._step()
        missing = [one for one in (path, *path.parents) if not one.exists()]
        super().make_folder(path)
        for one in reversed(missing):
            self._done(one.parent, lambda one=one: shutil.rmtree(one))  # type: ignore[misc]

    def create(self, path: Path) -> int:
        self._step()
        fd = super().create(path)
        self._unwritten[os.fstat(fd).st_ino] = path
        self._done(path.parent, path.unlink)
        return fd

    def reopen(self, path: Path) -> int:
        self._step()
        fd = super().reopen(path)
        if fd >= 0:
            self._unwritten[os.fstat(fd).st_ino] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview, start: int) -> None:
        try:
            self._step()
        except PowerCut:
            super().write(fd, data[: len(data) // 2], start)
            raise
        super().write(fd, data, start)

    def seal(self, fd: int, mode: int) -> None:
        inode = os.fstat(fd).st_ino
        try:
            self._step()
        except PowerCut:
            os.close(fd)
            raise
        os.fchmod(fd, mode)
        os.close(fd)
        self._unwritten.pop(inode, None)

    def link(self, source: Path, target: Path) -> None:
        self._step()
        super().link(source, target)
        self._done(target.parent, target.unlink)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        source.rename(target)
        with self._guard:
            self._unwritten = {inode: target if path == source else path for inode, path in self._unwritten.items()}
        self._done(target.parent, lambda: target.rename(source))
        self.sync_folder(target.parent)

    def sync_folder(self, folder: Path) -> None:
        self._step()
        with self._guard:
            self._undo = [(where, undo) for where, undo in self._undo if where != folder]

    def remove(self, path: Path) -> None:
        if path.exists():
            self._step()
            self._away(path)

    def remove_tree(self, folder: Path) -> None:
        """Remove the files one by one, so that a cut leaves half of them."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.remove(path)
        if folder.exists():
            self._step()
            super().remove_tree(folder)

    def _away(self, path: Path) -> None:
        self._attic.mkdir(parents=True, exist_ok=True)
        kept = self._attic / uuid.uuid4().hex
        path.rename(kept)

        def back() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept.rename(path)

        self._done(path.parent, back)

    def _step(self) -> None:
        with self._guard:
            self.count += 1
            if self.at is not None and self.count >= self.at:
                raise PowerCut

    def _done(self, folder: Path, undo: Callable[[], object]) -> None:
        with self._guard:
            self._undo.append((folder, undo))
