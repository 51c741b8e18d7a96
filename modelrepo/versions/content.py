"""The bytes that a push can send: where each object lies on this box, found by hashing files once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.versions.chunks import Span, cut
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.origins import FileOrigin, opened, shorter
from modelrepo.versions.packing import SourceFile
from modelrepo.versions.window import Window

RING_BYTES = 1 << 20  # of each hashing thread; stays in the processor's cache

Progress = Callable[[str, int, int | None], None]
"""Told of long work: the phase, bytes done, and bytes in all where they are known. Called from one thread at a time."""


@dataclass(slots=True)
class Content:
    """Files described, and the origin of every object that they are made of."""

    origins: dict[str, FileOrigin] = field(default_factory=dict)

    def describe(
        self,
        files: Sequence[SourceFile],
        *,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> tuple[FileRecord, ...]:
        """Hash files, several at once, with bounded memory; records come in the order of `files`."""
        drafts = [_Draft(file) for file in files]
        total, done = sum(file.size_bytes for file in files), 0
        with Window(stop=stop) as window:
            for draft in drafts:
                draft.hash(window)
                done += draft.source.size_bytes
                if progress is not None:
                    progress("hash", done, total)
        for draft in drafts:
            for span, digest in zip(draft.spans, draft.chunks, strict=True):
                self.origins.setdefault(digest, FileOrigin(draft.source.file, span, digest))
        return tuple(draft.record() for draft in drafts)


class _Draft:
    """A file whose digests are being computed."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self.spans = tuple(cut(source.size_bytes))
        self.chunks = [""] * len(self.spans)
        self._whole = hashlib.sha256()

    def hash(self, window: Window) -> None:
        for index in range(len(self.spans)):
            window.submit(self.spans[index].size_bytes, self._hash_chunk, index)
            if len(self.spans) > 1:
                # The file's own digest is one long chain: this thread follows it, close to those that hash the chunks.
                _update(self._whole, self.source.file, self.spans[index])

    def record(self) -> FileRecord:
        chunks = tuple(
            ChunkRecord(digest, span.size_bytes) for span, digest in zip(self.spans, self.chunks, strict=True)
        )
        whole = self.chunks[0] if len(self.chunks) == 1 else self._whole.hexdigest()
        return FileRecord(self.source.path, self.source.mode, self.source.size_bytes, whole, chunks)

    def _hash_chunk(self, index: int) -> None:
        digest = hashlib.sha256()
        _update(digest, self.source.file, self.spans[index])
        self.chunks[index] = digest.hexdigest()


def _update(digest: hashlib._Hash, file: Path, span: Span) -> None:
    # Through a small buffer: first touch of fresh memory costs more than hashing does.
    buffer = memoryview(bytearray(min(RING_BYTES, span.size_bytes)))
    with opened(file) as stream:
        stream.seek(span.start)
        left = span.size_bytes
        while left:
            count = stream.readinto(buffer[: min(left, len(buffer))])
            if not count:
                raise shorter(file)
            digest.update(buffer[:count])
            left -= count


def of_files(files: Iterable[Path]) -> list[SourceFile]:
    """Describe loose files, each packed under its own name."""
    return [SourceFile(file.name, file, 0o644, file.stat().st_size) for file in files]
