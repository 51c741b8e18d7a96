"""A store whose listings may be behind, by a time that is chosen anew for each: for tests of what relies on them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelrepo.errors import ObjectNotFound
from modelrepo.stores.passing_on import PassingOn
from modelrepo.stores.port import ObjectStat, ObjectStore


@dataclass(frozen=True, slots=True)
class _Change:
    """A write: what was there before it, None where there was nothing."""

    at: float
    key: str
    before: ObjectStat | None


@dataclass(slots=True)
class Lag:
    """What the clients of one store wrote lately, shared by all of them.

    `clock`: in seconds. `choose`: by how much the next listing is behind, at most `longest_s`.
    """

    clock: Callable[[], float]
    choose: Callable[[], float]
    longest_s: float
    changes: deque[_Change] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, key: str, before: ObjectStat | None) -> None:
        """Remember a write for as long as a listing may miss it."""
        now = self.clock()
        with self.lock:
            self.changes.append(_Change(now, key, before))
            while self.changes[0].at < now - self.longest_s:
                self.changes.popleft()

    def listing(self, inner: ObjectStore, prefix: str) -> Iterator[ObjectStat]:
        """Yield what `inner` held below `prefix` at one moment, which may be past."""
        with self.lock:
            moment = self.clock() - min(self.choose(), self.longest_s)
            found = {stat.key: stat for stat in inner.list(prefix)}
            for change in reversed(self.changes):
                if change.at <= moment:
                    break
                if change.before is None:
                    found.pop(change.key, None)
                elif change.key.startswith(prefix):
                    found[change.key] = change.before
        return iter([found[key] for key in sorted(found)])


class LaggingStore(PassingOn):
    """A client of `inner`; every client that writes must be one, with the same `lag`."""

    def __init__(self, inner: ObjectStore, lag: Lag) -> None:
        self.inner, self._lag = inner, lag
        self.read, self.read_range, self.stat = inner.read, inner.read_range, inner.stat

    def create(self, key: str, data: bytes) -> None:
        before = self._stat(key)
        self.inner.create(key, data)
        self._lag.record(key, before)

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        before = self._stat(key)
        self.inner.replace(key, data, if_etag=if_etag)
        self._lag.record(key, before)

    def delete(self, key: str) -> None:
        before = self._stat(key)
        self.inner.delete(key)
        self._lag.record(key, before)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self._lag.listing(self.inner, prefix)

    def _stat(self, key: str) -> ObjectStat | None:
        try:
            return self.inner.stat(key)
        except ObjectNotFound:
            return None
