"""Copy one version: docs/format.md, "Copies". In the target it is published by the protocol of a push."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.copying.objects import CopiedObject
from modelrepo.copying.pace import Pace
from modelrepo.copying.place import Place
from modelrepo.errors import (
    Conflict,
    Corrupt,
    ModelRepoError,
    NewerFormat,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    Unreachable,
    VersionDeleted,
    VersionExists,
)
from modelrepo.progress import Progress
from modelrepo.publication.delivery import asked_again, deliver, missing_objects
from modelrepo.versions.bundles import Bundles, read_bundle
from modelrepo.versions.manifest import Manifest
from modelrepo.window import THREADS

Outcome = Literal["copied", "present", "planned", "failed"]


@dataclass(frozen=True, slots=True)
class CopiedVersion:
    """What became of one version; `new_bytes` and `objects` moved, or would move where it is `planned`.

    `present`: the target had it already. `bundles`: of its environment, delivered with it. `digest` is 64 hex digits,
    empty where the version could not be read.
    """

    model: str
    version: str
    digest: str
    outcome: Outcome
    objects: int = 0
    new_bytes: int = 0
    reused_bytes: int = 0
    bundles: int = 0
    error: ModelRepoError | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Courier:
    """Carries versions from one repository to another, one after the other, with `jobs` threads each."""

    source: Place
    target: Place
    by: str
    jobs: int = THREADS
    pace: Pace = field(default_factory=lambda: Pace(None))
    clock: Clock = field(default_factory=Clock)
    stop: Callable[[], bool] | None = None

    def carry(self, model: str, version: str, progress: Progress | None = None) -> CopiedVersion:
        """Copy a version, with the bundles of its environment.

        Raises:
            VersionExists: the target has another version under this id.
            VersionDeleted: it was deleted in the target, or meanwhile in the source.
            VersionNotFound, ModelNotFound, Corrupt, NewerFormat: of the source.
        """
        parcel = self._pack(model, version)
        if parcel.present and not parcel.documents:
            return CopiedVersion(model, version, parcel.digest, "present", reused_bytes=parcel.size_bytes)
        abandoned = threading.Event()

        def stop() -> bool:
            return abandoned.is_set() or (self.stop is not None and self.stop())

        origins = {
            digest: CopiedObject(self.source, model, version, digest, size_bytes, number, self.pace, stop)
            for number, (digest, size_bytes) in enumerate(parcel.objects.items())
        }
        delivered = deliver(
            self.target.store,
            model=model,
            by=self.by,
            objects=parcel.objects,
            origins=origins,
            documents=parcel.documents,
            publish=lambda: self._publish(parcel),
            clock=self.clock,
            progress=progress,
            stop=self.stop,
            threads=self.jobs,
            abandoned=abandoned,
        )
        self._copies_for_people(parcel)
        return CopiedVersion(
            model,
            version,
            parcel.digest,
            "present" if parcel.present else "copied",
            len(delivered.sent),
            delivered.new_bytes,
            delivered.reused_bytes,
            len(parcel.documents),
        )

    def plan(self, model: str, version: str, counted: set[str]) -> CopiedVersion:
        """Say what `carry` would move; objects in `counted` move with an earlier version, and new ones are added."""
        parcel = self._pack(model, version)
        if parcel.present and not parcel.documents:
            return CopiedVersion(model, version, parcel.digest, "present", reused_bytes=parcel.size_bytes)
        uncounted = {digest: size for digest, size in parcel.objects.items() if digest not in counted}
        missing = missing_objects(self.target.store, uncounted, stop=self.stop)
        counted |= missing
        new_bytes = sum(parcel.objects[digest] for digest in missing)
        reused = sum(parcel.objects.values()) - new_bytes
        return CopiedVersion(
            model, version, parcel.digest, "planned", len(missing), new_bytes, reused, len(parcel.documents)
        )

    def _pack(self, model: str, version: str) -> _Parcel:
        key = layout.manifest(model, version)
        try:
            data = self.source.store.read(key)
        except ObjectNotFound as error:
            raise self.source.catalogue.unknown(model, version) from error
        manifest = Manifest.from_bytes(data, name=key)
        if (manifest.model, manifest.version) != (model, version):
            raise Corrupt(f"{key} is the manifest of {manifest.model}@{manifest.version}; it was moved", path=key)
        if self.source.catalogue.is_deleted(model, version):
            raise VersionDeleted(f"cannot copy {model}@{version}: it was deleted in {self.source.url}")
        if self.target.catalogue.is_deleted(model, version):
            raise VersionDeleted(
                f"cannot copy {model}@{version} to {self.target.url}: it was deleted there, and ids are never used "
                "twice; push it there anew under another id"
            )
        present = self._present(model, version, data)
        bundles = self._bundles(manifest.environment.digest, only_missing=present)
        objects = bundles.objects if present else {**bundles.objects, **manifest.objects()}
        return _Parcel(model, version, data, objects, bundles.documents, manifest.size_bytes, present)

    def _present(self, model: str, version: str, data: bytes) -> bool:
        try:
            there = self.target.store.read(layout.manifest(model, version))
        except ObjectNotFound:
            return False
        if there != data:
            raise self._taken(model, version, data, there)
        return True

    def _taken(self, model: str, version: str, data: bytes, there: bytes) -> VersionExists:
        return VersionExists(
            f"cannot copy {model}@{version}: it is sha256:{sha256(data)} in {self.source.url}, and "
            f"{self.target.url} has sha256:{sha256(there)} under this id; ids are never used twice, so push one of the "
            "two anew under another id"
        )

    def _bundles(self, environment: str, *, only_missing: bool) -> Bundles:
        """Return the bundles of an environment, or those of them that the target lacks.

        Those that it has are delivered with a new version all the same: that holds them against a prune. One that
        cannot be read is of no use to anybody, and is left where it is.
        """
        folder = f"{layout.ENVIRONMENTS}{environment}/"
        there = {stat.key for stat in self.target.store.list(folder)} if only_missing else set()
        found = Bundles()
        for stat in self.source.store.list(folder):
            if stat.key in there:
                continue
            data = self.source.store.read(stat.key)
            try:
                records = read_bundle(stat.key, data)
            except (Corrupt, NewerFormat):
                continue
            found.documents[stat.key] = data
            found.objects.update({chunk.sha256: chunk.size_bytes for record in records for chunk in record.chunks})
        return found

    def _publish(self, parcel: _Parcel) -> str:
        key = layout.manifest(parcel.model, parcel.version)
        try:
            asked_again(lambda: self.target.store.create(key, parcel.data), self.clock)
        except ObjectExists as error:
            there = self.target.store.read(key)
            raise self._taken(parcel.model, parcel.version, parcel.data, there) from error
        return f"{parcel.model}@{parcel.version}"

    def _copies_for_people(self, parcel: _Parcel) -> None:
        for name in layout.COPIES_FOR_PEOPLE:
            key = layout.copy_for_people(parcel.model, parcel.version, name)
            try:
                self.target.store.create(key, self.source.store.read(key))
            except (ObjectNotFound, Conflict, Unreachable, NoSpace):
                continue  # the version is published; copies are for people's eyes only


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A version as it is to arrive: the manifest's bytes, and the objects and bundles that go before it."""

    model: str
    version: str
    data: bytes
    objects: Mapping[str, int]
    documents: Mapping[str, bytes]
    size_bytes: int
    present: bool

    @property
    def digest(self) -> str:
        return sha256(self.data)
