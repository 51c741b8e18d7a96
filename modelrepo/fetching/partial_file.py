"""A file that is being brought, chunk by chunk in any order, and the journal of what an earlier try had verified.

The journal says which chunks to look at; it is not believed. What it names is hashed once more before it counts, so
neither file nor journal is synced before the end, and a kill or a power cut at any point costs bytes at the most.
Hashing what is on the disk is many times faster than fetching it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelrepo.fetching.disk import Disk
from modelrepo.versions.manifest import ChunkRecord, FileRecord

_RING_BYTES = 256 << 10
_ALLOCATED_BYTES = 16 << 20  # below this there is little to gain by reserving


@dataclass(frozen=True, slots=True)
class Target:
    """A file to bring, where to, and with which mode. The folder must be there.

    With a `journal` an interrupted try is gone on with by the next one of the same two paths; whoever calls sees to it
    that nobody else does at the same time. Without one the file must not be there.
    """

    record: FileRecord
    path: Path
    mode: int
    journal: Path | None = None


class PartialFile:
    """One target being written by several threads."""

    def __init__(self, target: Target, disk: Disk) -> None:
        self.target = target
        self._disk = disk
        self._left = len(target.record.chunks)
        self._fd = self._journal_fd = -1
        self._journal_bytes = 0
        self._noted: frozenset[int] = frozenset()  # worth a look
        self._in_journal: frozenset[int] = frozenset()
        self._users = 0
        self._abandoned = False
        self._guard = threading.Condition()

    def open(self) -> bool:
        """Open or make the file, once, with room for all of it; raises OSError where there is none.

        False once the file is abandoned.
        """
        with self._guard:
            if self._fd < 0 and not self._abandoned:
                self._open()
            return not self._abandoned

    def _open(self) -> None:
        target, size = self.target, self.target.record.size_bytes
        try:
            if target.journal is not None:
                self._fd = self._disk.reopen(target.path)
                if self._fd >= 0:
                    self._look_back(target.journal)
                if len(target.record.chunks) > 1:
                    self._open_journal(target.journal)
            if self._fd < 0:
                self._fd = self._disk.create(target.path)
            if size >= _ALLOCATED_BYTES:
                self._disk.allocate(self._fd, size)
        except BaseException:
            self.abandon()
            raise

    def _look_back(self, journal: Path) -> None:
        size = os.fstat(self._fd).st_size
        if size > self.target.record.size_bytes:
            os.ftruncate(self._fd, self.target.record.size_bytes)
        try:
            self._noted = self._in_journal = _numbers(journal)
        except FileNotFoundError:
            if size == self.target.record.size_bytes:  # one that was finished has no journal any more
                self._noted = frozenset(range(len(self.target.record.chunks)))

    def _open_journal(self, journal: Path) -> None:
        self._journal_fd = self._disk.reopen(journal)
        if self._journal_fd < 0:
            self._journal_fd = self._disk.create(journal)
        self._journal_bytes = os.fstat(self._journal_fd).st_size

    def holds(self, index: int, chunk: ChunkRecord, start: int) -> bool:
        """Say whether an earlier try has left this chunk whole, by looking at its bytes."""
        if index not in self._noted:
            return False
        with self._used() as used:
            if not used or not self._hashes_to(chunk, start):
                return False
        if index not in self._in_journal:
            self.note(index)
        return True

    def write(self, data: bytes | memoryview, start: int) -> None:
        """Write a piece; nothing once the file is abandoned."""
        with self._used() as used:
            if used:
                self._disk.write(self._fd, data, start)

    def written(self, start: int, size_bytes: int) -> None:
        """Let the disk begin with what was written."""
        with self._used() as used:
            if used:
                self._disk.begin_writing(self._fd, start, size_bytes)

    def note(self, index: int) -> None:
        """Write down that a chunk is verified."""
        with self._used() as used:
            if not used or self._journal_fd < 0:
                return
            line = f"\n{index}".encode()  # so that a line which a kill has cut off spoils no other
            with self._guard:
                start, self._journal_bytes = self._journal_bytes, self._journal_bytes + len(line)
            self._disk.write(self._journal_fd, line, start)

    def chunk_done(self) -> bool:
        """Count a chunk; the last one makes the file durable. Says whether it is whole now."""
        with self._guard:
            self._left -= 1
            if self._left > 0 or self._abandoned:
                return False
        self.finish()
        return True

    def finish(self) -> None:
        """Give the file its mode and make it durable."""
        fd, self._fd = self._fd, -1
        self._disk.seal(fd, self.target.mode)
        self._close_journal()
        if self.target.journal is not None:
            self._disk.remove(self.target.journal)

    def abandon(self) -> None:
        """Close the file unfinished, once nobody uses it: a closed number could become another file's."""
        with self._guard:
            self._abandoned = True
            while self._users:
                self._guard.wait()
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self._close_journal()

    def _close_journal(self) -> None:
        with self._guard:
            fd, self._journal_fd = self._journal_fd, -1
        if fd >= 0:
            os.close(fd)

    @contextlib.contextmanager
    def _used(self) -> Iterator[bool]:
        with self._guard:
            used = not self._abandoned
            self._users += used
        try:
            yield used
        finally:
            with self._guard:
                self._users -= used
                self._guard.notify_all()

    def _hashes_to(self, chunk: ChunkRecord, start: int) -> bool:
        digest, left = hashlib.sha256(), chunk.size_bytes
        buffer = memoryview(bytearray(min(_RING_BYTES, chunk.size_bytes)))
        while left and (count := os.preadv(self._fd, [buffer[: min(left, len(buffer))]], start)):
            digest.update(buffer[:count])
            start, left = start + count, left - count
        return not left and digest.hexdigest() == chunk.sha256


def _numbers(journal: Path) -> frozenset[int]:
    lines = journal.read_bytes().split()
    return frozenset(int(line) for line in lines if line.isdigit() and len(line) < 10)
