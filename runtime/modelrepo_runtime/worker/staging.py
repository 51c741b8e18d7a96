"""Fetch the next job's inputs while a job still runs, so that the slot does not wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.worker.ends import Brought, Ended
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.serving import Serving, SlotParts

FETCHES_AHEAD = 1.5
"""So many fetches before the end of the job that runs the next is staged: any earlier would keep it from others."""
LEAST_FETCH_S = 0.02
"""What takes less is not worth a claim of its own."""
LOOK_EVERY_S = 1.0
"""Progress may show that a job ends sooner than most."""


class Stager:
    """At most one staged job for a slot. `watch`, `ready`, `take` and `give_up` are the slot's thread's."""

    def __init__(self, parts: SlotParts) -> None:
        self._parts = parts
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._staged: Held | None = None
        self._brought: Brought | Ended | None = None

    def watch(self, held: Held, serving: Serving) -> None:
        """A job begins: look for the next one when its end is near."""
        if self._staged is not None or serving.stage(held.claim.stage).max_batch > 1:
            return
        fetch_s = self._parts.attempts.pace.fetch_s(held.claim.model, held.claim.stage)
        if fetch_s is None or fetch_s < LEAST_FETCH_S:
            return
        self._ended.clear()
        name = f"stage {self._parts.name}"
        self._thread = threading.Thread(target=self._run, args=(held, serving, fetch_s), name=name, daemon=True)
        self._thread.start()

    def ready(self) -> Held | None:
        """The job ends: return what is staged and may begin; its inputs may still be on their way."""
        if self._thread is not None:
            with self._changed:
                self._ended.set()
                self._changed.notify_all()
            self._parts.claimer.withdraw(self._parts.name)
        if self._staged is None:
            self._wait()
        elif self._staged.ended is not None or self._parts.tight() is not None:
            self.give_up()
        return self._staged

    def take(self, held: Held) -> Brought | Ended | None:
        """Return what was fetched for a job that begins; None where nothing was."""
        if held is not self._staged:
            return None
        self._wait()
        brought, self._staged, self._brought = self._brought, None, None
        return brought

    def give_up(self) -> None:
        """Give back what is staged and has not begun."""
        self.ready_no_more()
        held, self._staged, self._brought = self._staged, None, None
        if held is None:
            return
        self._parts.attempts.let_go(held)
        if held.ended is None:
            self._parts.session.hand_back(held, Cause.PREEMPTED)
        else:
            self._parts.session.drop(held)

    def ready_no_more(self) -> None:
        """Stop looking for a job."""
        with self._changed:
            self._ended.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._parts.claimer.withdraw(self._parts.name)
            self._wait()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, running: Held, serving: Serving, fetch_s: float) -> None:
        try:
            if self._end_is_near(running, fetch_s):
                self._stage(serving)
        except Exception as error:  # noqa: BLE001 - the next job then comes as any does
            self._parts.journal.confess(f"stage {self._parts.name}", error)

    def _end_is_near(self, running: Held, fetch_s: float) -> bool:
        began, pace = time.monotonic(), self._parts.attempts.pace
        while True:
            rest_s = pace.rest_s(running.claim, time.monotonic() - began, running.fraction)
            wait_s = LOOK_EVERY_S if rest_s is None else rest_s - FETCHES_AHEAD * fetch_s
            if wait_s <= 0 and self._parts.tight() is None:
                return not self._ended.is_set()
            if self._ended.wait(min(wait_s if wait_s > 0 else LOOK_EVERY_S, LOOK_EVERY_S)):
                return False

    def _stage(self, serving: Serving) -> None:
        offer = replace(serving.offer(self._parts.name, self._parts.box.kind, self._parts.room), staged=True)
        self._parts.claimer.post((offer,), self._deliver)
        with self._changed:
            while self._staged is None and not self._ended.is_set() and self._parts.tight() is None:
                self._changed.wait(LOOK_EVERY_S)
            held = self._staged
        if held is None:
            self._parts.claimer.withdraw(self._parts.name)
        elif self._parts.tight() is None:
            self._brought = self._parts.attempts.bring(
                held, slot=self._parts.name, digest=serving.prepared.version.digest
            )

    def _deliver(self, taken: Sequence[Held]) -> None:
        with self._changed:
            self._staged = taken[0]
            self._changed.notify_all()
