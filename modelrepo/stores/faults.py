"""A store that fails, or kills its caller, at a chosen operation: for tests of everything that writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

from modelrepo.errors import ModelRepoError, Unreachable
from modelrepo.stores.passing_on import PassingOn
from modelrepo.stores.port import LocalFolders, ObjectStat, ObjectStore, TakesOver

T = TypeVar("T")

Verb = Literal["read", "read_range", "create", "replace", "list", "delete", "stat", "exchange", "take_over"]
WRITES: frozenset[Verb] = frozenset({"create", "replace", "delete", "exchange", "take_over"})


class KillNow(BaseException):
    """Stands for SIGKILL: no `except Exception` holds it, and afterwards the store does nothing more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong.

    `at`: at which operation, 1 the first. `moment`: before it takes effect, or after (the acknowledgement is lost).
    `how`: `fail` raises Unreachable once, `kill` raises KillNow then and at every operation after. `verbs`: which
    operations count.
    """

    at: int
    moment: Literal["before", "after"] = "before"
    how: Literal["fail", "kill"] = "fail"
    verbs: frozenset[Verb] | None = None


class FaultyStore(PassingOn):
    """A store that passes everything on to `inner`, but for its faults; it counts and names the operations.

    `before` is called ahead of each operation, `on_kill` where a fault kills (to end the whole process, say).
    """

    def __init__(
        self,
        inner: ObjectStore,
        *faults: Fault,
        before: Callable[[Verb, str], None] | None = None,
        on_kill: Callable[[], None] | None = None,
    ) -> None:
        self.inner = inner
        self.operations: list[tuple[Verb, str]] = []
        self._faults = faults
        self._counts = [0] * len(faults)
        self._before, self._on_kill = before, on_kill
        self._killed = False
        self._lock = threading.Lock()

    def read(self, key: str) -> bytes:
        return self._run("read", key, lambda: self.inner.read(key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._run("read_range", key, lambda: self.inner.read_range(key, start, length))

    def create(self, key: str, data: bytes) -> None:
        self._run("create", key, lambda: self.inner.create(key, data))

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        self._run("replace", key, lambda: self.inner.replace(key, data, if_etag=if_etag))

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self._run("list", prefix, lambda: self.inner.list(prefix))

    def delete(self, key: str) -> None:
        self._run("delete", key, lambda: self.inner.delete(key))

    def stat(self, key: str) -> ObjectStat:
        return self._run("stat", key, lambda: self.inner.stat(key))

    def reaches(self, source: ObjectStore) -> bool:
        return isinstance(self.inner, TakesOver) and self.inner.reaches(_bare(source))

    def take_over(self, source: ObjectStore, key: str, etag: str) -> bool:
        assert isinstance(self.inner, TakesOver)
        inner = self.inner
        return self._run("take_over", key, lambda: inner.take_over(_bare(source), key, etag))

    def _run(self, verb: Verb, key: str, operation: Callable[[], T]) -> T:
        faults = self._due(verb, key)
        for fault in faults:
            if fault.moment == "before":
                self._strike(fault, verb, key)
        if self._before is not None:
            self._before(verb, key)
        try:
            result = operation()
        except ModelRepoError:
            self._strike_after(faults, verb, key)
            raise
        self._strike_after(faults, verb, key)
        return result

    def _strike_after(self, faults: tuple[Fault, ...], verb: Verb, key: str) -> None:
        for fault in faults:
            if fault.moment == "after":
                self._strike(fault, verb, key)

    def _due(self, verb: Verb, key: str) -> tuple[Fault, ...]:
        with self._lock:
            if self._killed:
                raise KillNow(f"{verb} {key} after the kill")
            self.operations.append((verb, key))
            due = []
            for index, fault in enumerate(self._faults):
                if fault.verbs is None or verb in fault.verbs:
                    self._counts[index] += 1
                    if self._counts[index] == fault.at:
                        due.append(fault)
            return tuple(due)

    def _strike(self, fault: Fault, verb: Verb, key: str) -> None:
        if fault.how == "fail":
            raise Unreachable(
                f"cannot {verb} {key} in {self.url}: a fault was asked for {fault.moment} operation {fault.at}"
            )
        with self._lock:
            self._killed = True
        if self._on_kill is not None:
            self._on_kill()
        raise KillNow(f"{fault.moment} operation {fault.at}: {verb} {key}")


def _bare(store: ObjectStore) -> ObjectStore:
    return store.inner if isinstance(store, FaultyStore) else store


class FaultyLocalStore(FaultyStore):
    """The same over a store of local files."""

    def locked(self, folder: str) -> AbstractContextManager[None]:
        return self._folders().locked(folder)

    def exchange(self, key: str, data: bytes) -> bytes | None:
        return self._run("exchange", key, lambda: self._folders().exchange(key, data))

    def _folders(self) -> LocalFolders:
        assert isinstance(self.inner, LocalFolders)
        return self.inner


def faulty(
    inner: ObjectStore,
    *faults: Fault,
    before: Callable[[Verb, str], None] | None = None,
    on_kill: Callable[[], None] | None = None,
) -> FaultyStore:
    """Return a FaultyStore that can do what `inner` can."""
    kind = FaultyLocalStore if isinstance(inner, LocalFolders) else FaultyStore
    return kind(inner, *faults, before=before, on_kill=on_kill)
