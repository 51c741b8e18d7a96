"""Publish a version: which id it gets, and what is written beside it. Delivery does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.errors import Conflict, NoSpace, ObjectExists, ObjectNotFound, Unreachable, VersionExists
from modelrepo.names import next_version
from modelrepo.progress import Progress
from modelrepo.publication.delivery import Delivery, asked_again
from modelrepo.publication.origins import Origin
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be published. The version in `manifest` is replaced by the id that is won.

    `origins` has the objects whose bytes are here; all others that the manifest names must be in the repository.
    `bundles` are created before the manifest, by key; `copies` after it, by file name.
    """

    manifest: Manifest
    origins: Mapping[str, Origin]
    bundle_objects: Mapping[str, int] = field(default_factory=dict)
    bundles: Mapping[str, bytes] = field(default_factory=dict)
    copies: Mapping[str, bytes] = field(default_factory=dict)

    def objects(self) -> dict[str, int]:
        return {**self.manifest.objects(), **self.bundle_objects}


@dataclass(frozen=True, slots=True)
class Published:
    """A publication that happened, how many bytes it sent and found there, and the objects that it sent."""

    manifest: Manifest
    digest: str
    new_bytes: int
    reused_bytes: int
    sent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Won:
    """The id that a manifest was created under."""

    manifest: Manifest
    digest: str

    def __str__(self) -> str:
        return f"{self.manifest.model}@{self.manifest.version}"


def publish(
    store: ObjectStore,
    publication: Publication,
    *,
    version: str | None = None,
    by: str = "",
    clock: Clock | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Published:
    """Publish under the id `version`, or under the next `vN`.

    Killed at any point it leaves nothing visible; run again it skips what was sent.

    Raises:
        VersionExists: the given id is taken, perhaps by a deleted version.
        Corrupt: an object that only the repository could have is missing there or has another size.
    """
    clock, model = clock or Clock(), publication.manifest.model
    if version is not None:
        refuse_taken(store, model, version)
    with Delivery(store, model=model, by=by, clock=clock, progress=progress, stop=stop) as delivery:
        return finish(delivery, store, publication, version=version, clock=clock)


def finish(
    delivery: Delivery, store: ObjectStore, publication: Publication, *, version: str | None, clock: Clock
) -> Published:
    """Publish what `delivery` may have brought in part already; raises as `publish` does."""
    environment = publication.manifest.environment.digest
    delivery.bring(publication.objects(), publication.origins, environments=(environment,))
    create = partial(_create_manifest, store, publication.manifest, version, clock)
    done = delivery.finish(publication.bundles, create)
    manifest = done.result.manifest
    for name, data in publication.copies.items():
        _create_copy(store, layout.copy_for_people(manifest.model, manifest.version, name), data)
    return Published(manifest, done.result.digest, done.new_bytes, done.reused_bytes, done.sent)


def refuse_taken(store: ObjectStore, model: str, version: str) -> None:
    """Raise VersionExists where an id is taken, be it by a deleted version."""
    for key in (layout.manifest(model, version), layout.tombstone(model, version)):
        try:
            store.stat(key)
        except ObjectNotFound:
            continue
        raise _taken(model, version)


def taken_versions(store: ObjectStore, model: str) -> set[str]:
    """Return every id that was ever used, deleted versions too."""
    folder = layout.versions_folder(model)
    return {stat.key.removeprefix(folder).partition("/")[0] for stat in store.list(folder)}


def _create_manifest(store: ObjectStore, draft: Manifest, version: str | None, clock: Clock) -> Won:
    lost: set[str] = set()
    while True:
        wanted = version or next_version(taken_versions(store, draft.model) | lost)
        manifest = replace(draft, version=wanted)
        data = manifest.to_bytes()
        try:
            # No answer means "unknown": the same creation repeated succeeds whether or not the first one did.
            asked_again(partial(store.create, layout.manifest(draft.model, wanted), data), clock)
        except ObjectExists as error:
            if version is not None:
                raise _taken(draft.model, version) from error
            lost.add(wanted)
            continue
        return Won(manifest, sha256(data))


def _create_copy(store: ObjectStore, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except (Conflict, Unreachable, NoSpace):
        pass  # the version is published; copies are for people's eyes only


def _taken(model: str, version: str) -> VersionExists:
    return VersionExists(
        f"cannot push {model}@{version}: the id is taken, and ids are never used twice; choose another"
    )
