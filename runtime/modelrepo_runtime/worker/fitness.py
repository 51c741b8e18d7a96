"""What this box can serve, and whether one version could run here, before a worker is started or a byte is fetched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from modelrepo.box_cache.cache_folder import CacheFolder, content_key
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.contract import check_host, choose_extra, effective_config, gather_host_facts, resolve_secrets
from modelrepo.contract.quantities import format_size
from modelrepo.diagnosis.finding import Finding, Standing, fail, looked_at, ok, warn
from modelrepo.environments import EnvironmentCache, IndexSettings
from modelrepo.environments.carried import supported_tags
from modelrepo.environments.installing import applicable, interpreter_for
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.offers import choose_offer
from modelrepo.environments.record import EnvironmentRecord, Requirement
from modelrepo.environments.simple_index import SimpleIndex
from modelrepo.environments.web import Web
from modelrepo.repository import Repository
from modelrepo.versions.version import Version
from modelrepo_runtime.accelerators import Box, SlotLayout, facts, find_box, lay_out
from modelrepo_runtime.worker.preparing import SlotBox, stages_for
from modelrepo_runtime.worker.settings import WorkerSettings

_COMPILER = "a C compiler: only models that ask for one, or builds of packages without a wheel, need it"


def diagnose_worker(settings: WorkerSettings, box: Box | None = None) -> tuple[Finding, ...]:
    """Say what a worker with these settings would offer."""
    box = box or find_box()
    return (
        _accelerators(box),
        *looked_at("slots", lambda: _slots(settings, box)),
        ok(
            "host",
            f"{os.cpu_count()} CPUs, {format_size(psutil.virtual_memory().total)} of memory",
            cpus=os.cpu_count(),
            memory_bytes=psutil.virtual_memory().total,
        ),
        ok("compiler", "there is one")
        if gather_host_facts().has_compiler()
        else ok("compiler", f"not here, {_COMPILER}"),
    )


def diagnose_version(
    settings: WorkerSettings,
    repository: Repository,
    reference: str,
    *,
    box: Box | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Finding, ...]:
    """Say whether a version could run here, slot by slot; one slot in which it could is enough.

    Raises:
        NotFound, Unreachable, Corrupt: the version cannot be read.
        InvalidInput: the reference or the slots cannot be read.
    """
    box = box or find_box()
    environ = os.environ if environ is None else environ
    version = repository.resolve(reference)
    state = repository.promotions.state(version.model)
    overrides = state.config if state.version == version.version else {}
    fits = []
    for layout in _kinds_of(lay_out(settings.slots, settings.cpu_slots, box.devices)):
        slot = SlotBox(
            layout,
            facts(layout.devices, box.accelerator.versions()),
            any(device.kind != "cpu" for device in box.devices),
            settings.secrets_dir,
            environ,
        )
        fits.append((layout, tuple(_Fitness(settings, repository, version, slot, overrides).findings())))
    return (ok("version", f"{version}", digest=version.digest), *_best(fits))


def _best(fits: Sequence[tuple[SlotLayout, tuple[Finding, ...]]]) -> Iterator[Finding]:
    """Yield what was found of the slot that fits best; of the others only what is in the way there."""
    ranked = sorted(fits, key=lambda fit: sum(each.standing is Standing.FAIL for each in fit[1]))
    chosen, *others = ranked
    could = all(each.standing is not Standing.FAIL for each in chosen[1])
    yield ok("slot", chosen[0].label) if could else fail("slot", f"{chosen[0].label}: it could not run in any slot")
    yield from chosen[1]
    for layout, findings in others:
        for each in findings:
            if each.standing is Standing.FAIL:
                yield warn(each.about, f"not in a slot on {layout.label}: {each.found}", each.advice)


@dataclass(frozen=True, slots=True)
class _Fitness:
    settings: WorkerSettings
    repository: Repository
    version: Version
    slot: SlotBox
    overrides: Mapping[str, object]

    def findings(self) -> Iterator[Finding]:
        spec, slot = self.version.spec, self.slot
        checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
            ("stages", self._stages),
            ("host needs", self._host),
            ("config", self._config),
            ("secrets", self._secrets),
            ("cache", self._space),
        )
        for about, check in checks:
            yield from looked_at(about, check)
        extras: list[str | None] = []

        def extra() -> Finding:
            extras.append(choose_extra(spec.accelerators, slot.accelerator))
            return ok("extra", extras[0] or "none: this version has no accelerators: entries", extra=extras[0])

        yield from looked_at("extra", extra)
        if extras:
            yield from self._environment(extras[0])

    def _stages(self) -> Finding:
        stages = stages_for(self.version.spec, self.slot)
        return ok("stages", ", ".join(f"{stage.name} on {stage.on}" for stage in stages))

    def _host(self) -> Finding:
        on_gpu = any(stage.on == "gpu" for stage in stages_for(self.version.spec, self.slot))
        check_host(self.version.spec.host, gather_host_facts(self.slot.accelerator if on_gpu else None))
        needs = [*self.version.spec.host.commands, *self.version.spec.host.libraries]
        return ok("host needs", ", ".join(needs) + " are here" if needs else "none that this box lacks")

    def _config(self) -> Finding:
        effective_config(self.version.spec, self.overrides)
        return ok("config", "active.yaml sets what the version declares" if self.overrides else "the version's own")

    def _secrets(self) -> Finding:
        found = resolve_secrets(self.version.spec, self.slot.secrets_dir, self.slot.environ)
        return ok("secrets", ", ".join(sorted(found)) or "none needed", secrets=sorted(found))

    def _space(self) -> Finding:
        missing, free, disk = self._missing_bytes(), *_space_at(self.settings.cache)
        told = {"missing_bytes": missing, "free_bytes": free}
        size, limit = self.version.manifest.size_bytes, self.settings.cache_size
        found = f"{format_size(missing)} of {format_size(size)} to fetch, {format_size(free)} free"
        if missing > disk or (limit is not None and size > limit):
            return fail("cache", found, "name a folder on a larger disk with --cache, or raise --cache-size", **told)
        if missing > free:
            return warn("cache", found, "what nobody uses is evicted first; make room if that is not enough", **told)
        return ok("cache", found, **told)

    def _missing_bytes(self) -> int:
        folder, manifest = CacheFolder(self.settings.cache.absolute()), self.version.manifest
        here = VersionCache(self.settings.cache, self.repository.store).ready(self.version)
        contents = {content_key(file): file.size_bytes for one in manifest.checkpoints.values() for file in one.files}
        missing = sum(size for key, size in contents.items() if not folder.content(key).exists())
        return missing + (0 if here is not None else sum(file.size_bytes for file in manifest.code))

    def _environment(self, extra: str | None) -> Iterator[Finding]:
        record = self.version.manifest.environment
        pythons: list[Interpreter] = []

        def python() -> Finding:
            pythons.append(interpreter_for(record))
            return ok("interpreter", f"{pythons[0].version} ({pythons[0].path})", path=str(pythons[0].path))

        yield from looked_at("interpreter", python)
        if pythons:
            yield from looked_at("environment", lambda: self._wheels(record, extra, pythons[0]))

    def _wheels(self, record: EnvironmentRecord, extra: str | None, python: Interpreter) -> Finding:
        if (
            EnvironmentCache(self.settings.cache, link_mode=self.settings.link_mode).find(record, extra=extra)
            is not None
        ):
            return ok("environment", "built on this box already", built=True)
        wanted = tuple(applicable(record, extra, python))
        offered = self.repository.wheels(self.version).offered(extra, python) if wanted else ()
        tags = supported_tags(python)
        rest = [one for one in wanted if choose_offer(one, offered, record.carried, tags) is None]
        told = {"built": False, "packages": len(wanted), "from_index": [str(one) for one in rest]}
        if not rest:
            return ok("environment", f"its {len(wanted)} packages are bundled: no index is needed", **told)
        settings = IndexSettings.from_environment(
            default_index=self.settings.default_index, find_links=self.settings.find_links
        )
        index = SimpleIndex(settings, Web(settings))
        lacking = [str(one) for one in rest if not _has(index, one)]
        if lacking:
            return fail(
                "environment",
                f"in no bundle, and not in {index.asked()}: {', '.join(lacking)}",
                f"run `modelrepo vendor {self.version}` where they can be had, or name their index",
                **told,
            )
        return ok("environment", f"{len(rest)} of its {len(wanted)} packages come from {index.asked()}", **told)


def _has(index: SimpleIndex, requirement: Requirement) -> bool:
    hashes = {one.removeprefix("sha256:") for one in requirement.hashes}
    return any(file.sha256 is None or file.sha256 in hashes for file in index.files(requirement))


def _accelerators(box: Box) -> Finding:
    versions = box.accelerator.versions()
    devices = [device for device in box.devices if device.kind != "cpu"]
    told = {
        "kind": box.accelerator.kind,
        "driver": versions.driver,
        "runtime": versions.runtime,
        "devices": [{"label": one.label, "name": one.name, "memory_bytes": one.memory_total_bytes} for one in devices],
    }
    if not devices:
        return ok("accelerators", "none: this box serves on its CPU", **told)
    named = ", ".join(f"{one.label} {one.name} {format_size(one.memory_total_bytes)}" for one in devices)
    driver = f"driver {versions.driver or '?'}, up to {box.accelerator.kind} {versions.runtime or '?'}"
    return ok("accelerators", f"{named} ({driver})", **told)


def _slots(settings: WorkerSettings, box: Box) -> Finding:
    layouts = lay_out(settings.slots, settings.cpu_slots, box.devices)
    named = ", ".join(f"{layout.name} on {layout.label}" for layout in layouts)
    return ok("slots", named, slots=[layout.name for layout in layouts])


def _kinds_of(layouts: Sequence[SlotLayout]) -> list[SlotLayout]:
    """Return one slot of each kind: two slots with the same devices but for their number fit the same versions."""
    kinds = {
        tuple((device.kind, device.name, device.memory_total_bytes) for device in one.devices): one
        for one in reversed(layouts)
    }
    return list(kinds.values())[::-1]


def _space_at(cache: Path) -> tuple[int, int]:
    """Return free and total bytes of the disk that holds a folder, or will."""
    there = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
