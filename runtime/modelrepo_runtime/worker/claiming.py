"""One thread that claims for all slots of a worker: an idle slot posts an offer, and a claim comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelrepo.errors import StaleSession, Unreachable
from modelrepo_runtime.jobs import Cause, Claim
from modelrepo_runtime.queue.port import LONGEST_POLL_S, Offer, Polls, Waiter
from modelrepo_runtime.remote.connection import Interrupt
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.suspend import boottime


@dataclass(slots=True)
class _Posted:
    offers: tuple[Offer, ...]
    deliver: Callable[[Sequence[Held]], None]


class Claimer:
    """Claims in one call for every slot that is idle, so that twenty idle slots look once and not twenty times.

    A claim's answer is never lost: a call that failed is repeated with the same number and the same offers.
    """

    def __init__(self, session: WorkerSession, journal: Journal) -> None:
        self._session, self._journal = session, journal
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._posted: dict[str, _Posted] = {}
        self._leaving: set[str] = set()
        """Slots that wait for the call under way, to be offered no more."""
        self._asking: frozenset[str] = frozenset()
        self._sequence = 0
        self._stopped = False
        self._models: frozenset[str] = frozenset()
        self._waiter: Waiter | None = None
        self._polls = session.queue if isinstance(session.queue, Polls) else None
        self._interrupt = Interrupt()
        self._thread = threading.Thread(target=self._run, name="claimer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, limit_s: float | None = None) -> None:
        """Claim no more; what was posted stays unanswered. Twice is legal.

        A call that the queue does not answer is waited for no longer than `limit_s`.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._wake()
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def post(self, offers: Sequence[Offer], deliver: Callable[[Sequence[Held]], None]) -> None:
        """Offer a slot, in one way or several, of which the queue answers one.

        `deliver` is called once, from another thread, with as many claims as the offer's limit at most, unless the
        offers are withdrawn before.
        """
        with self._changed:
            if self._stopped:
                return
            self._posted[offers[0].slot] = _Posted(tuple(offers), deliver)
            self._changed.notify_all()
            self._wake()

    def withdraw(self, slot: str) -> None:
        """Take an offer back. When this returns, it was either delivered, or never will be."""
        with self._changed:
            self._leaving.add(slot)
            if slot in self._asking:
                self._interrupt.set()
            self._changed.wait_for(lambda: slot not in self._asking)
            self._posted.pop(slot, None)
            self._leaving.discard(slot)

    def _wake(self) -> None:
        """End whatever the thread waits for."""
        self._interrupt.set()
        if self._waiter is not None:
            self._waiter.wake()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._posted.keys() - self._leaving or self._stopped)
                if self._stopped:
                    break
                staying = [posted for slot, posted in self._posted.items() if slot not in self._leaving]
                offers = tuple(offer for posted in staying for offer in posted.offers)
            try:
                if self._polls is None:
                    self._listen(frozenset(offer.model for offer in offers))
                found = self._claim(offers)
            except Exception as error:  # noqa: BLE001 - a worker without this thread would be silent for ever
                self._journal.confess("claimer", error)
                self._answered(offers, (), 0.0)
                found = False
            if not found:
                self._rest()
        if self._waiter is not None:
            self._waiter.close()

    def _listen(self, models: frozenset[str]) -> None:
        """Listen for jobs of these models too. A waiter that is there before the look loses no wake-up."""
        if models <= self._models and self._waiter is not None:
            return
        waiter = self._session.queue.waiter(sorted(self._models | models))
        with self._changed:
            before, self._waiter = self._waiter, waiter
            self._models |= models
        if before is not None:
            before.close()

    def _rest(self) -> None:
        """Wait for news: a wake-up, another offer, or the poll interval."""
        if self._waiter is not None:
            self._waiter.wait(self._session.timing.queue_poll_s)
            return
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, self._session.timing.queue_poll_s)

    def _claim(self, offers: Sequence[Offer]) -> bool:
        """Ask for jobs once; True where some came, so that it is worth asking on."""
        with self._changed:
            still = tuple(offer for offer in offers if self._is_posted(offer) and offer.slot not in self._leaving)
            if not still or self._stopped:
                return False
            self._asking = frozenset(offer.slot for offer in still)
            self._interrupt = interrupt = Interrupt()
        asked_at = boottime()
        try:
            claims = self._ask(still, interrupt)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)
            self._answered(still, (), asked_at)
            return self._ask_again(still, asked_at)
        except StaleSession:
            # The beat will find out, and begin a new session.
            self._answered(still, (), asked_at)
            return False
        self._sequence += 1
        self._answered(still, claims, asked_at)
        # A poll has waited already, unless its server would not have it wait.
        waited = self._polls is not None and boottime() - asked_at >= self._session.timing.queue_poll_s
        return bool(claims) or waited or interrupt.is_set

    def _ask(self, offers: Sequence[Offer], interrupt: Interrupt) -> tuple[Claim, ...]:
        if self._polls is None:
            return self._session.queue.claim(self._session.session, self._sequence, offers)
        return self._polls.poll(self._session.session, self._sequence, offers, LONGEST_POLL_S, interrupt)

    def _ask_again(self, offers: Sequence[Offer], asked_at: float) -> bool:
        """Repeat a call whose answer was lost, with its number: what it may have claimed is ours since `asked_at`."""
        while not self._stopped:
            self._rest()
            with self._changed:
                self._asking = frozenset(offer.slot for offer in offers)
            try:
                claims = self._session.queue.claim(self._session.session, self._sequence, offers)
            except Unreachable:
                self._answered(offers, (), asked_at)
                continue
            except StaleSession:
                self._answered(offers, (), asked_at)
                return False
            self._sequence += 1
            self._answered(offers, claims, asked_at)
            return bool(claims)
        return False

    def _answered(self, offers: Sequence[Offer], claims: Sequence[Claim], asked_at: float) -> None:
        wanted: dict[str, tuple[Offer, list[Held]]] = {}
        unwanted: list[Held] = []
        with self._changed:
            for claim in claims:
                held = self._session.hold(claim, asked_at)
                offer = self._taker(claim, offers)
                first, taken = wanted.setdefault(offer.slot, (offer, [])) if offer else (None, [])
                if offer is None or first != offer or len(taken) >= offer.limit:
                    unwanted.append(held)
                else:
                    taken.append(held)
            for slot, (_, taken) in wanted.items():
                self._posted.pop(slot).deliver(taken)
            self._asking = frozenset()
            self._changed.notify_all()
        for held in unwanted:
            self._session.hand_back(held, Cause.PREEMPTED)

    def _taker(self, claim: Claim, offers: Sequence[Offer]) -> Offer | None:
        """Find the offer that a claim answers; None where it stands no longer."""
        for offer in offers:
            if claim.slot in ("", offer.slot) and _could_run(offer, claim) and self._is_posted(offer):
                return offer
        return None

    def _is_posted(self, offer: Offer) -> bool:
        posted = self._posted.get(offer.slot)
        return posted is not None and offer in posted.offers


def _could_run(offer: Offer, claim: Claim) -> bool:
    same = offer.model == claim.model and offer.staged == claim.staged
    return same and claim.stage in offer.stages and claim.version in (None, offer.version)
