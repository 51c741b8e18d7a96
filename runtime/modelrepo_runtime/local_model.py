"""A model that is about to run here outside of a worker: a folder, or a version of a repository."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelrepo.contract import (
    ModelSpec,
    StageSpec,
    check_host,
    choose_extra,
    effective_config,
    gather_host_facts,
    load_spec,
    resolve_secrets,
)
from modelrepo.environments import EnvironmentCache, IndexSettings, prepare
from modelrepo.errors import InvalidInput
from modelrepo.repository import Repository
from modelrepo.versions.box import VersionCache, default_cache
from modelrepo.versions.checkpoints import SourceCheckpoint, find_checkpoints
from modelrepo.versions.content import Progress
from modelrepo.versions.manifest import Manifest
from modelrepo_runtime.accelerators import Device, child_environment, facts, probe, torch_devices
from modelrepo_runtime.supervision import ChildSpec

UNPUBLISHED = "unpublished"
"""`ctx.version` of a folder that is run as it lies there."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Code, checkpoints and interpreter of one model, all on this box."""

    spec: ModelSpec
    version: str
    code: Path
    python: Path
    checkpoints: Mapping[str, Path]

    def child_spec(self, folder: Path, stages: Sequence[StageSpec], environ: Mapping[str, str]) -> ChildSpec:
        """Say how a child of it is started on this box's devices. Raises: Unsuitable."""
        spec = self.spec
        devices = _devices(stages)
        on_gpu = any(stage.on == "gpu" for stage in stages)
        check_host(spec.host, gather_host_facts(facts(devices) if on_gpu else None))
        names = torch_devices(devices)
        return ChildSpec(
            python=self.python,
            code_roots=tuple(self.code / root for root in spec.code),
            entrypoint=str(spec.entrypoint),
            model=spec.name,
            version=self.version,
            stages=tuple(stage.name for stage in stages),
            folder=folder,
            checkpoints=self.checkpoints,
            config=effective_config(spec, {}),
            secrets=resolve_secrets(spec, None, environ),
            env=spec.env,
            device=names[0],
            devices=names,
            device_env=child_environment(devices),
            max_batch={stage.name: stage.max_batch for stage in stages},
        )


@dataclass(frozen=True, slots=True)
class Box:
    """What of this box is used: an interpreter instead of a built environment, the cache, the package index."""

    python: Path | None = None
    cache: Path | None = None
    index: IndexSettings | None = None
    progress: Progress | None = None
    lock: bool = False
    """Make a missing lock also where CI is set."""

    @property
    def cache_folder(self) -> Path:
        return self.cache or default_cache()

    def environments(self) -> EnvironmentCache:
        index = self.index or IndexSettings.from_environment()
        return EnvironmentCache(self.cache_folder, index=index)


@contextmanager
def folder_model(folder: Path, box: Box, repository: Repository | None = None) -> Iterator[LocalModel]:
    """Make a model folder ready to run; without `box.python` its environment is locked and built as a push does.

    `repository` is asked for checkpoints whose source is `modelrepo:`.
    Raises: InvalidSpec, InvalidCheckpoint, LockOutOfDate, EnvironmentFailed, Unsuitable.
    """
    spec = load_spec(folder)
    with tempfile.TemporaryDirectory(prefix="modelrepo-run-") as work:
        yield LocalModel(
            spec=spec,
            version=UNPUBLISHED,
            code=folder.absolute(),
            python=box.python or build_environment(folder, spec, box, Path(work) / "wheels"),
            checkpoints=_folder_checkpoints(folder, spec, box, repository, Path(work) / "checkpoints"),
        )


def version_model(repository: Repository, reference: str, box: Box) -> LocalModel:
    """Bring a version and its environment to this box. Raises: NotFound, Unreachable, EnvironmentFailed, Unsuitable."""
    version = repository.resolve(reference)
    local = VersionCache(box.cache_folder, repository.store).fetch(version, progress=box.progress)
    python = box.python
    if python is None:
        record, accelerator = version.manifest.environment, facts(probe())
        extra = choose_extra(version.spec.accelerators, accelerator)
        environments = box.environments()
        if environments.find(record, extra=extra) is None and record.carried:
            with tempfile.TemporaryDirectory(prefix="modelrepo-wheels-") as folder:
                carried = repository.carried_wheels(version, Path(folder), progress=box.progress)
                venv = environments.ensure(record, extra=extra, carried=carried, progress=box.progress)
        else:
            venv = environments.ensure(record, extra=extra, progress=box.progress)
        python = venv / "bin" / "python"
    return LocalModel(version.spec, version.version, local.code, python, local.checkpoints)


def build_environment(folder: Path, spec: ModelSpec, box: Box, work: Path) -> Path:
    """Build the environment of a model folder for this box, and return its interpreter."""
    index = box.index or IndexSettings.from_environment()
    prepared = prepare(folder, spec, work=work, index=index, cache=box.cache_folder, lock=box.lock)
    extra = choose_extra(spec.accelerators, facts(probe()))
    carried = prepared.carried_by_name()
    venv = box.environments().ensure(prepared.record, extra=extra, carried=carried, progress=box.progress)
    return venv / "bin" / "python"


def _devices(stages: Sequence[StageSpec]) -> tuple[Device, ...]:
    """Take as many devices as the largest stage asks for; fewer where there are not so many."""
    wanted = max((stage.gpus for stage in stages if stage.on == "gpu"), default=0)
    return tuple(device for device in probe() if device.kind != "cpu")[:wanted]


def _folder_checkpoints(
    folder: Path, spec: ModelSpec, box: Box, repository: Repository | None, work: Path
) -> dict[str, Path]:
    def lookup(reference: str) -> Manifest:
        return _needed(repository, reference).resolve(reference).manifest

    found: dict[str, Path] = {}
    for name, checkpoint in find_checkpoints(folder, spec, lookup).items():
        source = spec.checkpoints[name]
        if isinstance(checkpoint, SourceCheckpoint):
            found[name] = _laid_out(checkpoint, work / name)
        else:
            reference, _, other = source.source.removeprefix("modelrepo:").rpartition("/")
            there = _needed(repository, reference)
            cache = VersionCache(box.cache_folder, there.store)
            local = cache.fetch(there.resolve(reference), checkpoints=[other], progress=box.progress)
            found[name] = local.checkpoints[other]
    return found


def _laid_out(checkpoint: SourceCheckpoint, target: Path) -> Path:
    """Show a checkpoint's files as a worker would, by links: only what its patterns choose."""
    target.mkdir(parents=True)
    for file in checkpoint.files:
        link = target / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.file.absolute())
    return target / checkpoint.files[0].path if checkpoint.single else target


def _needed(repository: Repository | None, reference: str) -> Repository:
    if repository is None:
        raise InvalidInput(f"a checkpoint comes from {reference}: name the repository with --repo or MODELREPO_REPO")
    return repository
