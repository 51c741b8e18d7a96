"""Checkpoints whose source is a bucket: what it lists, and which of it an earlier version has read already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelrepo.contract.spec import CheckpointSource
from modelrepo.errors import InvalidCheckpoint, InvalidInput, ObjectNotFound
from modelrepo.pushing.choosing import chosen
from modelrepo.pushing.earlier import Earlier
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStat, ObjectStore
from modelrepo.versions.chunks import Span
from modelrepo.versions.manifest import PLAIN, FileRecord
from modelrepo.versions.paths import inside, path_problem
from modelrepo.window import Window

STREAM_BYTES = 4 << 20  # of one request where bytes are only hashed


@dataclass(frozen=True, slots=True)
class StoredOrigin:
    """A run of bytes of an object in a bucket that is no repository of ours."""

    store: ObjectStore
    key: str
    span: Span
    sha256: str

    @property
    def size_bytes(self) -> int:
        return self.span.size_bytes

    @property
    def place(self) -> tuple[str, int]:
        return (f"{self.store.url}/{self.key}", self.span.start)

    def read(self) -> bytes:
        """Return the bytes; raises InvalidInput where they are others by now."""
        data = _read(self.store, self.key, self.span)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise _changed(self.store, self.key)
        return data


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a bucket, to be packed as `path`."""

    path: str
    store: ObjectStore
    stat: ObjectStat
    mode: int = PLAIN

    @property
    def size_bytes(self) -> int:
        return self.stat.size_bytes

    def read(self, span: Span) -> bytes:
        return _read(self.store, self.stat.key, span)

    def stream(self, span: Span) -> Iterator[bytes]:
        for start in range(span.start, span.start + span.size_bytes, STREAM_BYTES):
            yield self.read(Span(start, min(STREAM_BYTES, span.start + span.size_bytes - start)))

    def origin(self, span: Span, sha256: str) -> StoredOrigin:
        return StoredOrigin(self.store, self.stat.key, span, sha256)

    def identity(self) -> tuple[str, int]:
        """Return what changes when the object does; raises InvalidInput where it is not the one that was listed."""
        try:
            now = self.store.stat(self.stat.key)
        except ObjectNotFound as error:
            raise _changed(self.store, self.stat.key) from error
        if (now.etag, now.size_bytes) != (self.stat.etag, self.stat.size_bytes):
            raise _changed(self.store, self.stat.key)
        return now.etag, now.size_bytes


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint in a bucket; a FileRecord is a file whose bytes the repository already has."""

    files: tuple[StoredFile | FileRecord, ...]
    single: bool
    source: Mapping[str, Any]


def find_stored(name: str, source: CheckpointSource, earlier: Earlier) -> StoredCheckpoint:
    """List a checkpoint's files; one of the size and etag that an `earlier` version read is not read again.

    Raises:
        InvalidCheckpoint: there is none, or one has a name that cannot be written down.
        Unreachable, Forbidden, MissingExtra
    """
    store, stats, single = _listed(name, source)
    known = _known(source.source, earlier)
    files: list[StoredFile | FileRecord] = []
    facts: dict[str, dict[str, Any]] = {}
    for stat in stats:
        problem = path_problem(stat.key)
        if problem is not None:
            raise InvalidCheckpoint(f"checkpoint {name!r}: the name {stat.key!r} in {store.url} {problem}; rename it")
        facts[stat.key] = {"size_bytes": stat.size_bytes, "etag": stat.etag}
        known_as, record = known.get(stat.key, (None, None))
        files.append(record if record and known_as == facts[stat.key] else StoredFile(stat.key, store, stat))
    return StoredCheckpoint(tuple(files), single, {"source": source.source, "files": facts})


def download(checkpoint: StoredCheckpoint, target: Path) -> Path:
    """Write the files of a bucket's checkpoint below `target`; returns what the model is given."""
    with Window() as window:
        for file in checkpoint.files:
            if isinstance(file, StoredFile):
                path = inside(target, file.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                window.submit(STREAM_BYTES, _write, file, path)
    return target / checkpoint.files[0].path if checkpoint.single else target


def _write(file: StoredFile, path: Path) -> None:
    with path.open("wb") as stream:
        for piece in file.stream(Span(0, file.size_bytes)):
            stream.write(piece)
    file.identity()  # raises where it is not what was listed


def _listed(name: str, source: CheckpointSource) -> tuple[ObjectStore, list[ObjectStat], bool]:
    url = source.source.rstrip("/")
    store = open_store(url)
    everything = list(store.list(""))
    if everything:
        stats = [stat for stat in everything if chosen(source, stat.key)]
        if not stats:
            raise InvalidCheckpoint(
                f"checkpoint {name!r}: include and exclude leave none of the {len(everything)} files in {url}"
            )
        if not any(stat.size_bytes for stat in stats):
            raise InvalidCheckpoint(f"checkpoint {name!r} is empty: the files in {url} have no bytes; upload it again")
        return store, stats, False
    folder, _, leaf = url.rpartition("/")
    try:
        parent = open_store(folder)
        stat = parent.stat(leaf)
    except (ObjectNotFound, InvalidInput) as error:
        raise InvalidCheckpoint(
            f"checkpoint {name!r} is missing: {url} holds nothing; upload it, or correct model.yaml"
        ) from error
    if not stat.size_bytes:
        raise InvalidCheckpoint(f"checkpoint {name!r} is empty: {url} has no bytes; upload it again")
    return parent, [stat], True


def _known(url: str, earlier: Earlier) -> dict[str, tuple[Any, FileRecord]]:
    known: dict[str, tuple[Any, FileRecord]] = {}
    for manifest in earlier():
        for checkpoint in manifest.checkpoints.values():
            source = checkpoint.source or {}
            facts = source.get("files")
            if source.get("source") == url and isinstance(facts, Mapping):
                known |= {file.path: (facts[file.path], file) for file in checkpoint.files if file.path in facts}
    return known


def _read(store: ObjectStore, key: str, span: Span) -> bytes:
    try:
        data = store.read_range(key, span.start, span.size_bytes)
    except ObjectNotFound as error:
        raise _changed(store, key) from error
    if len(data) != span.size_bytes:
        raise _changed(store, key)
    return data


def _changed(store: ObjectStore, key: str) -> InvalidInput:
    return InvalidInput(f"{store.url}/{key} changed while it was being pushed; push again")
