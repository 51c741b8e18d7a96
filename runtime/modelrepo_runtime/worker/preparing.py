"""From a target to a child that can be started: choose, check, fetch, build."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.contract import (
    AcceleratorFacts,
    HostFacts,
    ModelSpec,
    StageSpec,
    check_host,
    choose_extra,
    effective_config,
    gather_host_facts,
    resolve_secrets,
)
from modelrepo.environments import EnvironmentCache
from modelrepo.errors import HostNeedUnmet, NoExtraFits
from modelrepo.progress import Progress
from modelrepo.repository import Repository
from modelrepo.versions.version import LocalVersion, Version
from modelrepo_runtime.accelerators import SlotLayout, child_environment, torch_devices
from modelrepo_runtime.jobs import Json, StageNeed
from modelrepo_runtime.plans import plan_of, ranks_of
from modelrepo_runtime.pool.checkpoints import CheckpointPool, Pooled
from modelrepo_runtime.supervision.spec import ChildSpec
from modelrepo_runtime.worker.footprint import Footprint, declared
from modelrepo_runtime.worker.settings import WorkerSettings
from modelrepo_runtime.worker.target import Target

Stop = Callable[[], bool]


class Source(Protocol):
    """Where versions and their environments come from; everything is verified and cached on this box."""

    def resolve(self, model: str, version: str) -> Version:
        """Raises: VersionNotFound, Unreachable, Corrupt, NewerFormat."""
        ...

    def is_here(self, version: Version, checkpoints: frozenset[str] | None, extra: str | None) -> bool:
        """Tell whether code, the named checkpoints and the environment are on this box, so that nothing is fetched."""
        ...

    def fetch(
        self, version: Version, checkpoints: frozenset[str] | None, stop: Stop, progress: Progress | None = None
    ) -> LocalVersion:
        """Bring code and the named checkpoints here, and hold them. Raises also NoSpace, Stopped."""
        ...

    def build(self, version: Version, extra: str | None, accelerator: AcceleratorFacts, stop: Stop) -> Path:
        """Return the folder of the version's environment. Raises EnvironmentFailed, Unsuitable, NoSpace, Stopped."""
        ...

    def pool(self, local: LocalVersion, stop: Stop) -> Pooled:
        """Bring its checkpoints into the box's memory, as far as they fit, and hold them. Raises Corrupt, Stopped."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version that this slot may run, checked against the box before a byte of it was fetched."""

    target: Target
    version: Version
    stages: tuple[StageSpec, ...]
    extra: str | None
    config: Mapping[str, Json]
    secrets: Mapping[str, str]

    @property
    def runs_as(self) -> tuple[str, str]:
        """Name what would run: digest and effective configuration, whatever the generation."""
        return self.version.digest, repr(sorted(self.config.items()))

    @property
    def needs(self) -> Footprint:
        return declared(self.stages)

    @property
    def ranks(self) -> int:
        """How many processes run it together."""
        return ranks_of(self.stages)

    @property
    def plan(self) -> tuple[StageNeed, ...]:
        """All stages of the version, as the queue must know them."""
        return plan_of(self.version.spec)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chosen version whose bytes and environment are on this box."""

    chosen: Chosen
    local: LocalVersion
    python: Path
    pooled: Pooled = field(default_factory=Pooled)

    @property
    def target(self) -> Target:
        return self.chosen.target

    @property
    def version(self) -> Version:
        return self.chosen.version


@dataclass(frozen=True, slots=True)
class SlotBox:
    """What a slot offers to a version."""

    layout: SlotLayout
    accelerator: AcceleratorFacts
    has_accelerators: bool
    """Whether the box has any: a slot on the CPU then leaves the accelerator's stages to the others."""
    secrets_dir: Path | None
    environ: Mapping[str, str]
    only: str | None = None
    """`cpu` or `gpu`: other slots have the other stages, whatever this one could run."""

    @property
    def on(self) -> tuple[str, ...]:
        """Name the kinds of stages that it runs."""
        if self.only is not None:
            return (self.only,)
        return ("cpu",) if self.layout.on_cpu and self.has_accelerators else ("cpu", "gpu")

    @property
    def kind(self) -> str | None:
        """Name the kind of device that learnt times are kept by; None for the CPU."""
        return None if self.layout.on_cpu else self.layout.devices[0].name


def choose(version: Version, target: Target, box: SlotBox, host: HostFacts | None = None) -> Chosen:
    """Check a version against this box.

    Raises:
        Unsuitable: no extra fits, a host need is unmet, a secret is missing, or it has no stage for this slot.
        InvalidInput: active.yaml sets a configuration key that the version does not declare.
    """
    spec = version.spec
    stages = stages_for(spec, box)
    extra = _extra(spec, box)
    on_gpu = any(stage.on == "gpu" for stage in stages)
    check_host(spec.host, host or gather_host_facts(box.accelerator if on_gpu else None))
    config = effective_config(spec, target.config)
    secrets = resolve_secrets(spec, box.secrets_dir, box.environ)
    return Chosen(target, version, stages, extra, config, secrets)


def _extra(spec: ModelSpec, box: SlotBox) -> str | None:
    """Choose the extra; a slot for CPU stages alone does without where no entry is for the CPU. Raises: NoExtraFits."""
    try:
        return choose_extra(spec.accelerators, box.accelerator)
    except NoExtraFits:
        if box.on == ("cpu",):
            return None
        raise


def checkpoints_of(chosen: Chosen) -> frozenset[str] | None:
    """Name the checkpoints that the stages of this slot need; None is all of them."""
    names: set[str] = set()
    for stage in chosen.stages:
        if stage.checkpoints is None:
            return None
        names.update(stage.checkpoints)
    return frozenset(names)


def child_spec(prepared: Prepared, layout: SlotLayout, folder: Path, slot_descriptors: tuple[int, ...]) -> ChildSpec:
    """Say how the child of a prepared version is started in a slot."""
    chosen, spec = prepared.chosen, prepared.version.spec
    devices = torch_devices(layout.devices)
    limit = chosen.needs.host_bytes
    return ChildSpec(
        python=prepared.python,
        code_roots=tuple(prepared.local.code / root for root in spec.code),
        entrypoint=str(spec.entrypoint),
        model=chosen.version.model,
        version=chosen.version.version,
        stages=tuple(stage.name for stage in chosen.stages),
        folder=folder,
        checkpoints=prepared.local.checkpoints,
        pooled=prepared.pooled.entries(),
        config=chosen.config,
        secrets=chosen.secrets,
        env=spec.env,
        device=devices[0],
        devices=devices,
        device_env=child_environment(layout.devices),
        max_batch={stage.name: stage.max_batch for stage in chosen.stages},
        ranks=chosen.ranks,
        # What runs is not evicted, even where it outlives its worker.
        keep_open_fds=(
            *slot_descriptors,
            *(hold.fileno() for hold in prepared.local.holds),
            *prepared.pooled.descriptors(),
        ),
        # What the author promises, and a tenth more: only a child that breaks its promise is ended for it.
        memory_limit_bytes=None if limit is None else limit + limit // 10,
    )


def only_kind(settings: WorkerSettings, layout: SlotLayout) -> str | None:
    """Name the one kind of stages that a slot runs, where others have the others; None: what it can run."""
    if settings.stages != "auto":
        return settings.stages
    if layout.on_cpu:
        return "cpu" if settings.slots == "none" else None
    return "gpu" if settings.cpu_slots else None


def stages_for(spec: ModelSpec, box: SlotBox) -> tuple[StageSpec, ...]:
    """Return the stages that a slot serves. Raises: HostNeedUnmet, where there is none for it, or too few devices."""
    stages = tuple(stage for stage in spec.stages if stage.on in box.on)
    if not stages:
        here, there = ("the CPU", "on accelerators") if "cpu" in box.on else ("an accelerator", "on the CPU")
        raise HostNeedUnmet(
            f"slot {box.layout.name} on {here} cannot serve {spec.name}: all its stages are on: "
            f"{spec.stages[0].on}; leave them to the slots {there}"
        )
    wanted, here_are = ranks_of(stages), len(box.layout.devices)
    if wanted > here_are and not box.layout.on_cpu:
        raise HostNeedUnmet(
            f"slot {box.layout.name} has {here_are} of the {wanted} devices that one run of {spec.name} takes (gpus: "
            f"{wanted}); start the worker with slots of {wanted} devices, such as --slots 1x{wanted}"
        )
    return stages


class RepositorySource:
    """Versions from a repository, through the box's caches."""

    def __init__(
        self,
        repository: Repository,
        versions: VersionCache,
        environments: EnvironmentCache,
        pool: CheckpointPool | None = None,
    ) -> None:
        self._repository, self._versions, self._environments = repository, versions, environments
        self._pool = pool or CheckpointPool(None)

    def resolve(self, model: str, version: str) -> Version:
        return self._repository.version(model, version)

    def is_here(self, version: Version, checkpoints: frozenset[str] | None, extra: str | None) -> bool:
        ready = self._versions.ready(version)
        if ready is None or not version.checkpoint_names(checkpoints) <= ready:
            return False
        return self._environments.find(version.manifest.environment, extra=extra) is not None

    def fetch(
        self, version: Version, checkpoints: frozenset[str] | None, stop: Stop, progress: Progress | None = None
    ) -> LocalVersion:
        return self._versions.fetch(version, checkpoints=checkpoints, progress=progress, stop=stop)

    def build(self, version: Version, extra: str | None, accelerator: AcceleratorFacts, stop: Stop) -> Path:
        record, wheels = version.manifest.environment, self._repository.wheels(version, stop=stop)
        ensure = partial(
            self._environments.ensure, record, extra=extra, wheels=wheels, accelerator=accelerator, stop=stop
        )
        return self._versions.with_room(ensure, what=f"the environment of {version}")

    def pool(self, local: LocalVersion, stop: Stop) -> Pooled:
        return self._pool.bring(local, stop)


def interpreter(environment: Path) -> Path:
    """Return the Python of an environment folder."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"
