"""From a model's folder to what can be published, its environment apart."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelrepo.contract.spec import ModelSpec
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.layout import COPIES_FOR_PEOPLE
from modelrepo.progress import Progress
from modelrepo.publication.publish import Publication
from modelrepo.pushing.checkpoints import FoundCheckpoint, Lookup, find_checkpoints
from modelrepo.pushing.content import Content
from modelrepo.pushing.earlier import Earlier, reuse_checkpoints
from modelrepo.pushing.git import git_state
from modelrepo.pushing.packing import SourceFile, code_files
from modelrepo.pushing.sources import Source
from modelrepo.versions.bundles import Bundles
from modelrepo.versions.manifest import CheckpointRecord, FileRecord, Manifest

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
class Found:
    """What belongs to a version, not yet read; the repository already has the bytes of what is a record."""

    spec: ModelSpec
    code: tuple[SourceFile, ...]
    checkpoints: Mapping[str, FoundCheckpoint]


def look(
    folder: Path, spec: ModelSpec, lookup: Lookup, *, reuse: Manifest | None = None, earlier: Earlier = tuple
) -> Found:
    """Find everything that belongs to a version but its environment; nothing is read yet.

    `reuse` gives every checkpoint, so that those of this box may be missing. `earlier` versions of the model may know
    what a remote source holds.

    Raises:
        InvalidCode, InvalidCheckpoint, MissingExtra
    """
    code = code_files(folder, spec)
    if reuse is not None:
        return Found(spec, code, reuse_checkpoints(spec, reuse))
    return Found(spec, code, find_checkpoints(folder, spec, lookup, earlier=earlier))


def pack(
    found: Found,
    content: Content | None = None,
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Packed:
    """Hash what was found; with a delivery in `content`, send it too. Raises: InvalidInput, Stopped."""
    content = content or Content()
    unread: list[Source] = list(found.code)
    for checkpoint in found.checkpoints.values():
        unread += [file for file in checkpoint.files if not isinstance(file, FileRecord)]
    read = iter(content.describe(unread, progress=progress, stop=stop))
    code = tuple(next(read) for _ in found.code)
    checkpoints = {}
    for name, checkpoint in found.checkpoints.items():
        files = tuple(file if isinstance(file, FileRecord) else next(read) for file in checkpoint.files)
        checkpoints[name] = CheckpointRecord(files, checkpoint.single, checkpoint.source)
    return Packed(found.spec, code, checkpoints, content)


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
