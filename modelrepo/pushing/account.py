"""What of each file a push had to send, and what the repository had already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from modelrepo.versions.manifest import CheckpointRecord, FileRecord


@dataclass(frozen=True, slots=True)
class FileAccount:
    """A file of a push; `checkpoint` is None for code. New bytes count where they come first; the rest is reused."""

    path: str
    checkpoint: str | None
    size_bytes: int
    sha256: str
    new_bytes: int
    reused_bytes: int


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push would do."""

    model: str
    version: str
    files: tuple[FileAccount, ...]

    @property
    def new_bytes(self) -> int:
        return sum(file.new_bytes for file in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def account(
    code: tuple[FileRecord, ...], checkpoints: Mapping[str, CheckpointRecord], new: Collection[str]
) -> tuple[FileAccount, ...]:
    """Say of each file how much of it lies in the `new` objects, each of which counts once."""
    left, files = set(new), []
    parts: list[tuple[str | None, tuple[FileRecord, ...]]] = [(None, code)]
    parts += [(name, record.files) for name, record in checkpoints.items()]
    for name, records in parts:
        for file in records:
            fresh = {chunk.sha256: chunk.size_bytes for chunk in file.chunks if chunk.sha256 in left}
            left -= fresh.keys()
            sent = sum(fresh.values())
            files.append(FileAccount(file.path, name, file.size_bytes, file.sha256, sent, file.size_bytes - sent))
    return tuple(files)
