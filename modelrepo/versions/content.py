"""The bytes that a push can send: where each object lies on this box, found by hashing files once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from modelrepo.errors import InvalidInput
from modelrepo.versions.chunks import Span, cut
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.packing import SourceFile
from modelrepo.versions.window import Window

RING_BYTES = 1 << 20  # of each hashing thread; stays in the processor's cache

Progress = Callable[[str, int, int | None], None]
"""Told of long work: the phase, bytes done, and bytes in all where they are known. Called from one thread at a time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the bytes of one object lie on this box."""

    file: Path
    span: Span
    sha256: str

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            InvalidInput: the file changed after it was hashed.
        """
        data = _read_span(self.file, self.span)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise InvalidInput(f"{self.file} changed while it was being pushed; push again")
        return data


@dataclass(slots=True)
class Content:
    """Files described, and the origin of every object that they are made of."""

    origins: dict[str, Origin] = field(default_factory=dict)

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
                self.origins.setdefault(digest, Origin(draft.source.file, span, digest))
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
    with _opened(file) as stream:
        stream.seek(span.start)
        left = span.size_bytes
        while left:
            count = stream.readinto(buffer[: min(left, len(buffer))])
            if not count:
                raise _shorter(file)
            digest.update(buffer[:count])
            left -= count


def _read_span(file: Path, span: Span) -> bytes:
    with _opened(file) as stream:
        stream.seek(span.start)
        pieces, left = [], span.size_bytes
        while left:
            piece = stream.read(left)
            if not piece:
                raise _shorter(file)
            pieces.append(piece)
            left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _opened(file: Path) -> FileIO:
    try:
        return FileIO(file)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} vanished while it was being pushed; push again") from error


def _shorter(file: Path) -> InvalidInput:
    return InvalidInput(f"{file} became shorter while it was being pushed; push again")


def of_files(files: Iterable[Path]) -> list[SourceFile]:
    """Describe loose files, each packed under its own name."""
    return [SourceFile(file.name, file, 0o644, file.stat().st_size) for file in files]
