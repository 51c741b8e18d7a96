"""A store in this process's memory, shared by name: what `memory://NAME` opens."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelrepo.errors import ObjectChanged, ObjectExists, ObjectNotFound
from modelrepo.stores.port import ObjectStat, ObjectStore, StoreAbility, StoreIdentity, check_key, check_prefix


@dataclass(frozen=True, slots=True)
class _Held:
    data: bytes
    etag: str
    modified: float


@dataclass(slots=True)
class MemoryBucket:
    """What clients of one name share; `clock` is the store's own."""

    clock: Callable[[], float] = time.time
    held: dict[str, _Held] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    etags: Iterator[int] = field(default_factory=itertools.count)

    def put(self, key: str, data: bytes) -> None:
        """Store without any condition; the caller holds `lock`."""
        self.held[key] = _Held(bytes(data), f"{next(self.etags):x}", self.clock())


_buckets: dict[str, MemoryBucket] = {}
_buckets_lock = threading.Lock()


def shared_bucket(name: str) -> MemoryBucket:
    """Return the bucket that every `memory://<name>` of this process means."""
    with _buckets_lock:
        return _buckets.setdefault(name, MemoryBucket())


class MemoryStore:
    """One client of a memory bucket."""

    ability = StoreAbility(
        conditional_create=True, conditional_replace=True, single_put_limit_bytes=5 * 2**30, local=False
    )

    def __init__(self, name: str, bucket: MemoryBucket | None = None) -> None:
        self.url = f"memory://{name}"
        self.identity = StoreIdentity(endpoint="memory", bucket=name)
        self._bucket = shared_bucket(name) if bucket is None else bucket

    def read(self, key: str) -> bytes:
        return self._get(key).data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._get(key).data[start : start + length]

    def create(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._bucket.lock:
            there = self._bucket.held.get(key)
            if there is None:
                self._bucket.put(key, data)
            elif there.data != data:
                raise ObjectExists(f"cannot create {key} in {self.url}: it is there with other bytes", key=key)

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        check_key(key)
        with self._bucket.lock:
            there = self._bucket.held.get(key)
            if if_etag is not None and (there is None or there.etag != if_etag):
                raise ObjectChanged(f"cannot replace {key} in {self.url}: it was changed in between; read it again")
            self._bucket.put(key, data)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        check_prefix(prefix)
        with self._bucket.lock:
            found = [(key, self._bucket.held[key]) for key in sorted(self._bucket.held) if key.startswith(prefix)]
        return iter([_stat(key, held) for key, held in found])

    def delete(self, key: str) -> None:
        check_key(key)
        with self._bucket.lock:
            self._bucket.held.pop(key, None)

    def stat(self, key: str) -> ObjectStat:
        return _stat(key, self._get(key))

    def reaches(self, source: ObjectStore) -> bool:
        return isinstance(source, MemoryStore)

    def take_over(self, source: ObjectStore, key: str, etag: str) -> bool:
        assert isinstance(source, MemoryStore)
        with source._bucket.lock:
            held = source._bucket.held.get(key)
        with self._bucket.lock:
            if held is None or held.etag != etag or key in self._bucket.held:
                return False
            self._bucket.put(key, held.data)
            return True

    def _get(self, key: str) -> _Held:
        check_key(key)
        with self._bucket.lock:
            held = self._bucket.held.get(key)
        if held is None:
            raise ObjectNotFound(f"{key} is not in {self.url}", key=key)
        return held


def _stat(key: str, held: _Held) -> ObjectStat:
    return ObjectStat(key, len(held.data), held.etag, held.modified)
