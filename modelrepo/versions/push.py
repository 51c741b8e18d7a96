"""From a model's folder to a published version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelrepo.contract import load_spec
from modelrepo.contract.spec import ModelSpec
from modelrepo.names import check_model_name, check_version_id, next_version
from modelrepo.stores.port import ObjectStore
from modelrepo.versions import drafting
from modelrepo.versions.bundles import bundle_carried
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.checkpoints import Lookup
from modelrepo.versions.clock import Clock
from modelrepo.versions.delivery import missing_objects
from modelrepo.versions.drafting import PushPlan
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.progress import Progress
from modelrepo.versions.publish import publish, refuse_taken, taken_versions
from modelrepo.versions.push_options import CheckRequest, PushCheck, PushOptions
from modelrepo.versions.rehearsal import check_push, interpreter_of, prepare_environment

__all__ = ["CheckRequest", "PushCheck", "PushOptions", "PushResult", "Pusher", "read_spec"]


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
class Pusher:
    """Pushes into one repository. `lookup` finds the manifests that `modelrepo:` sources name."""

    store: ObjectStore
    catalogue: Catalogue
    lookup: Lookup
    by: str

    def plan(self, folder: Path, options: PushOptions, *, progress: Progress | None = None) -> PushPlan:
        """Say what a push would send; the environment is not looked at, nothing is written anywhere."""
        spec = read_spec(folder, options)
        packed = drafting.pack(folder, spec, self.lookup, progress=progress)
        if options.version is not None:
            refuse_taken(self.store, spec.name, options.version)
        version = options.version or next_version(taken_versions(self.store, spec.name))
        return drafting.plan(packed, missing_objects(self.store, packed.objects()), version)

    def push(
        self,
        folder: Path,
        options: PushOptions,
        *,
        check: PushCheck | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        clock: Clock | None = None,
    ) -> PushResult:
        """Publish a model's folder as a new version; raises as `Repository.push` does."""
        clock = clock or Clock()
        spec = read_spec(folder, options)
        if options.version is not None:
            refuse_taken(self.store, spec.name, options.version)
        drafting.look(folder, spec, self.lookup)
        with tempfile.TemporaryDirectory(prefix="modelrepo-push-") as scratch:
            prepared = prepare_environment(folder, spec, options, Path(scratch) / "environment")
            packed = drafting.pack(folder, spec, self.lookup, progress=progress, stop=stop)
            bundles = bundle_carried(prepared.record, prepared.carried, interpreter_of(prepared), packed.content)
            publication = drafting.draft(
                folder,
                packed,
                prepared.record,
                at=clock.timestamp(),
                author=options.author or self.by,
                message=options.message,
                bundles=bundles,
                lock=prepared.lock,
            )
            if options.if_changed and (same := self._unchanged(publication.manifest)) is not None:
                return same
            notes = check_push(folder, spec, prepared, options, check, progress=progress, stop=stop)
            done = publish(
                self.store,
                publication,
                version=options.version,
                by=self.by,
                clock=clock,
                progress=progress,
                stop=stop,
            )
        files = sum(1 for _ in done.manifest.files())
        return PushResult(
            spec.name, done.manifest.version, done.digest, done.new_bytes, done.reused_bytes, files, notes=notes
        )

    def _unchanged(self, draft: Manifest) -> PushResult | None:
        listed = self.catalogue.versions(draft.model)
        if not listed:
            return None
        newest, digest = self.catalogue.manifest(draft.model, listed[-1])
        if newest.content_digest() != draft.content_digest():
            return None
        files = sum(1 for _ in newest.files())
        size = sum(newest.objects().values())
        return PushResult(draft.model, newest.version, digest, 0, size, files, unchanged=True)


def read_spec(folder: Path, options: PushOptions) -> ModelSpec:
    """Read a model's spec and check the names that a push would use."""
    spec = load_spec(folder)
    check_model_name(spec.name)
    if options.version is not None:
        check_version_id(options.version)
    return spec
