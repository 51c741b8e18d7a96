"""Repositories with a few versions, made without packing anything, and a clock that is turned by hand."""

from __future__ import annotations

import os

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord
from modelrepo.publication.publish import Publication, publish
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundle, Bundles
from modelrepo.versions.manifest import PLAIN, ChunkRecord, FileRecord, Manifest

HOUR, DAY = 3600.0, 86400.0


class Turned:
    """The store's time, and that of clients, which is another and goes only when somebody says so."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def client(self) -> Clock:
        return Clock(lambda: self.seconds - 9 * DAY, lambda: self.seconds, self.advance)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class Bytes:
    """The origin of an object that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.sha256, self.size_bytes, self.place = data, sha256(data), len(data), ("", 0)

    def read(self) -> bytes:
        return self.data


def record(data: bytes, path: str) -> FileRecord:
    return FileRecord(path, PLAIN, len(data), sha256(data), (ChunkRecord(sha256(data), len(data)),))


def put(store: ObjectStore, *payloads: bytes, wheels: tuple[bytes, ...] = (), environment: bytes = b"e") -> Manifest:
    """Publish the next version of model `m`."""
    digest = sha256(environment)
    carried = tuple(CarriedWheel("w.whl", sha256(each), len(each)) for each in wheels)
    bundles = Bundles()
    if wheels:
        bundles.add(Bundle(digest, None, "cp311", "linux", tuple(record(each, "w.whl") for each in wheels)))
    manifest = Manifest(
        model="m",
        version="",
        created_at="2026-01-01T00:00:00Z",
        spec={"contract": 1, "name": "m", "entrypoint": "model:Model"},
        environment=EnvironmentRecord("3.11", ">=3.11", digest, "f" * 64, carried=carried),
        code=tuple(record(data, f"{number}.bin") for number, data in enumerate(payloads)),
        push=os.urandom(8).hex(),
    )
    origins = {sha256(data): Bytes(data) for data in (*payloads, *wheels)}
    return publish(store, Publication(manifest, origins, bundles.objects, bundles.documents)).manifest


def bury(store: ObjectStore, version: str) -> None:
    store.create(layout.tombstone("m", version), b"{}")


def objects(store: ObjectStore) -> set[bytes]:
    return {store.read(stat.key) for stat in store.list(layout.OBJECTS)}


def keys(store: ObjectStore, prefix: str) -> list[str]:
    return [stat.key for stat in store.list(prefix)]
