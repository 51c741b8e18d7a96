"""From a model's folder to a published version."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelrepo.box_cache.cache_folder import default_cache
from modelrepo.clock import Clock
from modelrepo.contract import load_spec
from modelrepo.contract.spec import ModelSpec
from modelrepo.errors import Conflict, Corrupt, InvalidActiveFile, NotFound
from modelrepo.names import check_model_name, check_version_id, next_version
from modelrepo.progress import Progress
from modelrepo.publication.delivery import Delivery, missing_objects
from modelrepo.publication.publish import Publication, Published, finish, refuse_taken, taken_versions
from modelrepo.pushing import drafting
from modelrepo.pushing.account import FileAccount, PushPlan, account
from modelrepo.pushing.checkpoints import Lookup
from modelrepo.pushing.content import Content
from modelrepo.pushing.digest_cache import DigestCache
from modelrepo.pushing.drafting import Found, Packed
from modelrepo.pushing.pickles import pickle_notes
from modelrepo.pushing.push_options import CheckRequest, PushCheck, PushOptions
from modelrepo.pushing.rehearsal import check_push, interpreter_of, prepare_environment
from modelrepo.pushing.vendor import gather_for_push
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundles
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.manifest import Manifest

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
    by_file: tuple[FileAccount, ...] = ()


@dataclass(frozen=True, slots=True)
class Pusher:
    """Pushes into one repository. `lookup` finds the manifests of references."""

    store: ObjectStore
    catalogue: Catalogue
    lookup: Lookup
    by: str

    def plan(self, folder: Path, options: PushOptions, *, progress: Progress | None = None) -> PushPlan:
        """Say what a push would send; the environment is not looked at, nothing is written to the repository."""
        spec = read_spec(folder, options)
        packed = drafting.pack(self._look(folder, spec, options), self._content(options), progress=progress)
        if options.version is not None:
            refuse_taken(self.store, spec.name, options.version)
        version = options.version or next_version(taken_versions(self.store, spec.name))
        missing = missing_objects(self.store, packed.objects())
        return PushPlan(spec.name, version, account(packed.code, packed.checkpoints, missing))

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
        self._look(folder, spec, options)  # what is missing is said before anything slow begins
        with tempfile.TemporaryDirectory(prefix="modelrepo-push-") as scratch:
            prepared = prepare_environment(folder, spec, options, Path(scratch) / "environment")

            def pack(content: Content) -> Packed:
                return drafting.pack(self._look(folder, spec, options), content, progress=progress, stop=stop)

            def draft(packed: Packed, bundles: Bundles | None = None) -> Publication:
                return drafting.draft(
                    folder,
                    packed,
                    prepared.record,
                    at=clock.timestamp(),
                    author=options.author or self.by,
                    message=options.message,
                    bundles=bundles,
                    lock=prepared.lock,
                )

            packed = pack(self._content(options)) if options.if_changed else None
            if packed is not None and (same := self._unchanged(draft(packed).manifest)) is not None:
                return same
            content, work = self._content(options), Path(scratch) / "vendor"
            interpreter = interpreter_of(prepared)
            wheels = gather_for_push(
                self.store, prepared, interpreter, options, content, work, progress=progress, stop=stop
            )
            notes = check_push(folder, spec, prepared, options, check, wheels.source, progress=progress, stop=stop)
            with Delivery(
                self.store, model=spec.name, by=self.by, clock=clock, progress=progress, stop=stop
            ) as delivery:
                packed = packed or pack(self._content(options, delivery))
                packed.content.origins.update(content.origins)
                done = finish(delivery, self.store, draft(packed, wheels.bundles), version=options.version, clock=clock)
        checkpoints = done.manifest.checkpoints
        pickles = pickle_notes({name: [file.path for file in each.files] for name, each in checkpoints.items()})
        return _result(done, (*wheels.notes, *notes, *pickles))

    def _look(self, folder: Path, spec: ModelSpec, options: PushOptions) -> Found:
        reuse = self.lookup(options.reuse_checkpoints) if options.reuse_checkpoints else None
        earlier = tuple if options.rehash else partial(self._earlier, spec.name)
        return drafting.look(folder, spec, self.lookup, reuse=reuse, earlier=earlier)

    def _content(self, options: PushOptions, delivery: Delivery | None = None) -> Content:
        known = DigestCache(options.cache or default_cache(), distrusted=options.rehash)
        return Content(known, delivery)

    def _earlier(self, model: str) -> list[Manifest]:
        """Return the manifests of the newest and of the active version, as far as there are any."""
        listed = self.catalogue.versions(model)
        newest = [self.catalogue.manifest(model, listed[-1])[0]] if listed else []
        with contextlib.suppress(NotFound, Conflict, InvalidActiveFile, Corrupt):
            return [*newest, self.lookup(f"{model}@active")]
        return newest

    def _unchanged(self, draft: Manifest) -> PushResult | None:
        listed = self.catalogue.versions(draft.model)
        if not listed:
            return None
        newest, digest = self.catalogue.manifest(draft.model, listed[-1])
        if newest.content_digest() != draft.content_digest():
            return None
        size = sum(newest.objects().values())
        by_file = account(newest.code, newest.checkpoints, ())
        return PushResult(draft.model, newest.version, digest, 0, size, len(by_file), unchanged=True, by_file=by_file)


def _result(done: Published, notes: tuple[str, ...]) -> PushResult:
    manifest = done.manifest
    by_file = account(manifest.code, manifest.checkpoints, done.sent)
    return PushResult(
        manifest.model,
        manifest.version,
        done.digest,
        done.new_bytes,
        done.reused_bytes,
        len(by_file),
        notes=notes,
        by_file=by_file,
    )


def read_spec(folder: Path, options: PushOptions) -> ModelSpec:
    """Read a model's spec and check the names that a push would use."""
    spec = load_spec(folder)
    check_model_name(spec.name)
    if options.version is not None:
        check_version_id(options.version)
    return spec
