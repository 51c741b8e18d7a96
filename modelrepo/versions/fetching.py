"""Bring files from a repository to this box: every byte is verified before its file gets its final name."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from modelrepo import layout
from modelrepo.errors import Corrupt, ObjectNotFound
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.content import Progress
from modelrepo.versions.disk import Disk
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.window import Window

WHOLE_READ_BYTES = 64 << 20  # a chunk up to this is read in one request
PIECE_BYTES = 16 << 20  # a larger one, which another writer may have made, in pieces of this
LOCAL_PIECE_BYTES = 4 << 20  # from a disk small pieces cost no more requests, and less fresh memory


@dataclass(frozen=True, slots=True)
class Target:
    """A file to bring, where to, and with which mode. The folder must be there; the file must not."""

    record: FileRecord
    path: Path
    mode: int


class Fetcher:
    """Fetches files of one version; `what` names it in errors."""

    def __init__(
        self,
        store: ObjectStore,
        disk: Disk,
        *,
        what: str,
        total_bytes: int,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._store, self._disk, self._what = store, disk, what
        self._progress, self._stop = progress, stop
        self._total, self._done = total_bytes, 0
        self._guard = threading.Lock()
        local = store.ability.local
        self._whole_read_bytes = LOCAL_PIECE_BYTES if local else WHOLE_READ_BYTES
        self._piece_bytes = LOCAL_PIECE_BYTES if local else PIECE_BYTES

    def fetch(self, targets: Iterable[Target], *, then: Callable[[Target], None] | None = None) -> None:
        """Write every target, durably; `then` is called for each file that is whole, from any thread.

        Raises:
            Corrupt: bytes in the repository are not what the manifest says; nothing may be used.
            Stopped, Unreachable, OSError
        """
        with Window(stop=self._stop) as window:
            for target in targets:
                work = _File(target, self._disk, then)
                if len(target.record.chunks) <= 1:
                    window.submit(_held(target.record.size_bytes), self._whole, work)
                    continue
                work.open()
                start = 0
                try:
                    for chunk in target.record.chunks:
                        window.submit(_held(chunk.size_bytes), self._part, work, chunk, start)
                        start += chunk.size_bytes
                except BaseException:
                    work.abandon()
                    raise

    def _whole(self, work: _File) -> None:
        work.open()
        if work.target.record.chunks:
            self._part(work, work.target.record.chunks[0], 0)
        else:
            work.finish()

    def _part(self, work: _File, chunk: ChunkRecord, start: int) -> None:
        try:
            self._copy(work, chunk, start)
        except BaseException:
            work.abandon()
            raise
        work.part_done()

    def _copy(self, work: _File, chunk: ChunkRecord, start: int) -> None:
        key = layout.object_(chunk.sha256)
        try:
            if chunk.size_bytes <= self._whole_read_bytes:
                data = self._store.read(key)
                self._check(work, chunk, len(data), hashlib.sha256(data).hexdigest())
                work.write(data, start)
                self._tell(len(data))
                return
            digest, done = hashlib.sha256(), 0
            while done < chunk.size_bytes:
                data = self._store.read_range(key, done, min(self._piece_bytes, chunk.size_bytes - done))
                if not data:
                    break
                digest.update(data)
                work.write(data, start + done)
                done += len(data)
                self._tell(len(data))
            self._check(work, chunk, done, digest.hexdigest())
        except ObjectNotFound as error:
            raise Corrupt(
                f"cannot fetch {self._what}: object sha256:{chunk.sha256} of {work.target.record.path} is missing "
                f"from {self._store.url}; push the version again",
                path=work.target.record.path,
                digest=chunk.sha256,
            ) from error

    def _check(self, work: _File, chunk: ChunkRecord, size_bytes: int, digest: str) -> None:
        if size_bytes == chunk.size_bytes and digest == chunk.sha256:
            return
        found = f"{size_bytes} bytes instead of {chunk.size_bytes}" if size_bytes != chunk.size_bytes else "other bytes"
        raise Corrupt(
            f"cannot fetch {self._what}: object sha256:{chunk.sha256} of {work.target.record.path} holds {found} in "
            f"{self._store.url}; delete {layout.object_(chunk.sha256)} there and push the version again",
            path=work.target.record.path,
            digest=chunk.sha256,
        )

    def _tell(self, size_bytes: int) -> None:
        if self._progress is None:
            return
        with self._guard:
            self._done += size_bytes
            self._progress("fetch", self._done, self._total)


class _File:
    """One file being written by several threads."""

    def __init__(self, target: Target, disk: Disk, then: Callable[[Target], None] | None) -> None:
        self.target = target
        self._disk, self._then = disk, then
        self._left = len(target.record.chunks)
        self._fd = -1
        self._writers = 0
        self._abandoned = False
        self._guard = threading.Condition()

    def open(self) -> None:
        self._fd = self._disk.create(self.target.path)

    def write(self, data: bytes, start: int) -> None:
        with self._guard:
            if self._abandoned:
                return
            self._writers += 1
        try:
            self._disk.write(self._fd, data, start)
        finally:
            with self._guard:
                self._writers -= 1
                self._guard.notify_all()

    def part_done(self) -> None:
        with self._guard:
            self._left -= 1
            last = self._left == 0 and not self._abandoned
        if last:
            self.finish()

    def finish(self) -> None:
        fd, self._fd = self._fd, -1
        self._disk.seal(fd, self.target.mode)
        if self._then is not None:
            self._then(self.target)

    def abandon(self) -> None:
        """Close the file unfinished, once nobody writes to it: a closed number could become another file's."""
        with self._guard:
            self._abandoned = True
            while self._writers:
                self._guard.wait()
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _held(size_bytes: int) -> int:
    return size_bytes if size_bytes <= WHOLE_READ_BYTES else PIECE_BYTES
