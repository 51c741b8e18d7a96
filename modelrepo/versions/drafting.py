"""From a model's folder to what can be published, its environment apart."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelrepo.contract.spec import ModelSpec
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.layout import COPIES_FOR_PEOPLE
from modelrepo.versions.bundles import Bundles
from modelrepo.versions.checkpoints import Lookup, find_checkpoints
from modelrepo.versions.content import Content, Progress
from modelrepo.versions.git import git_state
from modelrepo.versions.manifest import CheckpointRecord, FileRecord, Manifest
from modelrepo.versions.packing import SourceFile, code_files
from modelrepo.versions.publish import Publication

LOCK_FILE = "uv.lock"


@dataclass(frozen=True, slots=True)
class Packed:
    """A model's files, found and hashed."""

    spec: ModelSpec
    code: tuple[FileRecord, ...]
    checkpoints: Mapping[str, CheckpointRecord]
    content: Content

    def objects(self) -> dict[str, int]:
        files = [*self.code, *(file for record in self.checkpoints.values() for file in record.files)]
        return {chunk.sha256: chunk.size_bytes for file in files for chunk in file.chunks}


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that a push would publish; `checkpoint` is None for code. Bytes that are not new are reused."""

    path: str
    checkpoint: str | None
    size_bytes: int
    sha256: str
    new_bytes: int


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push would do."""

    model: str
    version: str
    files: tuple[PlannedFile, ...]

    @property
    def new_bytes(self) -> int:
        return sum(file.new_bytes for file in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def look(folder: Path, spec: ModelSpec, lookup: Lookup) -> None:
    """Find everything that `pack` would hash, so that what is missing is said before anything slow begins."""
    code_files(folder, spec)
    find_checkpoints(folder, spec, lookup)


def pack(
    folder: Path,
    spec: ModelSpec,
    lookup: Lookup,
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Packed:
    """Find and hash everything that belongs to a version but its environment.

    Raises:
        InvalidCode, InvalidCheckpoint, MissingExtra, Stopped
    """
    code = code_files(folder, spec)
    found = find_checkpoints(folder, spec, lookup)
    local: list[SourceFile] = list(code)
    for checkpoint in found.values():
        if not isinstance(checkpoint, CheckpointRecord):
            local += checkpoint.files
    content = Content()
    records = iter(content.describe(local, progress=progress, stop=stop))
    described = tuple(next(records) for _ in code)
    checkpoints = {
        name: checkpoint
        if isinstance(checkpoint, CheckpointRecord)
        else CheckpointRecord(tuple(next(records) for _ in checkpoint.files), checkpoint.single, checkpoint.source)
        for name, checkpoint in found.items()
    }
    return Packed(spec, described, checkpoints, content)


def plan(packed: Packed, missing: set[str], version: str) -> PushPlan:
    """Say what a push of `packed` would send, where the repository lacks the objects in `missing`."""
    left, files = set(missing), []
    parts: list[tuple[str | None, tuple[FileRecord, ...]]] = [(None, packed.code)]
    parts += [(name, record.files) for name, record in packed.checkpoints.items()]
    for name, records in parts:
        for file in records:
            fresh = {chunk.sha256: chunk.size_bytes for chunk in file.chunks if chunk.sha256 in left}
            left -= fresh.keys()
            files.append(PlannedFile(file.path, name, file.size_bytes, file.sha256, sum(fresh.values())))
    return PushPlan(packed.spec.name, version, tuple(files))


def draft(
    folder: Path,
    packed: Packed,
    environment: EnvironmentRecord,
    *,
    at: str,
    author: str | None = None,
    message: str | None = None,
    bundles: Bundles | None = None,
    lock: Path | None = None,
) -> Publication:
    """Put together what is to be published; the version's id is still open. `lock` may lie above the folder."""
    git, bundles = git_state(folder), bundles or Bundles()
    shown = {name: folder / name for name in COPIES_FOR_PEOPLE} | ({} if lock is None else {LOCK_FILE: lock})
    manifest = Manifest(
        model=packed.spec.name,
        version="",
        created_at=at,
        spec=packed.spec.raw,
        environment=environment,
        code=packed.code,
        checkpoints=packed.checkpoints,
        author=author,
        message=message,
        git_commit=git.commit,
        git_dirty=git.dirty,
        push=secrets.token_hex(8),
    )
    return Publication(
        manifest,
        packed.content.origins,
        bundle_objects=bundles.objects,
        bundles=bundles.documents,
        copies={name: path.read_bytes() for name, path in shown.items() if path.is_file()},
    )
