"""Copy versions from one repository to another, and what is live with them where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from modelrepo.clock import Clock
from modelrepo.copying.pace import Pace
from modelrepo.copying.place import Place
from modelrepo.copying.selection import Selection, versions_of
from modelrepo.copying.version_copy import CopiedVersion, Courier
from modelrepo.errors import (
    Corrupt,
    InvalidActiveFile,
    InvalidInput,
    ModelRepoError,
    NewerFormat,
    NotFound,
    VersionBlocked,
    VersionDeleted,
    VersionExists,
)
from modelrepo.names import parse_reference
from modelrepo.progress import Progress
from modelrepo.window import THREADS

_OF_ONE_VERSION = (VersionExists, VersionDeleted, VersionBlocked, Corrupt, NewerFormat, NotFound, InvalidActiveFile)
"""What stands in the way of one version or model, and not of the others."""


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How to copy.

    `versions`: of each model; None for all of them. `with_active`: also make active in the target what is active in
    the source. `limit_rate`: bytes per second through this box, on average. `jobs`: how many objects move at once.
    """

    versions: Selection | None = None
    with_active: bool = False
    dry_run: bool = False
    limit_rate: float | None = None
    jobs: int = THREADS


@dataclass(frozen=True, slots=True)
class CopiedActive:
    """What became of one model's active version in the target; `generation` is the target's."""

    model: str
    version: str | None
    generation: int | None = None
    unchanged: bool = False
    error: ModelRepoError | None = None


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did, in the order in which it was done."""

    versions: tuple[CopiedVersion, ...]
    active: tuple[CopiedActive, ...] = ()

    def errors(self) -> list[ModelRepoError]:
        """Return what stood in the way of single versions and models."""
        errors = [each.error for each in self.versions] + [each.error for each in self.active]
        return [error for error in errors if error is not None]


def copy_versions(
    source: Place,
    target: Place,
    reference: str | None,
    options: CopyOptions,
    *,
    by: str,
    find: Callable[[str], tuple[str, str]],
    clock: Clock | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> CopyReport:
    """Copy what `reference` means, every model for None; a model's name alone means all of its versions.

    `find` returns the model and version of a reference to one version. What stands in the way of one version is told in
    the report, and the others are copied; everything else ends the copy, and run again it goes on where it was.

    Raises:
        InvalidInput, NotFound: of what was asked for; nothing was copied.
        Unreachable, NoSpace, Stopped, StoreNotTrusted
    """
    if options.jobs < 1:
        raise InvalidInput(f"cannot copy with {options.jobs} jobs: at least one is needed")
    clock = clock or Clock()
    pace = Pace(options.limit_rate, clock=clock)
    courier = Courier(source, target, by, options.jobs, pace, clock, stop)
    wanted = _wanted(source, reference, options, find)
    versions = tuple(_carried(courier, wanted, options, progress))
    active: tuple[CopiedActive, ...] = ()
    if options.with_active and not options.dry_run:
        failed = {(each.model, each.version) for each in versions if each.error is not None}
        models = dict.fromkeys(model for model, _ in wanted)
        active = tuple(each for model in models for each in _activated(source, target, model, failed))
    return CopyReport(versions, active)


def _wanted(
    source: Place, reference: str | None, options: CopyOptions, find: Callable[[str], tuple[str, str]]
) -> list[tuple[str, str]]:
    if reference is None:
        models = [model for model in source.catalogue.models() if source.catalogue.versions(model)]
        return [pair for model in models for pair in _of_model(source, model, options)]
    named = parse_reference(reference)
    if named.version is None:
        return _of_model(source, named.model, options)
    if options.versions is not None:
        raise InvalidInput(f"cannot copy {reference} with a choice of versions: it names one; name the model alone")
    model, version = find(reference)
    active = source.promotions.state(model).version if options.with_active else None
    return [(model, each) for each in dict.fromkeys((version, active or version))]


def _of_model(source: Place, model: str, options: CopyOptions) -> list[tuple[str, str]]:
    chosen = options.versions
    if chosen is not None and options.with_active:
        chosen = replace(chosen, active=True)  # it has to be there to be made active
    return [(model, version) for version in versions_of(source, model, chosen)]


def _carried(
    courier: Courier, wanted: Sequence[tuple[str, str]], options: CopyOptions, progress: Progress | None
) -> Iterator[CopiedVersion]:
    counted: set[str] = set()
    for number, (model, version) in enumerate(wanted, 1):
        try:
            if options.dry_run:
                yield courier.plan(model, version, counted)
            else:
                yield courier.carry(model, version, _named(progress, model, version, number, len(wanted)))
        except _OF_ONE_VERSION as error:
            yield CopiedVersion(model, version, "", "failed", error=error)


def _named(progress: Progress | None, model: str, version: str, number: int, count: int) -> Progress | None:
    if progress is None:
        return None
    which = f"{model}@{version}" if count == 1 else f"{model}@{version} ({number} of {count})"
    return lambda phase, done, total: progress(f"{phase} {which}", done, total)


def _activated(source: Place, target: Place, model: str, failed: set[tuple[str, str]]) -> Iterator[CopiedActive]:
    version: str | None = None
    try:
        state = source.promotions.state(model)
        version = state.version
        if version is None or (model, version) in failed:
            return
        there = target.promotions.state(model)
        before = {entry.change for entry in target.promotions.history(model)}
        entry = target.promotions.promote(
            model,
            version,
            config_set=state.config,
            config_unset=there.config.keys() - state.config.keys(),
            rollout=replace(state.rollout, now=False),
            reason=f"copied from {source.url}, where generation {state.generation} made it active",
        )
        yield CopiedActive(model, version, entry.generation, unchanged=entry.change in before)
    except _OF_ONE_VERSION as error:
        yield CopiedActive(model, version, error=error)
