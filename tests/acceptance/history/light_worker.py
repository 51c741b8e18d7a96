"""A worker of jobs that take no time, as a process: claims, finishes, and writes down what it was told.

Run as a script with one argument, a JSON object: see Plan.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a light worker is told."""

    name: str
    url: str
    log: str
    model: str = "m"
    time_scale: float = 1.0
    """The queue's times are the fleet's, multiplied by this."""
    skew_s: float = 0.0
    """How far its wall clock is off."""
    twice: bool = False
    """Send every request twice; the two answers must be equal."""
    batch: int = 5
    token: str | None = None

    def text(self) -> str:
        return json.dumps(asdict(self))


def main(plan: Plan) -> None:
    if plan.skew_s:
        real = time.time
        time.time = lambda: real() + plan.skew_s
    from modelrepo_runtime.queue.opening import open_queue
    from modelrepo_runtime.timing import Timing

    if plan.token:
        os.environ["MODELREPO_TOKEN"] = plan.token
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    timing = Timing().scaled(plan.time_scale)
    LightWorker(plan, open_queue(plan.url, timing), stop, timing.beat_s).run()


class LightWorker:
    def __init__(self, plan: Plan, queue: Any, stop: threading.Event, beat_s: float) -> None:
        self.plan, self.queue, self.stop, self.beat_s = plan, queue, stop, beat_s
        self.log = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.held: set[tuple[str, Any]] = set()
        self.lock = threading.Lock()
        self.session: Any = None

    def say(self, event: str, job_id: str = "-", fence: object = "-") -> None:
        os.write(self.log, f"{event} {job_id} {fence}\n".encode())

    def run(self) -> None:
        from modelrepo.errors import StaleSession, Unreachable
        from modelrepo_runtime.queue.port import Offer, WorkerInfo

        offers = [Offer("0", self.plan.model, "v1", ("run",), limit=self.plan.batch)]
        beating = threading.Thread(target=self._beat, daemon=True)
        seq = 0
        while not self.stop.is_set():
            if self.session is None:
                self.session = self._ask(lambda: self.queue.hello(WorkerInfo(self.plan.name, "box", os.getpid())))
                if not beating.is_alive():
                    beating.start()
                    waiter = self.queue.waiter([self.plan.model])
            seq += 1
            try:
                claims = self._ask(partial(self.queue.claim, self.session, seq, offers), twice=self.plan.twice)
            except StaleSession:
                self._begin_anew()
                continue
            if claims is None:
                continue
            for claim in claims:
                self.say("claimed", claim.job_id, claim.fence)
            with self.lock:
                self.held.update((claim.job_id, claim.fence) for claim in claims)
            if claims:
                self._finish([(claim.job_id, claim.fence) for claim in claims])
            else:
                with suppress(Unreachable):
                    waiter.wait(0.2)
        self.say("left")

    def _finish(self, held: list[tuple[str, Any]]) -> None:
        from modelrepo.errors import StaleFence
        from modelrepo_runtime.jobs import Cause, Outcome

        ends = [(job, fence, Outcome(Cause.SUCCEEDED, {"by": str(fence)})) for job, fence in held]
        answers = self._ask(lambda: self.queue.finish_all(self.session, ends), twice=self.plan.twice)
        for (job, fence), answer in zip(held, answers or (), strict=False):
            self.say("refused" if isinstance(answer, StaleFence) else "accepted", job, fence)
        with self.lock:
            self.held.difference_update(held)

    def _begin_anew(self) -> None:
        with self.lock:
            self.held.clear()
        self.session = None

    def _beat(self) -> None:
        from modelrepo.errors import ModelRepoError
        from modelrepo_runtime.queue.port import SlotReport

        while not self.stop.wait(self.beat_s):
            session = self.session
            if session is None:
                continue
            with self.lock:
                held = tuple(self.held)
            try:
                self.queue.beat(session, held, (SlotReport("0", "open", self.plan.model, "v1"),))
            except ModelRepoError:
                continue

    def _ask(self, call: Callable[[], Answer], *, twice: bool = False) -> Answer | None:
        """Repeat a call until the queue answers; None once the worker is to stop."""
        from modelrepo.errors import StaleFence, Unreachable

        while not self.stop.is_set():
            try:
                answer = call()
                if not twice:
                    return answer
                again = call()
            except Unreachable:
                self.stop.wait(0.05)
                continue
            if answer == ():
                return again  # nothing was leased, so nothing is to be told again
            if _plain(answer, StaleFence) != _plain(again, StaleFence):
                self.say("differs", repr(answer).replace(" ", ""), repr(again).replace(" ", ""))
            return answer
        return None


def _plain(answer: Any, refusal: type) -> Any:
    if isinstance(answer, tuple):
        return tuple("refused" if isinstance(each, refusal) else each for each in answer)
    return answer


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
