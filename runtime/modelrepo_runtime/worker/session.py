"""The worker's one session with the queue: beats, the attempts it holds, the turns it has, and safe finishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from modelrepo.errors import Conflict, StaleFence, StaleSession, Unreachable
from modelrepo_runtime.jobs import Cause, Claim, Fence, Outcome
from modelrepo_runtime.queue.port import BeatReply, FinishReply, JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.swaps import Halt, Swap
from modelrepo_runtime.queue.turns import SHARE, SWAP, fetch_kind
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.suspend import boottime, must_renew

Reply = TypeVar("Reply")

# News of a slot is told sooner than the next beat, but never in a storm of beats.
SOONEST_BEAT_S = 0.02


class WorkerSession:
    """Everything that the worker says to the queue but its claims."""

    def __init__(
        self,
        queue: JobQueue,
        info: WorkerInfo,
        timing: Timing,
        reports: Callable[[], Sequence[SlotReport]],
        journal: Journal,
        heard: Callable[[BeatReply], None] = lambda _: None,
    ) -> None:
        self.queue, self.timing, self._heard = queue, timing, heard
        self._info, self._reports, self._journal = info, reports, journal
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._has_news = False
        self._stopped = False
        self._give_up_at: float | None = None
        self._held: dict[tuple[str, Fence], Held] = {}
        self._turns: set[tuple[str, str, str]] = set()
        """Model, key and kind of those that beats renew."""
        self._fetching: dict[str, set[str]] = {}
        """Model -> slots of this box that share its turn to fetch."""
        self._fetch_turns = threading.Lock()
        self._beating = threading.Lock()
        self._session = queue.hello(info)
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    @property
    def session(self) -> Session:
        return self._session

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the session: what is still held goes back, uncounted."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        for turn in list(self._turns):
            self._end_turn(*turn)
        try:
            self.queue.goodbye(self._session)
        except (Unreachable, Conflict) as error:
            self._journal.say("goodbye-failed", error=error)

    def hurry(self, limit_s: float) -> None:
        """The worker is leaving: calls that the queue does not answer are given up after `limit_s`."""
        self._give_up_at = time.monotonic() + limit_s

    def beat_once(self) -> bool:
        """Beat now, in this thread; False where the queue did not answer."""
        return self._beat()

    def tell_soon(self) -> None:
        """A slot has news: beat now."""
        with self._news:
            self._has_news = True
            self._news.notify_all()

    def hold(self, claim: Claim, requested_at: float) -> Held:
        held = Held(claim, requested_at)
        with self._lock:
            self._held[claim.job_id, claim.fence] = held
        return held

    def holds(self) -> tuple[Held, ...]:
        """Return every attempt that this worker holds."""
        with self._lock:
            return tuple(self._held.values())

    def renew_if_late(self, held: Held) -> bool:
        """Before work starts on a lease that may be half gone, ask for more of it; False drops the attempt."""
        while must_renew(held.requested_at, boottime(), self.timing.lease_s):
            asked_at = boottime()
            if not self._beat():
                if self._wait_for_queue():
                    continue
                held.end(End.LOST)
            if held.ended is End.LOST:
                self._journal.say("attempt-dropped", job=held.claim.job_id, reason="its lease ran out meanwhile")
                return False
            held.requested_at = asked_at
        return held.ended is not End.LOST

    def begin(self, held: Held) -> bool:
        """Begin a staged job, asking as often as it takes; False where it is ours no more."""
        claim = held.claim
        while held.ended is None:
            try:
                self.queue.start(self._session, claim.job_id, claim.fence)
                return True
            except Unreachable as error:
                self._journal.say_once("queue", "queue-unreachable", error=error)
                if not self._wait_for_queue():
                    return False
            except (StaleFence, StaleSession):
                held.end(End.LOST)
        return False

    def finish(
        self, held: Held, outcome: Outcome, then: Offer | None = None, start: Held | None = None
    ) -> FinishReply | None:
        """Tell how an attempt ended, as often as it takes; None where it is no longer ours to end.

        `start`: a staged job to begin where `then` brings nothing.
        """
        claim = held.claim
        held.finishing()
        begin = None if start is None else (start.claim.job_id, start.claim.fence)
        return self._settle(
            held, lambda: self.queue.finish(self._session, claim.job_id, claim.fence, outcome, then=then, start=begin)
        )

    def hand_back(self, held: Held, cause: Cause) -> None:
        """Give an attempt back, uncounted."""
        claim = held.claim
        held.finishing()
        self._settle(held, lambda: self.queue.hand_back(self._session, claim.job_id, claim.fence, cause))

    def drop(self, held: Held) -> None:
        """Let go of an attempt that is not ours any more, without a word to the queue."""
        with self._lock:
            self._held.pop((held.claim.job_id, held.claim.fence), None)

    def _settle(self, held: Held, call: Callable[[], Reply]) -> Reply | None:
        claim = held.claim
        try:
            while held.ended is not End.LOST:
                try:
                    return call()
                except Unreachable as error:
                    self._journal.say_once("queue", "queue-unreachable", error=error)
                    if not self._wait_for_queue():
                        self._journal.say("attempt-unsettled", job=claim.job_id, reason="the queue does not answer")
                        return None
            self._journal.say("attempt-lost", job=claim.job_id, fence=claim.fence.number)
            return None
        except (StaleFence, StaleSession) as error:
            self._journal.say("finish-refused", job=claim.job_id, fence=claim.fence.number, error=error)
            return None
        finally:
            with self._lock:
                self._held.pop((claim.job_id, claim.fence), None)

    def take_turn(self, model: str, slot: str, slots_total: int, max_unavailable: str) -> bool:
        """Try to become one of the slots of a model that may swap now; beats renew the turn."""
        return self._take_turn(model, self._key(slot), slots_total, max_unavailable, SWAP)

    def has_turn(self, model: str, slot: str) -> bool:
        """Ask the queue whether the turn is still ours: before what cannot be taken back."""
        try:
            return self.queue.renew_turn(model, self._key(slot), self.timing.turn_s)
        except Unreachable:
            return False

    def end_turn(self, model: str, slot: str) -> None:
        self._end_turn(model, self._key(slot), SWAP)

    def take_fetch_turn(self, model: str, slot: str, boxes: int) -> bool:
        """Try to become one of the cluster's `boxes` that may fetch for a model now; slots of a box share its turn."""
        with self._fetch_turns:
            ours = self._fetching.setdefault(model, set())
            if not ours and not self._take_turn(model, self._info.name, 0, str(boxes), self._fetch_kind):
                return False
            ours.add(slot)
            return True

    def take_share_turn(self, model: str, slot: str, waiting: int, most: str) -> bool:
        """Try to become one of the slots that come to a model from another one: of as many as jobs wait, `most`."""
        return self._take_turn(model, self._key(slot), waiting, most, SHARE)

    def end_share_turn(self, model: str, slot: str) -> None:
        """Give it back."""
        self._end_turn(model, self._key(slot), SHARE)

    def end_fetch_turn(self, model: str, slot: str) -> None:
        """Give the box's turn back where no other of its slots fetches for the model."""
        with self._fetch_turns:
            ours = self._fetching.get(model, set())
            ours.discard(slot)
            if not ours:
                self._end_turn(model, self._info.name, self._fetch_kind)

    def halt_of(self, swap: Swap) -> Halt | None:
        """Ask why a swap should be left alone; a queue that does not answer says nothing against it."""
        try:
            return self.queue.halt_of(swap)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)
            return None

    def refuse_swap(self, swap: Swap, slot: str, reason: str) -> None:
        """Tell the fleet that a version did not come up here; whoever has not begun the swap may hear of it."""
        try:
            halted = self.queue.refuse_swap(swap, self._info.name, slot, reason)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)
            return
        if halted:
            self._journal.say("swap-halted", slot=slot, version=f"{swap.model}@{swap.version}")

    def accept_swap(self, swap: Swap, slot: str) -> None:
        """Tell the fleet that a version came up here after all."""
        try:
            self.queue.accept_swap(swap, self._info.name, slot)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)

    @property
    def _fetch_kind(self) -> str:
        return fetch_kind(self._info.cluster)

    def _key(self, slot: str) -> str:
        return f"{self._info.name}/{slot}"

    def _take_turn(self, model: str, key: str, slots_total: int, most: str, kind: str) -> bool:
        try:
            taken = self.queue.take_turn(model, key, slots_total, most, self.timing.turn_s, kind)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)
            return False
        if taken:
            with self._lock:
                self._turns.add((model, key, kind))
        return taken

    def _end_turn(self, model: str, key: str, kind: str) -> None:
        with self._lock:
            if (model, key, kind) not in self._turns:
                return
            self._turns.discard((model, key, kind))
        try:
            self.queue.end_turn(model, key, kind)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._has_news or self._stopped, max(0.0, due - time.monotonic()))
                if self._stopped:
                    return
                self._has_news = False
            started = time.monotonic()
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - without beats every job of the worker would be lost
                self._journal.confess("beat", error)
            due = started + self.timing.beat_s
            with self._news:
                self._news.wait_for(lambda: self._stopped, min(SOONEST_BEAT_S, self.timing.beat_s))

    def _beat(self) -> bool:
        """Beat once; False where the queue did not answer."""
        with self._beating:
            with self._lock:
                held, turns = dict(self._held), list(self._turns)
            try:
                reply = self.queue.beat(self._session, tuple(held), tuple(self._reports()))
            except StaleSession as error:
                return self._begin_again(held, error)
            except Unreachable as error:
                self._journal.say_once("queue", "queue-unreachable", error=error)
                return False
        if self._journal.forget("queue"):
            self._journal.say("queue-answers")
        for key, attempt in held.items():
            if key in reply.lost:
                attempt.end(End.LOST)
            elif key[0] in reply.cancelled:
                attempt.end(End.CANCELLED)
        self._heard(reply)
        self._tell_more(held.values(), turns)
        return True

    def _tell_more(self, held: Iterable[Held], turns: Iterable[tuple[str, str, str]]) -> None:
        """Renew turns and tell progress with a beat; what does not arrive is told with the next."""
        try:
            for model, key, kind in turns:
                self.queue.renew_turn(model, key, self.timing.turn_s, kind)
            self._tell_progress(held)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)

    def _begin_again(self, held: Mapping[tuple[str, Fence], Held], error: StaleSession) -> bool:
        """The queue has ended our session: all that it held is lost, and a new one begins; False where it can't yet."""
        self._journal.say_once("session", "session-lost", error=error)
        try:
            self._session = self.queue.hello(self._info)
        except Unreachable as away:
            self._journal.say_once("queue", "queue-unreachable", error=away)
            return False
        finally:
            for attempt in held.values():
                attempt.end(End.LOST)
        self._journal.forget("session")
        return True

    def _tell_progress(self, held: Iterable[Held]) -> None:
        for attempt in held:
            progress = attempt.take_progress()
            if progress is None:
                continue
            try:
                self.queue.progress(attempt.claim.job_id, attempt.claim.fence, *progress)
            except StaleFence:
                continue

    def _wait_for_queue(self) -> bool:
        """Wait a moment before the queue is asked again; False once the worker should give up."""
        if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
            return False
        with self._news:
            stopped = self._stopped
            if not stopped:
                self._news.wait(self.timing.queue_poll_s)
        return not stopped
