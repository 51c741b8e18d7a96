"""A store that asks again: for buckets, where a request now and then is refused, cut off or never answered.

Asked again is after faults of the server (5xx), throttling, resets and time-outs: whatever the adapter raises as
`Unreachable` with `transient`. Everything else is an answer. The pauses are random between nothing and a limit that
doubles ("full jitter"), so that a thousand workers do not come back at one instant. What is raised in the end is not
transient any more: those above who would ask again leave it at that, else patience would multiply.

After such a fault nobody knows whether a write has happened. A `create` is simply made again, since one of the same
bytes succeeds; a conditional `replace` that finds another etag looks whether the bytes are its own, and counts as done
where they are.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from modelrepo.errors import ModelRepoError, ObjectChanged, ObjectNotFound, Unreachable
from modelrepo.stores.passing_on import PassingOn
from modelrepo.stores.port import ObjectStat, ObjectStore

T = TypeVar("T")

REPEATABLE = frozenset({"put_file"})
"""What a store can do beyond the port, and may be asked to do twice."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store is asked again.

    `tries`, and none that would begin later than `total_s` after the first, but never fewer than `fewest_tries`: one
    time-out alone may last longer than `total_s`. A store that has never answered gets `fewest_tries`, so that a wrong
    address is said soon. `delete_s` is `total_s` for deletes, and strict: prune counts on when its last one is over.
    """

    tries: int = 12
    fewest_tries: int = 3
    total_s: float = 30.0
    delete_s: float = 20.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0

    def longest_pause(self, tried: int) -> float:
        """Return the limit of the pause after so many tries, in seconds."""
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(tried - 1, 32))


PATIENT = Patience()
IMPATIENT = Patience(tries=1, fewest_tries=1)
"""For those who would rather do something else than wait."""


class RetryingStore(PassingOn):
    """Passes everything on to `inner`, again and again where there was no answer. `retrying` makes one."""

    def __init__(
        self,
        inner: ObjectStore,
        patience: Patience = PATIENT,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.inner, self.patience = inner, patience
        self._monotonic, self._sleep, self._draw = monotonic, sleep, draw
        self._has_answered = False

    def read(self, key: str) -> bytes:
        return self._run(lambda: self.inner.read(key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._run(lambda: self.inner.read_range(key, start, length))

    def create(self, key: str, data: bytes) -> None:
        self._run(lambda: self.inner.create(key, data))

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        try:
            self._run(lambda: self.inner.replace(key, data, if_etag=if_etag))
        except ObjectChanged:
            # Also where we have asked once only: clients and proxies repeat a PUT of their own accord.
            if not self._holds(key, data):
                raise

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return iter(self._run(lambda: [*self.inner.list(prefix)]))

    def delete(self, key: str) -> None:
        self._run(lambda: self.inner.delete(key), total_s=self.patience.delete_s, fewest_tries=1)

    def stat(self, key: str) -> ObjectStat:
        return self._run(lambda: self.inner.stat(key))

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key) == data
        except ObjectNotFound:
            return False

    def _run(self, operation: Callable[[], T], *, total_s: float | None = None, fewest_tries: int | None = None) -> T:
        patience = self.patience
        total_s = patience.total_s if total_s is None else total_s
        fewest_tries = patience.fewest_tries if fewest_tries is None else fewest_tries
        begun = self._monotonic()
        for tried in itertools.count(1):
            try:
                result = _interruptibly(operation)
            except Unreachable as error:
                if not error.transient:
                    raise
                if error.status is not None:
                    self._has_answered = True  # the address is right: it is only busy
                pause_s = self._draw() * patience.longest_pause(tried)
                late = self._monotonic() - begun + pause_s > total_s
                most = patience.tries if self._has_answered else min(patience.tries, patience.fewest_tries)
                if tried >= most or (late and tried >= fewest_tries):
                    if tried == 1:
                        raise
                    given_up = f"{error} (tried {tried} times)"
                    raise Unreachable(given_up, transient=False, status=error.status) from error
                self._sleep(pause_s)
            except ModelRepoError:
                self._has_answered = True
                raise
            else:
                self._has_answered = True
                return result
        raise AssertionError("a count has no end")


def _interruptibly(operation: Callable[[], T]) -> T:
    """Call; from the main thread in such a way that Ctrl-C does not wait for a server that is silent.

    A client may spend its time outside of Python, and there no signal is looked at.
    """
    if threading.current_thread() is not threading.main_thread():
        return operation()
    answer: Future[T] = Future()

    def call() -> None:
        try:
            answer.set_result(operation())
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(error)

    threading.Thread(target=call, name="modelrepo-request", daemon=True).start()
    return answer.result()


def retrying(
    inner: ObjectStore,
    patience: Patience = PATIENT,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
) -> RetryingStore:
    """Return a RetryingStore that can do what `inner` can, beyond the port's verbs too."""
    return _kind(type(inner))(inner, patience, monotonic=monotonic, sleep=sleep, draw=draw)


@cache
def _kind(inner: type[Any]) -> type[RetryingStore]:
    """Return a RetryingStore with the further abilities of `inner`, where `isinstance` with a Protocol sees them."""
    further = [name for name in dir(inner) if not name.startswith("_") and not hasattr(RetryingStore, name)]
    abilities: dict[str, Any] = {name: _passed_on(name) for name in further}
    if "read_pieces" in abilities:
        abilities["read_pieces"] = _read_pieces
    return type(f"Retrying{inner.__name__}", (RetryingStore,), abilities)


def _passed_on(name: str) -> property:
    def get(store: RetryingStore) -> Any:
        ability = getattr(store.inner, name)
        if name not in REPEATABLE:
            return ability
        return lambda *args, **named: store._run(lambda: ability(*args, **named))

    return property(get)


def _read_pieces(store: RetryingStore, key: str, start: int = 0) -> Iterator[memoryview]:
    """Read as ReadsInPieces says; where it breaks off it goes on behind the last piece that came."""
    pieces: Iterator[memoryview] | None = None

    def next_piece() -> memoryview | None:
        nonlocal pieces
        try:
            if pieces is None:
                pieces = store.inner.read_pieces(key, start)  # type: ignore[attr-defined]
            return next(pieces, None)
        except ModelRepoError:
            pieces = None
            raise

    while (piece := store._run(next_piece)) is not None:
        start += len(piece)
        yield piece
