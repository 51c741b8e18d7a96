"""From a model's folder to a published version."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelrepo.contract import load_spec
from modelrepo.contract.conditions import AcceleratorFacts, choose_extra
from modelrepo.contract.spec import ModelSpec
from modelrepo.environments import EnvironmentCache, IndexSettings, PreparedEnvironment, prepare
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import NoExtraFits
from modelrepo.layout import COPIES_FOR_PEOPLE
from modelrepo.names import check_model_name, check_version_id
from modelrepo.versions.bundles import bundle_of
from modelrepo.versions.box import default_cache
from modelrepo.versions.checkpoints import Lookup, find_checkpoints
from modelrepo.versions.content import Content, Progress
from modelrepo.versions.git import git_state
from modelrepo.versions.manifest import CheckpointRecord, FileRecord, Manifest
from modelrepo.versions.packing import SourceFile, code_files
from modelrepo.versions.publish import Publication

CheckLevel = Literal["import", "resolve", "none"]


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How to push. `locked` refuses to make or change a lock; `lock` makes one even where CI is set."""

    version: str | None = None
    message: str | None = None
    author: str | None = None
    locked: bool = False
    lock: bool = False
    if_changed: bool = False
    check: CheckLevel = "import"
    python: Path | None = None
    index: IndexSettings | None = None
    facts: AcceleratorFacts | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is to be checked before it is published: the packed code, and the interpreter of its environment."""

    folder: Path
    spec: ModelSpec
    python: Path


PushCheck = Callable[[CheckRequest], None]
"""Raises EntrypointFailed where the model cannot be imported."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that a push would publish; `checkpoint` is None for code. What is not new is reused."""

    path: str
    checkpoint: str | None
    size_bytes: int
    digest: str
    new_bytes: int


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push would do."""

    model: str
    version: str
    files: tuple[PlannedFile, ...]
    unchanged: bool

    @property
    def new_bytes(self) -> int:
        return sum(file.new_bytes for file in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push did. `unchanged`: `version` was there with the same content, and nothing was published."""

    model: str
    version: str
    digest: str
    new_bytes: int
    reused_bytes: int
    files: int
    unchanged: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Packed:
    """A model's files, described."""

    spec: ModelSpec
    code: tuple[FileRecord, ...]
    checkpoints: Mapping[str, CheckpointRecord]
    content: Content


def read_spec(folder: Path, options: PushOptions) -> ModelSpec:
    """Read a model's spec and check the names that a push would use."""
    spec = load_spec(folder)
    check_model_name(spec.name)
    if options.version is not None:
        check_version_id(options.version)
    return spec


def pack(
    folder: Path,
    spec: ModelSpec,
    lookup: Lookup,
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Packed:
    """Find and hash everything that belongs to a version but its environment."""
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


def plan(packed: Packed, missing: set[str], version: str, *, unchanged: bool) -> PushPlan:
    """Say what a push of `packed` would send, where the repository lacks the objects in `missing`."""
    left, files = set(missing), []
    parts: list[tuple[str | None, tuple[FileRecord, ...]]] = [(None, packed.code)]
    parts += [(name, record.files) for name, record in packed.checkpoints.items()]
    for name, records in parts:
        for file in records:
            fresh = {chunk.sha256: chunk.size_bytes for chunk in file.chunks if chunk.sha256 in left}
            left -= fresh.keys()
            files.append(PlannedFile(file.path, name, file.size_bytes, file.sha256, sum(fresh.values())))
    return PushPlan(packed.spec.name, version, tuple(files), unchanged)


def prepare_environment(folder: Path, spec: ModelSpec, options: PushOptions, work: Path) -> PreparedEnvironment:
    """Lock the environment and collect the wheels that no other box could get."""
    index = options.index or IndexSettings.from_environment()
    return prepare(
        folder, spec, python=options.python, locked=options.locked, lock=options.lock, index=index, work=work
    )


def check_push(
    folder: Path,
    spec: ModelSpec,
    prepared: PreparedEnvironment,
    options: PushOptions,
    check: PushCheck | None,
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[str, ...]:
    """Build the environment and let `check` try the packed code in it; returns what could not be checked."""
    if options.check != "import" or check is None:
        return ()
    try:
        extra = choose_extra(spec.accelerators, options.facts or AcceleratorFacts(kind="cpu"))
    except NoExtraFits as error:
        return (f"the entrypoint was not imported, the environment only resolved: {error}",)
    environments = EnvironmentCache(
        (options.cache or default_cache()) / "environments", index=options.index or IndexSettings.from_environment()
    )
    carried = {path.name: path for path in prepared.carried}
    venv = environments.ensure(prepared.record, extra=extra, carried=carried, progress=progress, stop=stop)
    with tempfile.TemporaryDirectory(prefix="modelrepo-check-") as scratch:
        staged = Path(scratch) / "code"
        stage(code_files(folder, spec), staged)
        check(CheckRequest(staged, spec, venv / "bin" / "python"))
    return ()


def stage(files: tuple[SourceFile, ...], target: Path) -> None:
    """Copy code as it will be published, so that what ignore rules leave out is missed before anybody else misses it."""
    for file in files:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.file, path)
        path.chmod(file.mode)
    target.mkdir(parents=True, exist_ok=True)


def publication(
    folder: Path, packed: Packed, prepared: PreparedEnvironment, options: PushOptions, *, by: str, at: str
) -> Publication:
    """Put together what is to be published."""
    git = git_state(folder)
    manifest = Manifest(
        model=packed.spec.name,
        version=options.version or "",
        created_at=at,
        spec=packed.spec.raw,
        environment=prepared.record,
        code=packed.code,
        checkpoints=packed.checkpoints,
        author=options.author or by,
        message=options.message,
        git_commit=git.commit,
        git_dirty=git.dirty,
        push=secrets.token_hex(8),
    )
    bundle = bundle_of(prepared, packed.content)
    return Publication(
        manifest,
        packed.content.origins,
        bundle_objects=bundle.objects,
        bundles=bundle.documents,
        copies={name: (folder / name).read_bytes() for name in COPIES_FOR_PEOPLE if (folder / name).is_file()},
    )
