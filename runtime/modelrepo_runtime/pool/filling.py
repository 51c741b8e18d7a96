"""Fill a pool file from the box's disk: read with depth, hashed on the way, never by page faults."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import Corrupt, Stopped
from modelrepo.versions.manifest import ChunkRecord
from modelrepo_runtime.pool.memory_node import MemoryNode
from modelrepo_runtime.pool.reading import ColdFile, buffer
from modelrepo_runtime.pool.stock import STEP_BYTES

# A thread reads, hashes and copies in turn, so twice the cores keep both disk and cores busy; more only wait.
THREADS = min(8, 2 * (os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Content:
    """What an entry holds: `key` is drawn from the digests of its chunks, in order."""

    key: str
    size_bytes: int
    chunks: tuple[ChunkRecord, ...]

    def spans(self) -> Iterator[tuple[int, ChunkRecord]]:
        """Yield each chunk with where it begins."""
        start = 0
        for chunk in self.chunks:
            yield start, chunk
            start += chunk.size_bytes


class Filling:
    """One file on its way into the pool.

    `reserve(start, size)` takes memory for a run of the target, and raises where there is none: nothing is written
    before.
    """

    def __init__(
        self,
        content: Content,
        source: ColdFile,
        target: int,
        reserve: Callable[[int, int], None],
        *,
        stop: Callable[[], bool] | None = None,
        node: MemoryNode | None = None,
    ) -> None:
        self._content, self._source, self._target, self._reserve = content, source, target, reserve
        self._stop, self._node = stop, node
        self._guard = threading.Lock()
        self._spans = iter(content.spans())
        self._reserved = 0
        self._failed = False

    def run(self, threads: int = THREADS) -> None:
        """Fill all of it.

        Raises:
            Corrupt: the file on the disk is not what the manifest says; the message names file and digest.
            Stopped: `stop()` said so.
            NoSpace: from `reserve`.
        """
        threads = max(1, min(threads, len(self._content.chunks)))
        with ThreadPoolExecutor(threads, thread_name_prefix="modelrepo-pool") as pool:
            for lane in [pool.submit(self._lane) for _ in range(threads)]:
                lane.result()

    def _lane(self) -> None:
        try:
            if self._node is not None:
                self._node.bind()
            own = buffer()
            while (span := self._next()) is not None:
                self._copy(*span, own)
        except BaseException:
            self._failed = True
            raise

    def _next(self) -> tuple[int, ChunkRecord] | None:
        """Hand out the next chunk, its memory reserved; None when all are, or one has failed."""
        with self._guard:
            if self._failed:
                return None
            if self._stop is not None and self._stop():
                raise Stopped(f"stopped while {self._source.path} was being brought into the pool")
            span = next(self._spans, None)
            while span is not None and self._reserved < span[0] + span[1].size_bytes:
                size = min(STEP_BYTES, self._content.size_bytes - self._reserved)
                self._reserve(self._reserved, size)
                self._reserved += size
            return span

    def _copy(self, start: int, chunk: ChunkRecord, own: mmap.mmap) -> None:
        digest, end = hashlib.sha256(), start + chunk.size_bytes
        for at, piece in self._source.pieces(start, end, own):
            digest.update(piece)
            while piece:
                written = os.pwrite(self._target, piece, at)
                piece, at = piece[written:], at + written
        if digest.hexdigest() != chunk.sha256:
            raise corrupt(self._source.path, start, end, chunk.sha256)


def corrupt(path: Path, start: int, end: int, digest: str) -> Corrupt:
    """Say that a file on the box is damaged."""
    return Corrupt(
        f"cannot load {path}: its bytes {start} to {end} are not sha256:{digest}, as the manifest says; "
        "`modelrepo verify --local` takes damaged files out, and they are fetched again",
        path=str(path),
        digest=digest,
    )
