from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest

from modelrepo import canonical, layout
from modelrepo.copying.place import Place
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.promotion import Promotions
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.manifest import PLAIN, CheckpointRecord, ChunkRecord, FileRecord, Manifest

AddVersion = Callable[..., str]


def place_of(store: ObjectStore) -> Place:
    """Look at a store afresh, as another process would."""
    catalogue = Catalogue(store)
    return Place(store, catalogue, Promotions(store, catalogue, by="tester"))


def put(store: ObjectStore, data: bytes) -> ChunkRecord:
    record = ChunkRecord(sha256(data).hexdigest(), len(data))
    store.create(layout.object_(record.sha256), data)
    return record


def whole(name: str, *chunks: ChunkRecord, digest: str) -> FileRecord:
    return FileRecord(name, PLAIN, sum(chunk.size_bytes for chunk in chunks), digest, chunks)


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore("from", MemoryBucket())


@pytest.fixture
def target() -> MemoryStore:
    return MemoryStore("to", MemoryBucket())


@pytest.fixture
def add_version() -> AddVersion:
    return put_version


def put_version(
    store: ObjectStore,
    version: str = "v1",
    *,
    model: str = "tiny",
    weights: tuple[bytes, ...] = (b"first half, ", b"second half"),
    config: Mapping[str, canonical.Json] | None = None,
    environment: str = "e" * 64,
    note: str = "",
) -> str:
    """Put a version into a store, without any push; returns its digest. `weights`: the chunks of a checkpoint."""
    code = f"class Model: pass  # {model} {version}\n".encode()
    spec = {"contract": 1, "name": model, "entrypoint": "model:Model", "config": dict(config or {})}
    manifest = Manifest(
        model,
        version,
        "2026-01-01T00:00:00Z",
        spec,
        EnvironmentRecord(python="3.11", requires_python=">=3.11", digest=environment, pyproject_sha256="f" * 64),
        (whole("model.py", put(store, code), digest=sha256(code).hexdigest()),),
        {
            "w": CheckpointRecord(
                (
                    whole(
                        "w.bin",
                        *(put(store, chunk) for chunk in weights),
                        digest=sha256(b"".join(weights)).hexdigest(),
                    ),
                )
            )
        },
        message=note,
    )
    store.create(layout.manifest(model, version), manifest.to_bytes())
    store.create(layout.copy_for_people(model, version, "model.yaml"), b"contract: 1\n")
    return manifest.digest


def add_bundle(
    store: ObjectStore, *, wheel: bytes = b"a wheel", environment: str = "e" * 64, tag: str = "cp311"
) -> str:
    """Put a bundle of one wheel into a store; returns its key."""
    record = whole("one-1-py3-none-any.whl", put(store, wheel), digest=sha256(wheel).hexdigest())
    document = canonical.dumps(
        {
            "format": 1,
            "environment": environment,
            "extra": None,
            "python": tag,
            "platform": "linux_x86_64",
            "wheels": [record.to_json()],
        }
    )
    key = layout.bundle(environment, None, tag, "linux_x86_64", canonical.sha256(document))
    store.create(key, document)
    return key


def contents(store: ObjectStore, *, without: tuple[str, ...] = (layout.PUSHES,)) -> dict[str, bytes]:
    return {stat.key: store.read(stat.key) for stat in store.list("") if not stat.key.startswith(without)}
