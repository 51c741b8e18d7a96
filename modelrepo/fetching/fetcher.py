"""Bring files from a repository to this box: every byte is verified before its file gets its final name.

Many files and chunks are under way at once. Each thread hashes a piece and writes it while it is still in the
processor's cache; nothing waits for a batch, and a file's `fsync` holds up nobody but the thread that does it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator

from modelrepo import layout
from modelrepo.errors import Corrupt, ObjectNotFound
from modelrepo.fetching.disk import Disk
from modelrepo.fetching.partial_file import PartialFile
from modelrepo.fetching.partial_file import Target as Target
from modelrepo.progress import Progress
from modelrepo.stores.port import ObjectStore, ReadsInPieces
from modelrepo.versions.manifest import ChunkRecord
from modelrepo.window import Window

WHOLE_READ_BYTES = 64 << 20  # a chunk up to this is read in one request where it cannot be read in pieces
PIECE_BYTES = 16 << 20  # a larger one, which another writer may have made, in requests of this
STREAMS_BYTES = 16 << 20  # what a chunk that is read in pieces counts at most of what is under way: eight are, or
THREADS = 16  # so many small ones


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

    def fetch(self, targets: Iterable[Target], *, then: Callable[[Target], None] | None = None) -> None:
        """Write every target, durably; `then` is called for each file that is whole, from any thread.

        Raises:
            Corrupt: bytes in the repository are not what the manifest says; nothing may be used.
            Stopped, Unreachable, OSError
        """
        files: list[PartialFile] = []
        try:
            with Window(threads=THREADS, stop=self._stop) as window:
                for target in targets:
                    files.append(PartialFile(target, self._disk))
                    _Arriving(self, files[-1], window, then).submit()
        except BaseException:
            for file in files:  # also those whose chunks were still waiting for their turn
                file.abandon()
            raise

    def pieces(self, chunk: ChunkRecord) -> Iterator[bytes | memoryview]:
        """Yield a chunk's bytes as they come, whatever they are."""
        key = layout.object_(chunk.sha256)
        if isinstance(self._store, ReadsInPieces):
            yield from self._store.read_pieces(key)
        elif chunk.size_bytes <= WHOLE_READ_BYTES:
            yield self._store.read(key)
        else:
            done = 0
            while done < chunk.size_bytes:
                data = self._store.read_range(key, done, min(PIECE_BYTES, chunk.size_bytes - done))
                if not data:
                    return
                yield data
                done += len(data)

    def held_bytes(self, size_bytes: int) -> int:
        """Return what a chunk of this size counts while it is under way."""
        if isinstance(self._store, ReadsInPieces) or size_bytes > WHOLE_READ_BYTES:
            return min(size_bytes, STREAMS_BYTES)
        return size_bytes

    def missing(self, target: Target, chunk: ChunkRecord) -> Corrupt:
        """Return the error for a chunk that is not in the repository."""
        return Corrupt(
            f"cannot fetch {self._what}: object sha256:{chunk.sha256} of {target.record.path} is missing "
            f"from {self._store.url}; push the version again",
            path=target.record.path,
            digest=chunk.sha256,
        )

    def spoilt(self, target: Target, chunk: ChunkRecord, size_bytes: int) -> Corrupt:
        """Return the error for a chunk that is not what its name says."""
        found = f"{size_bytes} bytes instead of {chunk.size_bytes}" if size_bytes != chunk.size_bytes else "other bytes"
        return Corrupt(
            f"cannot fetch {self._what}: object sha256:{chunk.sha256} of {target.record.path} holds {found} in "
            f"{self._store.url}; delete {layout.object_(chunk.sha256)} there and push the version again",
            path=target.record.path,
            digest=chunk.sha256,
        )

    def tell(self, size_bytes: int) -> None:
        """Count bytes for whoever watches."""
        if self._progress is None:
            return
        with self._guard:
            self._done += size_bytes
            self._progress("fetch", self._done, self._total)


class _Arriving:
    """One file on its way."""

    def __init__(
        self, fetcher: Fetcher, file: PartialFile, window: Window, then: Callable[[Target], None] | None
    ) -> None:
        self._fetcher, self._file, self._window, self._then = fetcher, file, window, then

    def submit(self) -> None:
        start = 0
        for index, chunk in enumerate(self._file.target.record.chunks):
            self._window.submit(self._fetcher.held_bytes(chunk.size_bytes), self._part, index, chunk, start)
            start += chunk.size_bytes
        if start == 0:
            self._window.submit(0, self._empty)

    def _empty(self) -> None:
        self._file.open()
        self._file.finish()
        self._tell_whole()

    def _part(self, index: int, chunk: ChunkRecord, start: int) -> None:
        try:
            if not self._file.open():  # by the first of its chunks whose turn it is: thousands of files may wait
                return
            if self._file.holds(index, chunk, start):
                self._fetcher.tell(chunk.size_bytes)
            else:
                self._copy(chunk, start)
                self._file.note(index)
            whole = self._file.chunk_done()
        except BaseException:
            self._file.abandon()
            raise
        if whole:
            self._tell_whole()

    def _copy(self, chunk: ChunkRecord, start: int) -> None:
        target, digest, done = self._file.target, hashlib.sha256(), 0
        try:
            for piece in self._fetcher.pieces(chunk):
                self._window.check()
                if done + len(piece) > chunk.size_bytes:
                    raise self._fetcher.spoilt(target, chunk, done + len(piece))
                digest.update(piece)
                self._file.write(piece, start + done)
                done += len(piece)
                self._fetcher.tell(len(piece))
        except ObjectNotFound as error:
            raise self._fetcher.missing(target, chunk) from error
        if done != chunk.size_bytes or digest.hexdigest() != chunk.sha256:
            raise self._fetcher.spoilt(target, chunk, done)
        self._file.written(start, done)

    def _tell_whole(self) -> None:
        if self._then is not None:
            self._then(self._file.target)
