"""The bytes that a push can send: where each object lies on this box, found by hashing files once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.errors import InvalidInput
from modelrepo.versions.chunks import Span, cut
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.packing import SourceFile
from modelrepo.versions.window import Window

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
        if len(self.spans) == 1:
            window.submit(self.source.size_bytes, self._read_and_hash)
            return
        # The file's own digest is one long chain, so this thread follows it while others hash the chunks.
        for index, span in enumerate(self.spans):
            data = _read_span(self.source.file, span)
            window.submit(len(data), self._hash_chunk, index, data)
            self._whole.update(data)

    def record(self) -> FileRecord:
        chunks = tuple(
            ChunkRecord(digest, span.size_bytes) for span, digest in zip(self.spans, self.chunks, strict=True)
        )
        whole = self.chunks[0] if len(self.chunks) == 1 else self._whole.hexdigest()
        return FileRecord(self.source.path, self.source.mode, self.source.size_bytes, whole, chunks)

    def _read_and_hash(self) -> None:
        self._hash_chunk(0, _read_span(self.source.file, self.spans[0]))

    def _hash_chunk(self, index: int, data: bytes) -> None:
        self.chunks[index] = hashlib.sha256(data).hexdigest()


def _read_span(file: Path, span: Span) -> bytes:
    try:
        with file.open("rb", buffering=0) as stream:
            pieces, start, left = [], span.start, span.size_bytes
            while left:
                piece = os.pread(stream.fileno(), left, start)
                if not piece:
                    raise InvalidInput(f"{file} became shorter while it was being pushed; push again")
                pieces.append(piece)
                start, left = start + len(piece), left - len(piece)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} vanished while it was being pushed; push again") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def of_files(files: Iterable[Path]) -> list[SourceFile]:
    """Describe loose files, each packed under its own name."""
    return [SourceFile(file.name, file, 0o644, file.stat().st_size) for file in files]
