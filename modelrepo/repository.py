"""A repository: what everything else in modelrepo goes through to reach versions and promotions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Self

from modelrepo.adapters.published import Adapters
from modelrepo.clock import Clock
from modelrepo.copying.place import Place
from modelrepo.copying.repository_copy import CopyOptions, CopyReport, copy_versions
from modelrepo.errors import (
    Corrupt,
    InvalidActiveFile,
    InvalidInput,
    NewerFormat,
    StoreNotTrusted,
)
from modelrepo.fetching.bundled_wheels import BundledWheels
from modelrepo.fetching.pull import pull_version
from modelrepo.identity import whoami
from modelrepo.maintenance.deletion import DeletionPlan, plan_deletion
from modelrepo.maintenance.needs import Scope
from modelrepo.maintenance.prune import PruneReport, prune
from modelrepo.maintenance.repairing import Repairs
from modelrepo.maintenance.verifying import VerifyReport, verify
from modelrepo.names import check_model_name
from modelrepo.progress import Progress
from modelrepo.promotion import HistoryEntry, Promotions
from modelrepo.publication.leases import GRACE_S
from modelrepo.pushing.account import PushPlan
from modelrepo.pushing.push import PushCheck, Pusher, PushOptions, PushResult
from modelrepo.pushing.vendor import VendorOptions, VendorResult, vendor
from modelrepo.resolving import Resolver
from modelrepo.stores.founding import Founded, found, open_founded
from modelrepo.stores.mirrored import Mirror, mirrored
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.catalogue import Catalogue, Listed
from modelrepo.versions.diff import VersionDiff, compare
from modelrepo.versions.version import Version, VersionSummary
from modelrepo.window import THREADS

Stop = Callable[[], bool]
"""Asked during long work; True ends it with Stopped."""


class Repository:
    """An open repository; may be shared by threads. Make one with `open` or `init`."""

    def __init__(self, founded: Founded, *, by: str | None = None) -> None:
        self.id = founded.id
        self.store: ObjectStore = founded.store
        self.distrust = founded.distrust
        self.single_writer = founded.single_writer
        self._catalogue = Catalogue(self.store)
        self.by = by or whoami()
        self.promotions = Promotions(self.store, self._catalogue, by=self.by)
        self.adapters = Adapters(self.store, self.by, self._check_trust)
        """What the team publishes for jobs to name."""
        self._resolver = Resolver(self.url, self._catalogue, self.promotions)
        self._pusher = Pusher(self.store, self._catalogue, self._resolver.manifest, self.by)

    @classmethod
    def open(cls, url: str, *, by: str | None = None, mirrors: Sequence[Mirror] = ()) -> Self:
        """Open a repository. One whose store has not shown that it creates-if-absent is read-only.

        Objects are read from `mirrors` first; `open_mirrors` makes them.

        Raises:
            RepositoryNotFound, NewerFormat, Unreachable, Forbidden, MissingExtra
        """
        founded = open_founded(open_store(url))
        return cls(replace(founded, store=mirrored(founded.store, mirrors)), by=by)

    @classmethod
    def init(cls, url: str, *, adopt: bool = False, single_writer: bool = False, by: str | None = None) -> Self:
        """Found a repository, or open the one that is there; the store is probed first.

        Raises:
            StoreNotTrusted: the store lets two writers create one object; `single_writer` takes it all the same.
        """
        founded = found(open_store(url), adopt=adopt, single_writer=single_writer, client=lambda: open_store(url))
        return cls(founded, by=by)

    @property
    def url(self) -> str:
        return self.store.url

    def models(self) -> list[str]:
        """Return the names of all models."""
        return self._catalogue.models()

    def versions(self, model: str) -> list[VersionSummary]:
        """Return a model's versions, oldest publication first, deleted ones too.

        Raises:
            ModelNotFound
        """
        listed = self._catalogue.listed(check_model_name(model))
        if not listed:
            if model in self.models():
                return []
            raise self._catalogue.unknown(model)
        active, previous = self._active(model), self._previous(model)
        blocked = self.promotions.blocked(model)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="modelrepo-list") as pool:
            return list(pool.map(lambda one: self._summary(model, one, active, previous, blocked), listed))

    def resolve(self, reference: str) -> Version:
        """Find the version that a reference means; a model alone means its active version.

        Raises:
            ModelNotFound, VersionNotFound: with near names.
            VersionDeleted
            InvalidReference: it cannot be read, or a commit is not unique.
        """
        return self._resolver.resolve(reference)

    def version(self, model: str, version: str, *, digest: str | None = None) -> Version:
        """Return the version of exactly this id; raises as `resolve` does.

        Raises:
            Corrupt: its manifest has not the given digest.
        """
        return self._resolver.version(model, version, digest=digest)

    def plan_push(
        self, folder: Path, options: PushOptions | None = None, *, progress: Progress | None = None
    ) -> PushPlan:
        """Say what a push would send; the environment is not looked at, nothing is written anywhere."""
        return self._pusher.plan(folder, options or PushOptions(), progress=progress)

    def push(
        self,
        folder: Path,
        options: PushOptions | None = None,
        *,
        check: PushCheck | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
        clock: Clock | None = None,
    ) -> PushResult:
        """Publish a model's folder as a new version.

        `check` is given the packed code and the interpreter of the built environment; what it raises ends the push
        before anything is published.

        Raises:
            InvalidSpec, InvalidCode, InvalidCheckpoint, LockOutOfDate, EnvironmentFailed, VersionExists, ...
        """
        if self.distrust is not None:
            raise StoreNotTrusted(f"cannot push: {self.distrust}")
        options = options or PushOptions()
        done = self._pusher.push(folder, options, check=check, progress=progress, stop=stop, clock=clock)
        if done.unchanged and options.vendor:
            how = VendorOptions(python=options.python, index=options.index, cache=options.cache)
            self.vendor(f"{done.model}@{done.version}", how, progress=progress, stop=stop, clock=clock)
        return done

    def pull(
        self,
        reference: str,
        target: Path,
        *,
        checkpoints: Collection[str] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Path:
        """Write a version's files into a folder that can be edited and pushed; `target` must be absent or empty."""
        version = self.resolve(reference)
        return pull_version(self.store, version, target, checkpoints=checkpoints, progress=progress, stop=stop)

    def copy_to(
        self,
        target: Repository,
        reference: str | None = None,
        options: CopyOptions | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> CopyReport:
        """Copy versions, byte for byte, into another repository: of every model, of one model, or a single version.

        Raises:
            InvalidInput, NotFound, StoreNotTrusted, Unreachable, NoSpace, Stopped
        """
        options = options or CopyOptions()
        if self.url == target.url:
            raise InvalidInput(f"cannot copy {self.url} into itself; name another repository")
        if target.distrust is not None and not options.dry_run:
            raise StoreNotTrusted(f"cannot copy: {target.distrust}")
        source, there = (Place(each.store, each._catalogue, each.promotions) for each in (self, target))
        find = self._resolver.named
        return copy_versions(source, there, reference, options, by=self.by, find=find, progress=progress, stop=stop)

    def diff(self, before: str, after: str) -> VersionDiff:
        """Compare the versions that two references mean."""
        return compare(self.resolve(before), self.resolve(after), self.store)

    def wheels(self, version: Version, *, progress: Progress | None = None, stop: Stop | None = None) -> BundledWheels:
        """Return the wheels that are kept for a version's environment, as `EnvironmentCache.ensure` takes them."""
        return BundledWheels(self.store, version.manifest.environment, str(version), progress=progress, stop=stop)

    def vendor(
        self,
        reference: str,
        options: VendorOptions | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
        clock: Clock | None = None,
    ) -> VendorResult:
        """Put the wheels of a version's environment beside it for this box's platform; twice adds nothing.

        Raises:
            NotFound, StoreNotTrusted, InterpreterMissing, EnvironmentFailed, Corrupt, Unreachable, Stopped
        """
        version = self.resolve(reference)
        if self.distrust is not None:
            raise StoreNotTrusted(f"cannot vendor {version}: {self.distrust}")
        options = options or VendorOptions()
        return vendor(
            self.store, version, self.promotions, options, by=self.by, progress=progress, stop=stop, clock=clock
        )

    def delete(self, model: str, version: str, reason: str | None = None) -> HistoryEntry:
        """Delete a version; its id stays taken, and `prune` frees the bytes that nothing else names.

        Raises:
            VersionInUse: it is active, or what a rollback would bring back. VersionNotFound, StoreNotTrusted
        """
        self._check_trust("delete")
        return self.promotions.delete(model, version, reason)

    def plan_deletion(self, model: str, version: str) -> DeletionPlan:
        """Say what deleting a version would free; raises what `delete` would."""
        self.promotions.refuse_deletion(model, version)
        return plan_deletion(self.store, model, version)

    def prune(self, *, grace_s: float = GRACE_S, dry_run: bool = False, clock: Clock | None = None) -> PruneReport:
        """Do whatever is due to free what nothing names: sweep, tidy up, mark.

        Raises:
            InvalidInput, Corrupt, NewerFormat, StoreNotTrusted
        """
        self._check_trust("prune")
        return prune(self.store, grace_s=grace_s, dry_run=dry_run, by=self.by, clock=clock)

    def verify(
        self,
        reference: str | None = None,
        *,
        quick: bool = False,
        repair_from: str | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> VerifyReport:
        """Look at all that a version needs, or at everything; `repair_from` is the URL of a repository.

        Raises:
            NotFound, VersionDeleted, StoreNotTrusted, Unreachable, Stopped
        """
        repairs = None
        if repair_from is not None:
            self._check_trust("repair")
            repairs = Repairs(self.store, open_founded(open_store(repair_from)).store, self.by, Clock(), stop)
        scope = Scope(self.store, self.promotions, None if reference is None else self._resolver.meant(reference))
        return verify(scope, quick=quick, repairs=repairs, progress=progress, stop=stop)

    def _check_trust(self, verb: str) -> None:
        if self.distrust is not None:
            raise StoreNotTrusted(f"cannot {verb}: {self.distrust}")

    def _summary(
        self, model: str, one: Listed, active: str | None, previous: str | None, blocked: Collection[str]
    ) -> VersionSummary:
        named = VersionSummary(
            model=model,
            version=one.version,
            active=one.version == active,
            previous=one.version == previous,
            blocked=one.version in blocked,
            deleted=one.deleted,
        )
        try:
            manifest, digest = self._catalogue.manifest(model, one.version)
        except (Corrupt, NewerFormat) as error:
            return replace(named, problem=str(error))
        return replace(
            named,
            digest=digest,
            created_at=manifest.created_at,
            author=manifest.author,
            message=manifest.message,
            git_commit=manifest.git_commit,
            git_dirty=manifest.git_dirty,
            size_bytes=manifest.size_bytes,
        )

    # A list is still of use while a hand edit is broken, or one version cannot be read.
    def _active(self, model: str) -> str | None:
        with contextlib.suppress(InvalidActiveFile):
            return self.promotions.state(model).version
        return None

    def _previous(self, model: str) -> str | None:
        with contextlib.suppress(Corrupt, NewerFormat):
            return self.promotions.previous(model)
        return None
