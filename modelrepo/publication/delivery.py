"""Bring objects and documents into a repository so that no prune takes away what is counted on.

This is the protocol of docs/format.md, "Publication", as every writer goes through it: lease, prunes, objects (what is
there is skipped), documents, publication, and a second look at what was skipped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.errors import Corrupt, ObjectExists, ObjectNotFound, Unreachable
from modelrepo.progress import Progress
from modelrepo.publication.allowance import Allowance
from modelrepo.publication.leases import PendingPrunes, PushLease
from modelrepo.publication.origins import Origin, SendsItself
from modelrepo.stores.port import ObjectStore
from modelrepo.window import IN_FLIGHT_BYTES, THREADS, Window

T = TypeVar("T")

ASK_AGAIN_S = (0.2, 1.0, 5.0)  # where there was no answer at the publication or after it


@dataclass(frozen=True, slots=True)
class Delivered(Generic[T]):
    """What `publish` returned, and the objects that were sent for it (sha256 -> size); the others were there."""

    result: T
    sent: Mapping[str, int]
    new_bytes: int
    reused_bytes: int


def deliver(
    store: ObjectStore,
    *,
    model: str,
    by: str,
    objects: Mapping[str, int],
    origins: Mapping[str, Origin],
    documents: Mapping[str, bytes],
    publish: Callable[[], T],
    clock: Clock | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int = THREADS,
    abandoned: threading.Event | None = None,
) -> Delivered[T]:
    """Bring about `objects` (sha256 -> size), then create `documents` by key, then call `publish`.

    `origins` has those objects whose bytes can be had; all others must be in the repository. What `publish` returns
    names itself in errors by its `str`. Killed at any point before `publish` this leaves nothing that a reader follows;
    run again it skips what was sent. `abandoned` is set where it fails or is interrupted, for origins that wait.

    Raises:
        Corrupt: an object that only the repository could have is missing there or has another size.
    """
    delivery = Delivery(store, model=model, by=by, clock=clock, progress=progress, stop=stop, threads=threads)
    delivery.abandoned = abandoned or delivery.abandoned
    with delivery:
        delivery.bring(objects, origins)
        return delivery.finish(documents, publish)


class Delivery:
    """One writer's way through the protocol: `bring` any number of times, then `finish` once.

    What one `bring` sends is on its way while the caller makes the next ready.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        model: str,
        by: str,
        clock: Clock | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        threads: int = THREADS,
    ) -> None:
        self._store, self._clock = store, clock or Clock()
        self._progress, self._stop, self._threads = progress, stop, threads
        self._lease = PushLease(store, model=model, by=by, clock=self._clock)
        self._prunes = PendingPrunes(store, self._clock)
        self._objects: dict[str, int] = {}
        self._environments: set[str] = set()
        self._origins: dict[str, Origin] = {}
        self._skipped: set[str] = set()
        self._sent: dict[str, int] = {}
        self._sent_bytes = self._settled_bytes = self._objects_bytes = self._expected_bytes = 0
        self._allowance = Allowance(IN_FLIGHT_BYTES)
        self._guard = threading.Lock()
        self._window: Window | None = None
        self.abandoned = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abandoned.set()
        window, self._window = self._window, None
        if window is not None:
            window.__exit__(kind, error, trace)

    def bring(
        self, objects: Mapping[str, int], origins: Mapping[str, Origin], *, environments: Collection[str] = ()
    ) -> None:
        """Begin to send those of `objects` that are not there; returns while they are on their way.

        `environments`: the digests of those whose bundles are to stay.
        """
        self._bring_new(objects, origins, environments, {})

    def expect(self, size_bytes: int) -> None:
        """Count on so many bytes, which some later `bring` will speak of: for the sake of progress only."""
        self._expected_bytes += size_bytes

    def hold(self, size_bytes: int) -> None:
        """Wait until the caller may have so many bytes in memory, for `bring_loaded`."""
        self._allowance.take(size_bytes, self._check)

    def bring_loaded(self, loaded: Iterable[tuple[Origin, bytes]]) -> None:
        """Begin to send objects whose bytes are in memory; each was waited for with `hold`, and is let go from here."""
        at_hand: dict[str, bytes] = {}
        origins: dict[str, Origin] = {}
        for origin, data in loaded:
            if origin.sha256 in self._objects or origin.sha256 in at_hand:
                self._allowance.give_back(len(data))
            else:
                at_hand[origin.sha256], origins[origin.sha256] = data, origin
        self._bring_new({digest: len(data) for digest, data in at_hand.items()}, origins, (), at_hand)

    def finish(self, documents: Mapping[str, bytes], publish: Callable[[], T]) -> Delivered[T]:
        """Wait for what is on its way, create the documents, publish, and look again at what was skipped."""
        if named := {layout.environment_of(key) for key in documents} - self._environments:
            self.bring({}, {}, environments=named)
        self._create(documents)
        while self._lease.lapsed:
            self._lease.take()
            self._skipped.clear()
            self._bring(self._objects, self._environments, {})
            self._create(documents)
        result = publish()
        self._stop = None  # it is visible now: what is left must be done
        try:
            asked_again(lambda: self._look_again(documents), self._clock)
        except Unreachable as error:
            raise type(error)(
                f"{result} is published, but the objects that it shares with other versions could not be "
                f"looked at once more ({error}); push again, and use the version that comes of it"
            ) from error
        return Delivered(result, self._sent, self._sent_bytes, sum(self._objects.values()) - self._sent_bytes)

    def _create(self, documents: Mapping[str, bytes]) -> None:
        self._wait()
        for key, data in sorted(documents.items()):
            self._store.create(key, data)
        self._lease.renew_if_due()

    def _bring_new(
        self,
        objects: Mapping[str, int],
        origins: Mapping[str, Origin],
        environments: Collection[str],
        at_hand: dict[str, bytes],
    ) -> None:
        fresh = {digest: size for digest, size in objects.items() if digest not in self._objects}
        new = set(environments) - self._environments
        if self._lease.taken and not fresh and not new:
            return
        self._objects |= fresh
        self._objects_bytes += sum(fresh.values())
        self._origins |= {digest: origins[digest] for digest in fresh if digest in origins}
        self._environments |= new
        self._lease.take_more({*fresh, *new})
        self._lease.renew_if_due()
        self._bring(fresh, new, at_hand)

    def _bring(self, objects: Mapping[str, int], environments: Collection[str], at_hand: dict[str, bytes]) -> None:
        # All of them, and before looking: what is not there may be sent, and then be taken away by a late delete.
        lost = self._prunes.release({*objects, *environments})
        there = objects.keys() - missing_objects(self._store, objects, stop=self._asked_to_stop)
        skipped = there - (lost & self._origins.keys())
        self._skipped |= skipped
        self._settle(sum(objects[digest] for digest in skipped))
        for digest in skipped & at_hand.keys():
            self._allowance.give_back(len(at_hand.pop(digest)))
        self._send(objects.keys() - skipped, at_hand)

    def _look_again(self, documents: Mapping[str, bytes]) -> None:
        self._allowance = Allowance(IN_FLIGHT_BYTES)  # a try before this one may have failed with some of it in hand
        self._lease.renew_if_due()
        if self._lease.lapsed:  # the box slept just then: a sweep that had not seen the publication may be under way
            self._lease.take()
            self._bring(self._objects, self._environments, {})
        sizes = {digest: self._objects[digest] for digest in self._skipped}
        self._send(missing_objects(self._store, sizes), {})
        self._wait()
        for key, data in sorted(documents.items()):
            self._store.create(key, data)

    def _send(self, digests: Iterable[str], at_hand: dict[str, bytes]) -> None:
        wanted = sorted(digests, key=lambda digest: self._place(digest))
        lost = [digest for digest in wanted if digest not in self._origins]
        if lost:
            raise Corrupt(
                f"object sha256:{lost[0]} is missing from {self._store.url}, and its bytes are not on this box; "
                "push the version that it came from again",
                digest=lost[0],
            )
        if self._window is None:
            self._window = Window(threads=self._threads, stop=self._asked_to_stop, on_failure=self.abandoned.set)
        for digest in wanted:
            self._lease.renew_if_due()
            if digest not in at_hand:
                self._allowance.take(self._objects[digest], self._check)
            self._window.submit(0, self._send_one, self._origins[digest], at_hand.pop(digest, None))

    def _wait(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.__exit__(None, None, None)

    def _asked_to_stop(self) -> bool:
        return self._stop is not None and self._stop()

    def _place(self, digest: str) -> tuple[str, int]:
        origin = self._origins.get(digest)
        return origin.place if origin is not None else ("", 0)

    def _check(self) -> None:
        if self._window is not None:
            self._window.check()

    def _send_one(self, origin: Origin, data: bytes | None) -> None:
        try:
            self._create_object(origin, data)
        finally:
            self._allowance.give_back(origin.size_bytes)
        with self._guard:
            self._sent[origin.sha256] = origin.size_bytes
            self._sent_bytes += origin.size_bytes
        self._settle(origin.size_bytes)

    def _create_object(self, origin: Origin, data: bytes | None) -> None:
        key = layout.object_(origin.sha256)
        try:
            if data is None and isinstance(origin, SendsItself):
                origin.send(self._store, key)
            else:
                self._store.create(key, origin.read() if data is None else data)
        except ObjectExists as error:
            raise Corrupt(
                f"object sha256:{origin.sha256} in {self._store.url} holds other bytes; "
                f"delete {key} there and push again",
                path=key,
                digest=origin.sha256,
            ) from error

    def _settle(self, size_bytes: int) -> None:
        with self._guard:
            self._settled_bytes += size_bytes
            if self._progress is not None:
                total = max(self._expected_bytes, self._objects_bytes)
                self._progress("send", min(self._settled_bytes, total), total)


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


def asked_again(call: Callable[[], T], clock: Clock) -> T:
    """Call, a few times where there is no answer: what is created once may be created again with the same bytes.

    A store that has asked again by itself is not asked once more.
    """
    for pause_s in ASK_AGAIN_S:
        try:
            return call()
        except Unreachable as error:
            if not error.transient:
                raise
            clock.sleep(pause_s)
    return call()
