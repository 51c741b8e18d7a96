"""Tells waiting requests that their job may have changed: one thread waits on the queue for all of them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.jobs import Job
from modelrepo_runtime.queue.port import JobFilter, JobQueue, Waiter

log = logging.getLogger(__name__)

Face: TypeAlias = tuple[object, ...]
"""What a user sees of a job that changes."""
GONE: Face = ("gone",)
APART_S = 0.05
"""The shortest time between two looks at the queue."""
LOOKING_SHARE = 0.1
"""The part of its time that the thread may spend on looking, however many jobs are watched."""
AFTER_A_FAULT_S = 1.0


def face(job: Job) -> Face:
    """Return what tells one state of a job from the next."""
    return (job.status, job.stage, job.attempt, job.progress, job.message, job.cancel_requested)


@runtime_checkable
class TellsFaces(Protocol):
    """A queue that looks at many jobs for less than `list` does."""

    def faces(self, job_ids: Sequence[str]) -> Mapping[str, Face]: ...


@dataclass(slots=True, eq=False)
class Watch:
    """One request's interest in one job. It is told once when it begins, for what happened just before."""

    job_id: str
    told: Face | None
    _loop: asyncio.AbstractEventLoop
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    async def changed(self, timeout_s: float) -> None:
        """Return once the job may look different from what was `seen`, or when the time is over."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            pass
        self._event.clear()

    def tell(self, seen: Face | None = None) -> None:
        """Wake the request, from any thread."""
        self.told = seen
        self._loop.call_soon_threadsafe(self._event.set)


class News:
    """Begin with `start`; `stop` wakes every watch and ends the thread. `stopping` is true from then on."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._change = threading.Condition()
        self._watches: dict[str, set[Watch]] = {}
        self._waiter: Waiter | None = None
        self._thread: threading.Thread | None = None
        self._awake = threading.Event()
        self.stopping = False

    def start(self) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._run, name="gateway-news", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wake everybody, who then finds `stopping` set; stopping twice is legal."""
        with self._change:
            self.stopping = True
            watches = [watch for each in self._watches.values() for watch in each]
            if self._waiter is not None:
                self._waiter.wake()
            self._change.notify_all()
        self._awake.set()
        for watch in watches:
            watch.tell()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Watch a job."""
        watch = Watch(job_id, None, asyncio.get_running_loop())
        with self._change:
            self._watches.setdefault(job_id, set()).add(watch)
            if self._waiter is not None:
                self._waiter.wake()
            self._change.notify_all()
        try:
            yield watch
        finally:
            with self._change:
                left = self._watches[job_id]
                left.discard(watch)
                if not left:
                    del self._watches[job_id]

    def _run(self) -> None:
        watched: tuple[str, ...] = ()
        while not self.stopping:
            try:
                watched = self._round(watched)
            except ModelRepoError as error:
                log.warning("cannot listen to the queue: %s", error)
                self._awake.wait(AFTER_A_FAULT_S)
            except Exception:
                log.exception("listening to the queue failed")
                self._awake.wait(AFTER_A_FAULT_S)
        if self._waiter is not None:
            self._waiter.close()

    def _round(self, before: tuple[str, ...]) -> tuple[str, ...]:
        with self._change:
            self._change.wait_for(lambda: self._watches or self.stopping)
            watched = tuple(sorted(self._watches))
        if self.stopping:
            return watched
        if watched != before:
            self._listen(watched)
        begun = time.monotonic()
        looks = look(self._queue, watched)
        apart_s = max(APART_S, (1 / LOOKING_SHARE - 1) * (time.monotonic() - begun))
        for job_id, seen in looks.items():
            with self._change:
                for watch in self._watches.get(job_id, ()):
                    if watch.told != seen:
                        watch.tell(seen)
        self._awake.wait(apart_s)
        if self._waiter is not None:
            self._waiter.wait(60.0)
        return watched

    def _listen(self, watched: Iterable[str]) -> None:
        old, new = self._waiter, self._queue.waiter(jobs=list(watched))
        with self._change:
            self._waiter = new
        if old is not None:
            old.close()


def look(queue: JobQueue, job_ids: Iterable[str]) -> Mapping[str, Face]:
    """Return how jobs look now; one that is gone looks so."""
    wanted = tuple(job_ids)
    there: Mapping[str, Face]
    if isinstance(queue, TellsFaces):
        there = queue.faces(wanted)
    else:
        there = {job.id: face(job) for job in queue.list(JobFilter(ids=wanted, limit=len(wanted)))}
    return {job_id: there.get(job_id, GONE) for job_id in wanted}
