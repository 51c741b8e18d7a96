"""The thread of a slot that takes jobs, switches children between two of them, and starts a crashed one again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial

from modelrepo.contract import StageSpec
from modelrepo.errors import EntrypointFailed, InvalidInput
from modelrepo_runtime.jobs import Cause, JobError
from modelrepo_runtime.worker.alone import alone_in, ran_out_before
from modelrepo_runtime.worker.child_start import start
from modelrepo_runtime.worker.device_memory import due_after, free_bytes, learn, wait_returned
from modelrepo_runtime.worker.ends import Ended
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.serving import Serving, SlotChild
from modelrepo_runtime.worker.slot import Slot
from modelrepo_runtime.worker.staging import Stager
from modelrepo_runtime.worker.suspend import boottime

# A child that dies while it has nothing to do, this often in a row, will not get better by starting it again.
IDLE_DEATHS = 3
# Measuring looks at every process of the box; what a version takes changes slowly.
LEARN_EVERY_S = 10.0
_MAYBE_THE_DEVICE = (Cause.CRASH, Cause.HANG, Cause.EXCEPTION, Cause.OUT_OF_MEMORY)
"""Ends that a broken device may have brought about."""


class _Step(Enum):
    LEAVE = auto()
    SWITCH = auto()
    YIELD = auto()
    RESTART = auto()
    TAKE = auto()
    WAIT = auto()


class ServingLoop:
    """A crashed child is started again here and not by the Swapper, whose fetch of the next version may take hours."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._parts = slot, slot.parts
        self._delivered: tuple[Held, ...] = ()
        self._idle_since = time.monotonic()
        self._learns_at = 0.0
        self._stager = Stager(slot.parts)
        self._thread = threading.Thread(target=self._run, name=f"slot {slot.parts.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has left; False where it has not within `timeout_s`."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._slot.changed:
                step = self._step()
                if step is _Step.WAIT:
                    self._slot.changed.wait(self._patience())
            if step is _Step.LEAVE:
                self._stop_serving()
                return
            try:
                self._do(step)
            except Exception as error:  # noqa: BLE001 - a slot without its thread would be silent for ever
                self._parts.journal.confess(f"slot {self._parts.name}", error)
                with self._slot.changed:
                    self._slot.changed.wait(self._parts.timing.beat_s)

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
        if self._slot.stopping:
            return _Step.LEAVE
        if self._slot.ready is not None:
            return _Step.SWITCH
        if self._slot.serving is None:
            return _Step.TAKE if self._slot.companions and self._may_take() else _Step.WAIT
        if self._slot.yield_for is not None:
            return _Step.YIELD
        if self._slot.restart_wanted or not self._slot.serving.child.alive:
            return _Step.WAIT if self._parts.device_broken() or self._parts.tight() else _Step.RESTART
        return _Step.TAKE if self._may_take() else _Step.WAIT

    def _may_take(self) -> bool:
        may = self._slot.breaker.may_claim(time.monotonic()) and not self._slot.is_left()
        return may and self._slot.withheld is None and self._parts.cordon() is None and self._parts.tight() is None

    def _patience(self) -> float:
        """How long to wait for a change: until the cordon's end, and never past a beat, to notice a dead child."""
        until = self._slot.breaker.cordoned_until
        rest = self._parts.timing.beat_s if until is None else until - time.monotonic()
        return max(0.001, min(rest, self._parts.timing.beat_s))

    def _switch(self) -> None:
        with self._slot.changed:
            new, self._slot.ready = self._slot.ready, None
            if new is not None and new.child.alive:
                self._slot.left = self._slot.serving
                self._slot.put(new)
            self._slot.changed.notify_all()

    def _yield(self) -> None:
        with self._slot.changed:
            if self._slot.yield_for is None:
                return
            self._slot.left, self._slot.serving = self._slot.serving, None
            self._slot.changed.notify_all()

    def _take(self) -> None:
        """Offer the slot until a job comes or something changes; then run the job."""
        with self._slot.changed:
            offering = self._slot.offering()
            if not offering:
                return
            self._note_gap()
        kind, room = self._parts.box.kind, self._parts.room
        offers = tuple(offer for one in offering for offer in one.offers(self._parts.name, kind, room))
        self._parts.claimer.post(offers, self._deliver)
        with self._slot.changed:
            companions = frozenset(self._slot.companions)
            while not self._delivered and self._step() is _Step.TAKE and companions == frozenset(self._slot.companions):
                self._slot.changed.wait(self._parts.timing.beat_s)
        self._parts.claimer.withdraw(self._parts.name)
        with self._slot.changed:
            taken, self._delivered = self._delivered, ()
            self._idle_since = time.monotonic()
            if not taken:
                return
            held = taken[0]
            serving = next(one for one in offering if one.prepared.version.version == held.claim.version)
            self._slot.held, self._slot.using = held, serving
        try:
            if self._parts.tight() is None:
                self._work_all(list(taken), serving)
            else:  # it became so while they were on their way
                for each in taken:
                    self._parts.session.hand_back(each, Cause.PREEMPTED)
        except Exception:
            # A fault of ours: the jobs go back, rather than stay ours for as long as we beat.
            for each in {*taken, *self._slot.all_held()}:
                self._parts.session.hand_back(each, Cause.LOAD_FAILED)
            raise
        finally:
            self._stager.give_up()
            with self._slot.changed:
                self._slot.held = self._slot.using = None
                self._slot.with_held = ()
                self._idle_since = time.monotonic()
                self._slot.changed.notify_all()

    def _deliver(self, taken: Sequence[Held]) -> None:
        with self._slot.changed:
            self._delivered = tuple(taken)
            self._slot.changed.notify_all()

    def _note_gap(self) -> None:
        """Write down for how long a switch kept the slot from taking jobs."""
        if self._slot.switched and self._slot.serving is not None:
            gap_s = time.monotonic() - self._idle_since
            self._slot.serving = replace(self._slot.serving, phases={**self._slot.serving.phases, "gap_s": gap_s})
            self._slot.switched = False

    def _work_all(self, taken: list[Held], serving: Serving) -> None:
        """Run first tries together where their stage takes batches, and every other try alone."""
        stage = serving.stage(taken[0].claim.stage)
        batch = [held for held in taken if held.claim.attempt == 1] if stage.max_batch > 1 else []
        if batch:
            taken += self._fill(batch, stage, serving)
            batch = [held for held in taken if held.claim.attempt == 1]
        if len(batch) > 1:
            self._work_together(batch, serving)
            taken = [held for held in taken if held.claim.attempt > 1]
        for held in taken:
            self._work(held, serving)

    def _fill(self, batch: Sequence[Held], stage: StageSpec, serving: Serving) -> list[Held]:
        """Claim more jobs of a stage until the batch is full or its longest wait is over."""
        until, more = time.monotonic() + stage.batch_wait_s, list[Held]()
        whole = serving.offer(self._parts.name, self._parts.box.kind, self._parts.room)
        while len(batch) + len(more) < stage.max_batch and (left_s := until - time.monotonic()) > 0:
            if self._parts.tight() is not None:
                break
            wanted = replace(whole, stages=(stage.name,), limit=stage.max_batch - len(batch) - len(more))
            self._parts.claimer.post((wanted,), self._deliver)
            with self._slot.changed:
                self._slot.changed.wait_for(lambda: self._delivered or not self._goes_on(), left_s)
            self._parts.claimer.withdraw(self._parts.name)
            with self._slot.changed:
                more += self._delivered
                self._delivered = ()
                if not self._goes_on():
                    break
        return more

    def _goes_on(self) -> bool:
        slot = self._slot
        wanted = not slot.stopping and not slot.restart_wanted and not slot.is_left()
        return wanted and self._parts.cordon() is None

    def _work_together(self, batch: Sequence[Held], serving: Serving) -> None:
        """Run a batch in one call; each of its jobs ends by itself."""
        parts = self._parts
        with self._slot.changed:
            self._slot.held, self._slot.with_held = batch[0], tuple(batch[1:])
            for held in batch:
                held.began_at = time.time()
            too_late = self._slot.stopping or self._slot.is_left() or parts.cordon() is not None
        ours = [] if too_late else [held for held in batch if parts.session.renew_if_late(held)]
        for held in batch:
            if too_late:
                parts.session.hand_back(held, Cause.PREEMPTED)
            elif held not in ours:
                parts.session.drop(held)
        digest, types = serving.prepared.version.digest, _content_types(serving)
        ends = parts.attempts.run_batch(ours, serving.child, slot=parts.name, digest=digest, content_types=types)
        for held, ended in zip(ours, ends, strict=True):
            ended = self._excuse(held, ended)
            self._judge(held, ended, serving)
            self._settle(held, ended, serving, follows=False)
        with self._slot.changed:
            self._slot.held, self._slot.with_held = None, ()
        self._learn(serving)

    def _work(self, held: Held, serving: Serving) -> None:
        """Run one attempt, then the job's further stages as they are handed out."""
        parts = self._parts
        digest, types = serving.prepared.version.digest, _content_types(serving)
        following: Held | None = held
        while following is not None:
            held = following
            with self._slot.changed:
                self._slot.held, held.began_at = held, time.time()
                too_late = self._slot.stopping or self._slot.is_left() or parts.cordon() is not None
            brought = self._stager.take(held)
            if too_late:  # it was claimed while that was decided, which ended only what was held then
                parts.session.hand_back(held, Cause.PREEMPTED)
                break
            if not parts.session.renew_if_late(held):
                parts.session.drop(held)
                break
            run = partial(parts.attempts.run, slot=parts.name, digest=digest, content_types=types, brought=brought)
            if ran_out_before(parts.session.queue, held.claim):
                ended = self._run_alone(held, serving, run)
            else:
                self._stager.watch(held, serving)
                ended = run(held, serving.child)
            ended = self._excuse(held, ended)
            self._judge(held, ended, serving)
            following = self._settle(held, ended, serving) or self._begin_staged(serving)
        self._learn(serving)

    def _run_alone(self, held: Held, serving: Serving, run: Callable[[Held, SlotChild], Ended]) -> Ended:
        """Run a try with nothing staged or loading beside it, and all memory given back that nobody uses."""
        with alone_in(self._slot) as clear:
            if not clear:
                return Ended(Cause.PREEMPTED)
            self._parts.drop_spare()
            self._parts.journal.say("runs-alone", slot=self._parts.name, job=held.claim.job_id)
            return run(held, serving.child)

    def _begin_staged(self, serving: Serving) -> Held | None:
        """Return the staged job where this slot may begin it now."""
        staged = self._stager.ready()
        with self._slot.changed:
            goes_on = self._goes_on() and not self._slot.gives_way() and serving.child.alive
        if staged is not None and goes_on and self._parts.session.begin(staged):
            return staged
        self._stager.give_up()
        return None

    def _learn(self, serving: Serving) -> None:
        """Now and then between two jobs, while no other child loads: look how large this one has become."""
        now = time.monotonic()
        with self._slot.changed:
            if now < self._learns_at or self._slot.loading or not serving.child.alive:
                return
            self._learns_at = now + LEARN_EVERY_S
        learn(self._slot, serving)

    def _excuse(self, held: Held, ended: Ended) -> Ended:
        """Hand a job back, uncounted, that ended badly while its device broke: nobody is at fault."""
        if ended.cause not in _MAYBE_THE_DEVICE:
            return ended
        self._parts.look_at_devices()
        if not self._parts.device_broken():
            return ended
        self._parts.journal.say("device-blamed", slot=self._parts.name, job=held.claim.job_id, cause=ended.cause.value)
        return Ended(Cause.PREEMPTED)

    def _judge(self, held: Held, ended: Ended, serving: Serving) -> None:
        claim, parts = held.claim, self._parts
        now = time.monotonic()
        with self._slot.changed:
            before = self._slot.breaker
            self._slot.breaker = before.after(claim.job_id, ended.cause, last_stage=claim.last_stage, now=now)
            self._slot.idle_deaths = 0
            tripped = self._slot.breaker.trips > before.trips
            is_companion = self._slot.serving is None or serving.child is not self._slot.serving.child
            self._slot.restart_wanted = self._slot.restart_wanted or (tripped and not is_companion)
            reopened = before.cordoned and not self._slot.breaker.cordoned
        if tripped and is_companion:
            serving.child.stop(0)
        if tripped:
            parts.journal.say(
                "cordoned",
                slot=parts.name,
                reason=self._slot.breaker.reason,
                probe_after_s=round((self._slot.breaker.cordoned_until or now) - now, 3),
            )
        elif reopened:
            parts.journal.say("reopened", slot=parts.name)
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

    def _settle(self, held: Held, ended: Ended, serving: Serving, *, follows: bool = True) -> Held | None:
        """Tell the queue, and return the job's next stage where this slot is to run it."""
        session = self._parts.session
        if held.ended is End.LOST:
            session.drop(held)
            return None
        if ended.outcome is None:
            session.hand_back(held, ended.cause)
            return None
        with self._slot.changed:
            goes_on, gives_way = self._goes_on(), self._slot.gives_way()
        then = None
        if follows and not held.claim.last_stage and goes_on and serving.child.alive:
            then = serving.offer(self._parts.name, self._parts.box.kind, self._parts.room)
        staged = self._stager.ready() if follows else None
        start = staged if goes_on and not gives_way and serving.child.alive else None
        asked_at = boottime()
        try:
            reply = session.finish(held, ended.outcome, then, start)
        except InvalidInput as error:
            # The queue cannot take this result, now or later: that is the model's failure.
            told = JobError("invalid_result", " ".join(str(error).split()))
            reply = session.finish(
                held, replace(ended.outcome, cause=Cause.EXCEPTION, result=None, outputs=(), error=told)
            )
        if reply is None:
            return None
        if reply.status.ended:
            self._parts.attempts.forget_job(held.claim)
        elif ended.cause is Cause.SUCCEEDED:
            self._parts.attempts.forget_states(held.claim)
        if start is not None and reply.started:
            start.requested_at = asked_at
            return start
        return session.hold(reply.next, asked_at) if reply.next is not None else None

    def _restart(self) -> None:
        """Start the child again that crashed, hung or is suspected."""
        slot, parts = self._slot, self._parts
        with slot.changed:
            serving = slot.serving
            if serving is None:
                return
            slot.restart_wanted = False
            died = not serving.child.alive
            slot.idle_deaths += died
            hopeless = slot.idle_deaths > IDLE_DEATHS
        parts.journal.say("child-restarts", slot=parts.name, version=serving.prepared.version, pid=serving.child.pid)
        # Of a child that has died, nobody knows how much the driver has taken back: wait for what it will take again.
        due = due_after(slot, serving, 0 if died else free_bytes(slot))
        serving.child.stop(0)
        if hopeless:
            self._lose()
            text = f"{serving.prepared.version} ends by itself, {IDLE_DEATHS} times in a row without a job"
            slot.refuse(serving.target, EntrypointFailed(text))
            return
        try:
            wait_returned(slot, due)
            new = start(slot, serving.prepared, serving.target)
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot must say so and live on
            if not slot.gives_way():
                parts.journal.say("child-lost", slot=parts.name, version=serving.prepared.version, error=error)
                self._lose()
            return
        with slot.changed:
            slot.serving = new
            slot.changed.notify_all()
        parts.session.tell_soon()

    def _lose(self) -> None:
        """Nothing serves any more, so the Swapper tries the target at once, and all over: the cache may be gone."""
        with self._slot.changed:
            self._slot.serving = self._slot.refusal = None
            self._slot.idle_deaths = 0
            self._slot.changed.notify_all()

    def _stop_serving(self) -> None:
        with self._slot.changed:
            known = (self._slot.serving, self._slot.ready, *self._slot.companions.values())
            children = [serving.child for serving in known if serving]
            self._slot.serving = self._slot.ready = None
            self._slot.companions.clear()
            self._slot.changed.notify_all()
        for child in children:
            child.stop(min(1.0, self._parts.timing.stop_grace_s))


def _content_types(serving: Serving) -> Mapping[str, str]:
    outputs = serving.prepared.version.spec.outputs
    return {name: str(output["contentType"]) for name, output in outputs.items() if "contentType" in output}
