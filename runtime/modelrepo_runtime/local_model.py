"""A model that is about to run here outside of a worker: a folder, or a version of a repository."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from modelrepo.box_cache.cache_folder import default_cache
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.canonical import Json
from modelrepo.contract import (
    AcceleratorFacts,
    ModelSpec,
    StageSpec,
    check_host,
    choose_extra,
    effective_config,
    gather_host_facts,
    load_spec,
    resolve_secrets,
)
from modelrepo.environments import EnvironmentCache, IndexSettings, LinkMode, named_interpreter, prepare
from modelrepo.errors import HostNeedUnmet, InvalidInput
from modelrepo.holds import Hold
from modelrepo.names import near_names, parse_reference
from modelrepo.progress import Progress
from modelrepo.pushing.checkpoints import SourceCheckpoint, find_checkpoints
from modelrepo.pushing.stored_sources import StoredCheckpoint, download
from modelrepo.repository import Repository
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.version import Version
from modelrepo_runtime.accelerators import Device, child_environment, facts, probe, torch_devices
from modelrepo_runtime.plans import ranks_of
from modelrepo_runtime.pool.checkpoints import CheckpointPool, Pooled
from modelrepo_runtime.supervision import ChildSpec

POOL_VARIABLE = "MODELREPO_POOL"
UNPUBLISHED = "unpublished"
"""`ctx.version` of a folder that is run as it lies there."""


@dataclass(frozen=True, slots=True)
class Box:
    """What of this box is used: an interpreter instead of a built environment, the cache, the package index."""

    python: Path | None = None
    cache: Path | None = None
    index: IndexSettings | None = None
    progress: Progress | None = None
    lock: bool = False
    """Make a missing lock also where CI is set."""
    secrets_dir: Path | None = None
    ranks: int | None = None
    """How many processes run a model together; None: one for each device that a run takes."""
    allow_builds: bool = False
    link_mode: LinkMode = "hardlink"

    @property
    def cache_folder(self) -> Path:
        return self.cache or default_cache()

    @property
    def index_settings(self) -> IndexSettings:
        return self.index or IndexSettings.from_environment()

    def environments(self) -> EnvironmentCache:
        return EnvironmentCache(
            self.cache_folder, index=self.index_settings, allow_builds=self.allow_builds, link_mode=self.link_mode
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """What this box has for a model, found out before an environment is built or a byte is fetched.

    `extra` is None too where an interpreter was given; `accelerator` where no stage uses one.
    """

    stages: tuple[StageSpec, ...]
    devices: tuple[Device, ...]
    extra: str | None
    accelerator: AcceleratorFacts | None
    secrets: Mapping[str, str]
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Code, checkpoints and interpreter of one model, all on this box."""

    spec: ModelSpec
    version: str
    code: Path
    python: Path
    checkpoints: Mapping[str, Path]
    fit: Fit
    overrides: Mapping[str, Json] = field(default_factory=dict)
    """Of `config:`, as active.yaml has them."""
    holds: tuple[Hold, ...] = ()
    """What keeps the box's cache from evicting it, for as long as this is referred to or a child of it runs."""
    pooled: Pooled = field(default_factory=Pooled)
    """Its checkpoint files in the host pool, held likewise."""

    def child_spec(self, folder: Path) -> ChildSpec:
        """Say how a child of it is started on this box's devices."""
        spec, fit = self.spec, self.fit
        names = torch_devices(fit.devices)
        return ChildSpec(
            python=self.python,
            code_roots=tuple(self.code / root for root in spec.code),
            entrypoint=str(spec.entrypoint),
            model=spec.name,
            version=self.version,
            stages=tuple(stage.name for stage in fit.stages),
            folder=folder,
            checkpoints=self.checkpoints,
            pooled=self.pooled.entries(),
            config=effective_config(spec, self.overrides),
            secrets=fit.secrets,
            env=spec.env,
            device=names[0],
            devices=names,
            device_env=child_environment(fit.devices),
            max_batch={stage.name: stage.max_batch for stage in fit.stages},
            ranks=fit.ranks,
            keep_open_fds=(*(hold.fileno() for hold in self.holds), *self.pooled.descriptors()),
        )


def fit_to_run(spec: ModelSpec, box: Box, stage: str | None = None) -> Fit:
    """Hold a model's stages, or one of them, against this box. Raises: Unsuitable, InvalidInput (no such stage)."""
    stages = _stages(spec, stage)
    found = probe()
    ranks = box.ranks or ranks_of(stages)
    devices = _devices(found, stages, ranks)
    on_gpu = any(each.on == "gpu" for each in stages)
    check_host(spec.host, gather_host_facts(facts(devices) if on_gpu else None))
    extra = None if box.python else choose_extra(spec.accelerators, facts(found))
    secrets = resolve_secrets(spec, box.secrets_dir, os.environ)
    return Fit(stages, devices, extra, facts(devices) if on_gpu else None, secrets, ranks)


def fit_to_check(spec: ModelSpec, box: Box) -> Fit:
    """Hold against this box what an import needs: no accelerator and no secret. Raises: Unsuitable."""
    check_host(spec.host, gather_host_facts(None))
    extra = None if box.python else choose_extra(spec.accelerators, facts(probe()))
    return Fit(spec.stages, (), extra, None, {})


@contextmanager
def folder_model(
    folder: Path,
    box: Box,
    repository: Repository | None = None,
    *,
    stage: str | None = None,
    fit: Callable[[ModelSpec, Box], Fit] | None = None,
    checkpoints: Mapping[str, Path] | None = None,
) -> Iterator[LocalModel]:
    """Make a model folder ready to run; without `box.python` its environment is locked and built as a push does.

    `repository` is asked for checkpoints whose source is `modelrepo:`. `stage`: run this one alone. `fit` is what is
    found out first, by default all that a run needs. `checkpoints` that are given are not looked for.
    Raises: InvalidSpec, Unsuitable, InvalidCheckpoint, LockOutOfDate, EnvironmentFailed.
    """
    spec = load_spec(folder)
    found = fit_to_run(spec, box, stage) if fit is None else fit(spec, box)
    given = named_interpreter(box.python) if box.python else None
    with tempfile.TemporaryDirectory(prefix="modelrepo-run-") as work:
        holds: list[Hold] = []
        if checkpoints is None:
            checkpoints = _folder_checkpoints(folder, spec, box, repository, Path(work) / "checkpoints", holds)
        python = given or build_environment(folder, spec, box, found, Path(work) / "wheels", holds)
        yield LocalModel(spec, UNPUBLISHED, folder.absolute(), python, checkpoints, found, holds=tuple(holds))


def version_model(repository: Repository, reference: str, box: Box, *, stage: str | None = None) -> LocalModel:
    """Bring a version and its environment to this box; the active one runs with the config that active.yaml gives it.

    Raises: NotFound, Unreachable, EnvironmentFailed, Unsuitable.
    """
    version = repository.resolve(reference)
    fit = fit_to_run(version.spec, box, stage)
    given = named_interpreter(box.python) if box.python else None
    cache = VersionCache(box.cache_folder, repository.store)
    local = cache.fetch(version, progress=box.progress)
    build = partial(_version_environment, repository, version, box, fit)
    python = given or cache.with_room(build, what=f"the environment of {version}")
    named = parse_reference(reference).version
    overrides = repository.promotions.state(version.model).config if named in (None, "active") else {}
    pooled = CheckpointPool.open(os.environ.get(POOL_VARIABLE)).bring(local)
    paths = local.checkpoints
    return LocalModel(version.spec, version.version, local.code, python, paths, fit, overrides, local.holds, pooled)


def build_environment(folder: Path, spec: ModelSpec, box: Box, fit: Fit, work: Path, holds: list[Hold]) -> Path:
    """Build the environment of a model folder for this box, add a hold on it, and return its interpreter."""
    prepared = prepare(folder, spec, work=work, index=box.index_settings, cache=box.cache_folder, lock=box.lock)
    environments = box.environments()
    holds.append(environments.hold(prepared.record.digest))
    venv = environments.ensure(
        prepared.record,
        extra=fit.extra,
        wheels=prepared.wheels(),
        accelerator=fit.accelerator,
        progress=box.progress,
    )
    return venv / "bin" / "python"


def _version_environment(repository: Repository, version: Version, box: Box, fit: Fit) -> Path:
    venv = box.environments().ensure(
        version.manifest.environment,
        extra=fit.extra,
        wheels=repository.wheels(version, progress=box.progress),
        accelerator=fit.accelerator,
        progress=box.progress,
    )
    return venv / "bin" / "python"


def _stages(spec: ModelSpec, stage: str | None) -> tuple[StageSpec, ...]:
    if stage is None:
        return spec.stages
    known = [one.name for one in spec.stages]
    if stage not in known:
        near = near_names(stage, known)
        hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
        raise InvalidInput(f"{spec.name} has no stage {stage!r}{hint}")
    return (spec.stage(stage),)


def _devices(found: Sequence[Device], stages: Sequence[StageSpec], ranks: int) -> tuple[Device, ...]:
    """Take the devices that one run asks for, one a rank or more; none on a box without. Raises: HostNeedUnmet."""
    if all(stage.on == "cpu" for stage in stages):
        return ()
    here = tuple(device for device in found if device.kind != "cpu")
    if here and len(here) < ranks:
        raise HostNeedUnmet(
            f"{ranks} ranks take {ranks} devices, and this box shows {len(here)}; run fewer with --ranks {len(here)}"
        )
    return here[: max(ranks_of(stages), ranks)]


def _folder_checkpoints(
    folder: Path, spec: ModelSpec, box: Box, repository: Repository | None, work: Path, holds: list[Hold]
) -> dict[str, Path]:
    def lookup(reference: str) -> Manifest:
        return _needed(repository, reference).resolve(reference).manifest

    found: dict[str, Path] = {}
    for name, checkpoint in find_checkpoints(folder, spec, lookup).items():
        source = spec.checkpoints[name]
        if isinstance(checkpoint, SourceCheckpoint):
            found[name] = _laid_out(checkpoint, work / name)
        elif isinstance(checkpoint, StoredCheckpoint):
            found[name] = download(checkpoint, work / name)
        else:
            reference, _, other = source.source.removeprefix("modelrepo:").rpartition("/")
            there = _needed(repository, reference)
            cache = VersionCache(box.cache_folder, there.store)
            local = cache.fetch(there.resolve(reference), checkpoints=[other], progress=box.progress)
            found[name] = local.checkpoints[other]
            holds += local.holds
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
