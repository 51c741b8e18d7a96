"""Publish a version: docs/format.md, "Publication". Nothing is visible before the manifest, everything after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.errors import (
    Conflict,
    Corrupt,
    Forbidden,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    Unreachable,
    VersionExists,
)
from modelrepo.names import next_version
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.clock import Clock
from modelrepo.versions.content import Origin, Progress
from modelrepo.versions.leases import PendingPrunes, PushLease
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.window import Window

ASK_AGAIN_S = (0.2, 1.0, 5.0)  # where there was no answer at the manifest's creation or after it


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
    """A publication that happened, and how many bytes it sent and found there."""

    manifest: Manifest
    digest: str
    new_bytes: int
    reused_bytes: int


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
    clock = clock or Clock()
    model = publication.manifest.model
    if version is not None:
        refuse_taken(store, model, version)
    sender = _Sender(store, publication, progress, stop)
    lease = PushLease(store, model=model, by=by, digests=publication.objects(), clock=clock)
    skipped = _send_everything(store, publication, sender, lease, clock)
    while lease.lapsed:
        skipped = _send_everything(store, publication, sender, lease, clock)
    manifest, digest = _create_manifest(store, publication.manifest, version, clock)
    sender.stop = None  # the version is visible now: what is left must be done
    try:
        _retried(lambda: sender.send(skipped - sender.look(skipped), lease), clock)
    except Unreachable as error:
        raise type(error)(
            f"{model}@{manifest.version} is published, but the objects that it shares with other versions could not be "
            f"looked at once more ({error}); push again, and use the version that comes of it"
        ) from error
    for name, data in publication.copies.items():
        _create_copy(store, layout.copy_for_people(model, manifest.version, name), data)
    return Published(manifest, digest, sender.sent_bytes, sum(publication.objects().values()) - sender.sent_bytes)


def _send_everything(
    store: ObjectStore, publication: Publication, sender: _Sender, lease: PushLease, clock: Clock
) -> frozenset[str]:
    """Bring about everything that the manifest will name; returns the objects that were there already."""
    lease.take()
    prunes = PendingPrunes.look(store, clock)
    there = sender.look(publication.objects())
    skipped = there - prunes.release(there)
    sender.send(publication.objects().keys() - skipped, lease)
    for key, data in sorted(publication.bundles.items()):
        store.create(key, data)
    lease.renew_if_due()
    return skipped


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


def missing_objects(
    store: ObjectStore, objects: Mapping[str, int], *, stop: Callable[[], bool] | None = None
) -> set[str]:
    """Return those of `objects` (sha256 -> size) that the repository lacks.

    Raises:
        Corrupt: one is there with another size.
    """
    missing: set[str] = set()
    guard = threading.Lock()

    def look(digest: str, size_bytes: int) -> None:
        try:
            found = store.stat(layout.object_(digest)).size_bytes
        except ObjectNotFound:
            with guard:
                missing.add(digest)
            return
        if found != size_bytes:
            raise Corrupt(
                f"object sha256:{digest} in {store.url} has {found} bytes instead of {size_bytes}; "
                f"delete {layout.object_(digest)} there and push again",
                path=layout.object_(digest),
                digest=digest,
            )

    with Window(stop=stop) as window:
        for digest, size_bytes in objects.items():
            window.submit(0, look, digest, size_bytes)
    return missing


class _Sender:
    """Looks at objects and sends them, several at once."""

    def __init__(
        self,
        store: ObjectStore,
        publication: Publication,
        progress: Progress | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self._store, self.stop, self._progress = store, stop, progress
        self._origins, self._sizes = publication.origins, publication.objects()
        self._guard = threading.Lock()
        self.sent_bytes = 0

    def look(self, digests: Iterable[str]) -> frozenset[str]:
        """Return those that the repository has."""
        sizes = {digest: self._sizes[digest] for digest in digests}
        return frozenset(sizes.keys() - missing_objects(self._store, sizes, stop=self.stop))

    def send(self, digests: Iterable[str], lease: PushLease) -> None:
        """Create objects; one that is there by now is as good."""
        wanted = sorted(digests, key=self._place)
        lost = [digest for digest in wanted if digest not in self._origins]
        if lost:
            raise Corrupt(
                f"object sha256:{lost[0]} is missing from {self._store.url}, and its bytes are not on this box; "
                "push the version that it came from again",
                digest=lost[0],
            )
        total, before = sum(self._sizes[digest] for digest in wanted), self.sent_bytes
        with Window(stop=self.stop) as window:
            for digest in wanted:
                lease.renew_if_due()
                window.submit(self._sizes[digest], self._send, self._origins[digest])
                if self._progress is not None:
                    self._progress("send", self.sent_bytes - before, total)
        if self._progress is not None and wanted:
            self._progress("send", total, total)

    def _place(self, digest: str) -> tuple[str, int]:
        origin = self._origins.get(digest)
        return (str(origin.file), origin.span.start) if origin is not None else ("", 0)

    def _send(self, origin: Origin) -> None:
        key = layout.object_(origin.sha256)
        try:
            self._store.create(key, origin.read())
        except ObjectExists as error:
            raise Corrupt(
                f"object sha256:{origin.sha256} in {self._store.url} holds other bytes; "
                f"delete {key} there and push again",
                path=key,
                digest=origin.sha256,
            ) from error
        with self._guard:
            self.sent_bytes += origin.span.size_bytes


def _create_manifest(store: ObjectStore, draft: Manifest, version: str | None, clock: Clock) -> tuple[Manifest, str]:
    lost: set[str] = set()
    while True:
        wanted = version or next_version(taken_versions(store, draft.model) | lost)
        manifest = replace(draft, version=wanted)
        data = manifest.to_bytes()
        try:
            # No answer means "unknown": the same creation repeated succeeds whether or not the first one did.
            _retried(partial(store.create, layout.manifest(draft.model, wanted), data), clock)
        except ObjectExists as error:
            if version is not None:
                raise _taken(draft.model, version) from error
            lost.add(wanted)
            continue
        return manifest, sha256(data)


def _retried(call: Callable[[], None], clock: Clock) -> None:
    for pause_s in ASK_AGAIN_S:
        try:
            return call()
        except Forbidden:
            raise
        except Unreachable:
            clock.sleep(pause_s)
    return call()


def _create_copy(store: ObjectStore, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except (Conflict, Unreachable, NoSpace):
        pass  # the version is published; copies are for people's eyes only


def _taken(model: str, version: str) -> VersionExists:
    return VersionExists(
        f"cannot push {model}@{version}: the id is taken, and ids are never used twice; choose another"
    )
