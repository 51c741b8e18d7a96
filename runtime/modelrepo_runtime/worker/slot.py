"""One slot: what it serves, what comes, and the thread that takes jobs and switches children between two of them."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from enum import Enum, auto

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.worker.attempt import Ended
from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.child_start import start
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.preparing import Chosen
from modelrepo_runtime.worker.refusal import Refusal, refuse
from modelrepo_runtime.worker.serving import Serving, SlotChild, SlotParts
from modelrepo_runtime.worker.slot_report import report_of
from modelrepo_runtime.worker.slot_states import slot_state
from modelrepo_runtime.worker.suspend import boottime
from modelrepo_runtime.worker.swap_plan import SwapPlan
from modelrepo_runtime.worker.target import Target

# A child that dies while it has nothing to do, this often in a row, will not get better by starting it again.
IDLE_DEATHS = 3


class Superseded(Exception):
    """Something else is wanted meanwhile; a swap is dropped where it stands."""


class _Step(Enum):
    LEAVE = auto()
    SWITCH = auto()
    YIELD = auto()
    RESTART = auto()
    TAKE = auto()
    WAIT = auto()


class Slot:
    """The state of one slot. Everything behind `changed` is read and written while it is held.

    Two threads: this one serves; the Swapper's brings up another version beside it. A crashed child is started again by
    this one, so that a long fetch of the next version does not keep the slot idle.
    """

    def __init__(self, parts: SlotParts, model: str) -> None:
        self.parts, self.model = parts, model
        self.changed = threading.Condition()
        self.target: Target | None = None
        self.serving: Serving | None = None
        self.last_good: Serving | None = None
        self.refusal: Refusal | None = None
        self.stopping = False
        self.incoming: tuple[Target, str] | None = None
        self.plan: SwapPlan | None = None
        timing = parts.timing
        self._breaker = Breaker(first_backoff_s=timing.cordon_first_s, longest_backoff_s=timing.cordon_longest_s)
        self._starting: list[SlotChild] = []
        self._ready: Serving | None = None
        self._yield_for: Target | None = None
        self._left: Serving | None = None
        self._held: Held | None = None
        self._delivered: Held | None = None
        self._restart_wanted = False
        self._idle_deaths = 0
        self._idle_since = time.monotonic()
        self._switched = False
        self._thread = threading.Thread(target=self._serve, name=f"slot {parts.name}", daemon=True)

    # What other threads ask of a slot.

    def start(self) -> None:
        self._thread.start()

    def set_target(self, target: Target) -> None:
        """Say what the slot should serve from now on."""
        with self.changed:
            self.target, self.refusal = target, None
            held = self._held if target.end_running and not self._serves(target) else None
            self.changed.notify_all()
        if held is not None:
            held.end(End.PREEMPTED)

    def leave(self) -> None:
        """Take no more jobs, finish the one that runs, and end the children."""
        with self.changed:
            self.stopping = True
            starting = tuple(self._starting)
            self.changed.notify_all()
        for child in starting:
            child.stop(0)

    def abandon(self) -> None:
        """End what runs now, to be handed back."""
        with self.changed:
            held, child = self._held, self.serving.child if self.serving else None
        if held is not None:
            held.end(End.PREEMPTED)
            if child is not None:
                child.stop(0)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the slot's thread has left; False where it has not within `timeout_s`."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def dump_stacks(self) -> None:
        """Write the stacks of the child's threads to the log of its job."""
        with self.changed:
            children = [serving.child for serving in (self.serving, self._ready) if serving] + self._starting
        for child in children:
            child.dump_stacks()

    def report(self) -> SlotReport:
        """Say what the slot is doing, for the next beat."""
        with self.changed:
            starting = self._starting[-1].state if self._starting else None
            return report_of(
                self.parts.name,
                self.parts.layout.label,
                model=self.model,
                serving=self.serving,
                incoming=self.incoming,
                starting=starting,
                breaker=self._breaker,
                refusal=self.refusal,
                plan=self.plan,
                job_id=self._held.claim.job_id if self._held else None,
                notes=self.target.notes if self.target else (),
                monotonic=time.monotonic(),
                wall=time.time(),
            )

    # What the Swapper asks of it.

    def superseded(self, target: Target) -> bool:
        """Tell whether a swap to `target` should be dropped: something else is wanted, or nothing any more."""
        with self.changed:
            return self.stopping or self.target is None or self.target.key != target.key

    def show(self, target: Target | None, phase: str = "") -> None:
        """Show how far the swap is."""
        with self.changed:
            self.incoming = (target, phase) if target is not None else None
        self.parts.session.tell_soon()

    def show_plan(self, plan: SwapPlan | None) -> None:
        with self.changed:
            self.plan = plan

    def adopt(self, chosen: Chosen) -> bool:
        """Take a change that asks for what already runs; False where it asks for something else."""
        with self.changed:
            serving = self.serving
            if serving is None or serving.prepared.chosen.runs_as != chosen.runs_as:
                return False
            self.serving = replace(serving, target=chosen.target)
            self.refusal = None
        self.parts.session.tell_soon()
        return True

    def hand_over(self, new: Serving) -> Serving | None:
        """Let the slot's thread switch to a warm child between two jobs; returns the one that served until then.

        Raises:
            Superseded: something else was wanted before the switch.
        """
        with self.changed:
            self._ready = new
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._ready is not new or self.superseded(new.target))
            if self._ready is new:
                self._ready = None
                raise Superseded
            old, self._left = self._left, None
            return old

    def yield_child(self, target: Target) -> Serving:
        """Have the serving child once its job is done, and the slot without any.

        Raises:
            Superseded: something else was wanted before.
        """
        with self.changed:
            self._yield_for = target
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._left is not None or self.superseded(target))
            self._yield_for = None
            old, self._left = self._left, None
            if old is None:
                raise Superseded
            return old

    def install(self, new: Serving) -> None:
        """Serve with this child, in a slot that has none."""
        with self.changed:
            self._put(new)
            self.changed.notify_all()
        self.parts.session.tell_soon()

    def refuse(self, target: Target, error: BaseException) -> None:
        """Say why a target does not run here. What serves goes on."""
        with self.changed:
            refusal = refuse(target.key, error, now=time.time(), before=self.refusal, timing=self.parts.timing)
            if self.target is not None and self.target.key == target.key:
                self.refusal = refusal
            self.changed.notify_all()
        self.parts.journal.say(
            "refused", slot=self.parts.name, target=target, reason=refusal.reason, next_action=refusal.next_action
        )
        self.parts.session.tell_soon()

    def accept(self) -> None:
        """The target runs: nothing is refused any more."""
        with self.changed:
            self.refusal = None

    def starting(self, child: SlotChild) -> None:
        """Remember a child that loads, so that `leave` can end it."""
        with self.changed:
            self._starting.append(child)
            stopping = self.stopping
        if stopping:
            child.stop(0)

    def started(self, child: SlotChild) -> None:
        with self.changed:
            self._starting.remove(child)

    # The slot's own thread.

    def _serve(self) -> None:
        while True:
            with self.changed:
                step = self._step()
                if step is _Step.WAIT:
                    self.changed.wait(self._patience())
            if step is _Step.LEAVE:
                self._stop_serving()
                return
            try:
                self._do(step)
            except Exception as error:  # noqa: BLE001 - a slot without its thread would be silent for ever
                self.parts.journal.say(
                    "slot-error", slot=self.parts.name, error=repr(error), trace=traceback.format_exc()
                )
                with self.changed:
                    self.changed.wait(self.parts.timing.beat_s)

    def _do(self, step: _Step) -> None:
        match step:
            case _Step.SWITCH:
                self._switch()
            case _Step.YIELD:
                self._yield()
            case _Step.RESTART:
                self._restart()
            case _Step.TAKE:
                self._take()
            case _:
                pass

    def _step(self) -> _Step:
        if self.stopping:
            return _Step.LEAVE
        if self._ready is not None:
            return _Step.SWITCH
        if self.serving is None:
            return _Step.WAIT
        if self._yield_for is not None:
            return _Step.YIELD
        if self._restart_wanted or not self.serving.child.alive:
            return _Step.RESTART
        if not self._breaker.may_claim(time.monotonic()) or self._is_left():
            return _Step.WAIT
        return _Step.TAKE

    def _is_left(self) -> bool:
        """After `rollback --now` the version that is left takes no more jobs, unless the other does not come up."""
        return (
            self.target is not None
            and self.target.end_running
            and self.refusal is None
            and not self._serves(self.target)
        )

    def _serves(self, target: Target) -> bool:
        return self.serving is not None and self.serving.target.key == target.key

    def _patience(self) -> float:
        """How long to wait for a change: until the cordon's end, and never past a beat, to notice a dead child."""
        until = self._breaker.cordoned_until
        rest = self.parts.timing.beat_s if until is None else until - time.monotonic()
        return max(0.001, min(rest, self.parts.timing.beat_s))

    def _put(self, new: Serving) -> None:
        self.serving = self.last_good = new
        self._restart_wanted = False
        self._breaker = self._breaker.swapped(time.monotonic())
        self._switched = True

    def _switch(self) -> None:
        with self.changed:
            if self._ready is None:
                return
            self._left = self.serving
            self._put(self._ready)
            self._ready = None
            self.changed.notify_all()

    def _yield(self) -> None:
        with self.changed:
            if self._yield_for is None:
                return
            self._left, self.serving = self.serving, None
            self.changed.notify_all()

    def _take(self) -> None:
        """Offer the slot until a job comes or something changes; then run the job."""
        with self.changed:
            serving = self.serving
            if serving is None:
                return
            self._note_gap()
        self.parts.claimer.post(serving.offer(self.parts.name), self._deliver)
        with self.changed:
            while self._delivered is None and self._step() is _Step.TAKE:
                self.changed.wait(self.parts.timing.beat_s)
        self.parts.claimer.withdraw(self.parts.name)
        with self.changed:
            held, self._delivered = self._delivered, None
            self._idle_since = time.monotonic()
            if held is None:
                return
            self._held = held
        try:
            self._work(held, serving)
        finally:
            with self.changed:
                self._held = None
                self._idle_since = time.monotonic()

    def _deliver(self, held: Held) -> None:
        with self.changed:
            self._delivered = held
            self.changed.notify_all()

    def _note_gap(self) -> None:
        """Write down for how long a switch kept the slot from taking jobs."""
        if self._switched and self.serving is not None:
            gap_s = time.monotonic() - self._idle_since
            self.serving = replace(self.serving, phases={**self.serving.phases, "gap_s": gap_s})
            self._switched = False

    def _work(self, held: Held, serving: Serving) -> None:
        """Run one attempt, then the job's further stages as they are handed out."""
        parts = self.parts
        outputs = serving.prepared.version.spec.outputs
        types = {name: str(output["contentType"]) for name, output in outputs.items() if "contentType" in output}
        following: Held | None = held
        while following is not None:
            held = following
            with self.changed:
                self._held = held
            if not parts.session.renew_if_late(held):
                parts.session.drop(held)
                return
            try:
                ended = parts.attempts.run(held, serving.child, slot=parts.name, content_types=types)
            except Exception:
                parts.session.hand_back(held, Cause.LOAD_FAILED)
                raise
            self._judge(held, ended, serving)
            following = self._settle(held, ended, serving)

    def _judge(self, held: Held, ended: Ended, serving: Serving) -> None:
        claim, parts = held.claim, self.parts
        now = time.monotonic()
        with self.changed:
            before = self._breaker
            self._breaker = before.after(claim.job_id, ended.cause, last_stage=claim.last_stage, now=now)
            self._idle_deaths = 0
            tripped = self._breaker.trips > before.trips
            self._restart_wanted = self._restart_wanted or tripped
            reopened = before.cordoned and not self._breaker.cordoned
        if tripped:
            parts.journal.say(
                "cordoned",
                slot=parts.name,
                reason=self._breaker.reason,
                probe_after_s=round((self._breaker.cordoned_until or now) - now, 3),
            )
        elif reopened:
            parts.journal.say("reopened", slot=parts.name, state=slot_state(self._breaker, self.refusal).value)
        if ended.cause is not Cause.SUCCEEDED:
            error = ended.outcome.error if ended.outcome else None
            parts.journal.say(
                "attempt-ended",
                slot=parts.name,
                job=claim.job_id,
                version=serving.prepared.version.version,
                stage=claim.stage,
                attempt=claim.attempt,
                cause=ended.cause.value,
                reason=error.message if error else None,
            )
        if tripped or reopened:
            parts.session.tell_soon()

    def _settle(self, held: Held, ended: Ended, serving: Serving) -> Held | None:
        """Tell the queue, and return the job's next stage where this slot is to run it."""
        session = self.parts.session
        if held.ended is End.LOST:
            session.drop(held)
            return None
        if ended.outcome is None:
            session.hand_back(held, ended.cause)
            return None
        with self.changed:
            goes_on = not self.stopping and not self._restart_wanted and not self._is_left()
        then = None
        if not held.claim.last_stage and goes_on and serving.child.alive:
            then = serving.offer(self.parts.name)
        asked_at = boottime()
        reply = session.finish(held, ended.outcome, then)
        if reply is None:
            return None
        if reply.status.ended:
            self.parts.attempts.forget_job(held.claim.job_id)
        return session.hold(reply.next, asked_at) if reply.next is not None else None

    def _restart(self) -> None:
        """Start the child again that crashed, hung or is suspected."""
        with self.changed:
            serving = self.serving
            if serving is None:
                return
            self._restart_wanted = False
            if not serving.child.alive:
                self._idle_deaths += 1
            hopeless = self._idle_deaths > IDLE_DEATHS
        parts = self.parts
        parts.journal.say("child-restarts", slot=parts.name, version=serving.prepared.version, pid=serving.child.pid)
        serving.child.stop(0)
        try:
            if hopeless:
                raise EntrypointFailed(
                    f"{serving.prepared.version} ends by itself, {IDLE_DEATHS} times in a row without a job"
                )
            new = start(self, serving.prepared, serving.target)
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot must say so and live on
            self._lose(serving, error)
            return
        with self.changed:
            self.serving = new
            self.changed.notify_all()
        parts.session.tell_soon()

    def _lose(self, serving: Serving, error: Exception) -> None:
        """The version that served does not come up any more."""
        with self.changed:
            self.serving = None
            self._idle_deaths = 0
            # What was refused while something served is tried again now that nothing does.
            self.refusal = None
            stopping = self.stopping
            self.changed.notify_all()
        if not stopping:
            self.refuse(serving.target, error)

    def _stop_serving(self) -> None:
        with self.changed:
            children = [serving.child for serving in (self.serving, self._ready) if serving]
            self.serving = self._ready = None
            self.changed.notify_all()
        for child in children:
            child.stop(min(1.0, self.parts.timing.stop_grace_s))
