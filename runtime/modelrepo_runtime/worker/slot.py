"""One slot: what it serves, what comes, and what its two threads and the rest of the worker ask of each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.preparing import Chosen
from modelrepo_runtime.worker.refusal import Refusal, refuse
from modelrepo_runtime.worker.serving import Serving, SlotChild, SlotParts
from modelrepo_runtime.worker.slot_report import Coming, Identity, Moment, SlotFacts, Standing, report_of
from modelrepo_runtime.worker.slot_states import Withheld
from modelrepo_runtime.worker.swap_plan import SwapPlan
from modelrepo_runtime.worker.swap_record import Result, SwapRecord
from modelrepo_runtime.worker.target import Target


class Superseded(Exception):
    """Something else is wanted meanwhile; a swap is dropped where it stands."""


class Slot:
    """The state of one slot. Its attributes are read and written while `changed` is held.

    The ServingLoop takes jobs, switches children between two of them, and starts a crashed child again; the Swapper
    brings up another version meanwhile.
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
        self.swaps = SwapRecord()
        self.most_free_bytes: int | None = None
        """The most device memory that was ever free: what an empty slot has."""
        self.withheld: Withheld | None = None
        """Memory of its device that nobody has returned: the slot takes no jobs until then."""
        timing = parts.timing
        self.breaker = Breaker(first_backoff_s=timing.cordon_first_s, longest_backoff_s=timing.cordon_longest_s)
        self.loading: dict[SlotChild, Target] = {}
        """Children that load, and what for."""
        self._load_until = 0.0
        """When the child that began to load last is given up, on the monotonic clock."""
        self.ready: Serving | None = None
        """Warm, and to be switched to."""
        self.yield_for: Target | None = None
        """The swap that wants the serving child to be given up."""
        self.left: Serving | None = None
        """Switched from, or given up, and the Swapper's to end."""
        self.held: Held | None = None
        self.with_held: tuple[Held, ...] = ()
        """The rest of a batch."""
        self.restart_wanted = False
        self.idle_deaths = 0
        """How often in a row the child died without a job."""
        self.switched = False
        self.alone = False
        """Whether a try runs beside which nothing is to load."""
        self.wanted: frozenset[str] = frozenset()
        """Versions that the cluster's accelerators want prepared; a slot on the CPU holds a child of each."""
        self.companions: dict[str, Serving] = {}
        """Children of wanted versions beside the one that serves."""
        self.using: Serving | None = None
        """Whose child runs a job."""
        self._turns = 0

    # What the rest of the worker asks of a slot.

    def set_target(self, target: Target) -> None:
        """Say what the slot should serve from now on. A child that loads for what was wanted before is ended."""
        with self.changed:
            self.target, self.refusal = target, None
            ending = self.all_held() if target.end_running and not self.serves(target) else ()
            dropped = [child for child, wanted in self.loading.items() if self._is_dropped(wanted)]
            self.changed.notify_all()
        for held in ending:
            held.end(End.PREEMPTED)
        for child in dropped:
            child.stop(0)

    def want(self, versions: Iterable[str]) -> None:
        """Say which versions the cluster's accelerators serve or load."""
        with self.changed:
            wanted = frozenset(versions)
            if wanted != self.wanted:
                self.wanted = wanted
                self.changed.notify_all()

    def leave(self) -> None:
        """Take no more jobs, finish the one that runs, and end the children."""
        with self.changed:
            self.stopping = True
            starting = tuple(self.loading)
            self.changed.notify_all()
        for child in starting:
            child.stop(0)

    def look_again(self) -> None:
        """Something that the slot goes by has changed: an operator's cordon."""
        with self.changed:
            self.changed.notify_all()
        self.parts.session.tell_soon()

    def restart(self) -> SlotChild | None:
        """Have the child started anew between two jobs; returns the one that serves now, None where none does."""
        with self.changed:
            self.restart_wanted = self.serving is not None
            self.changed.notify_all()
            return self.serving.child if self.serving is not None else None

    def probe_now(self) -> None:
        """A slot that its breaker cordoned may try one job at once."""
        with self.changed:
            self.breaker = self.breaker.swapped(time.monotonic())
            self.changed.notify_all()

    def abandon(self) -> None:
        """End what runs now, to be handed back."""
        with self.changed:
            running, busy = self.all_held(), self.using or self.serving
            child = busy.child if busy else None
        for held in running:
            held.end(End.PREEMPTED)
        if running and child is not None:
            child.stop(0)

    def dump_stacks(self) -> None:
        """Write the stacks of the child's threads to the log of its job."""
        with self.changed:
            others = [serving.child for serving in self.companions.values()]
            children = [serving.child for serving in (self.serving, self.ready) if serving] + others + [*self.loading]
        for child in children:
            child.dump_stacks()

    def report(self) -> SlotReport:
        """Say what the slot is doing, for the next beat."""
        parts, memory = self.parts, self.parts.figures()
        identity = Identity(parts.name, parts.layout.label, self.model, parts.box.on, parts.box.kind, parts.room)
        with self.changed:
            facts = SlotFacts(
                identity,
                Standing(self.breaker, self.refusal, parts.cordon(), self.withheld, parts.tight()),
                target=self.target,
                serving=self.serving,
                coming=self._coming(),
                held=self.held,
                batch=len(self.all_held()),
                also=tuple(sorted(self.companions)),
                memory=memory,
            )
            return report_of(facts, Moment(time.monotonic(), time.time()))

    # What the Swapper asks of it.

    def superseded(self, target: Target) -> bool:
        """Tell whether a swap to `target` should be dropped: something else is wanted, or nothing any more."""
        with self.changed:
            return self.stopping or self.target is None or self.target.key != target.key

    def show(self, target: Target | None, phase: str = "") -> None:
        """Show how far the swap is."""
        with self.changed:
            self.incoming = (target, phase) if target is not None else None
            if target is not None:
                self.swaps.enter(target, phase, monotonic=time.monotonic(), wall=time.time())
        self.parts.session.tell_soon()

    def show_plan(self, plan: SwapPlan | None) -> None:
        with self.changed:
            self.plan = plan
            if plan is not None:
                self.swaps.decide(plan)

    def show_fetched(self, target: Target, done_bytes: int, total_bytes: int | None) -> None:
        """Show how far the fetch of a swap is; the next beat tells it."""
        with self.changed:
            self.swaps.fetched(target, done_bytes, total_bytes)

    def end_swap(self, result: Result, old: Serving | None, why: str | None = None) -> None:
        """Keep what became of the swap under way; `old` served before it."""
        before = old.prepared.version.version if old is not None else None
        with self.changed:
            self.swaps.end(result, before, why, monotonic=time.monotonic(), wall=time.time())

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
            EntrypointFailed: the new child ended before the switch.
            Superseded: something else was wanted before it.
        """
        with self.changed:
            self.ready = new
            self.changed.notify_all()
        self._end_restart()
        with self.changed:
            self.changed.wait_for(lambda: self.ready is not new or self.superseded(new.target))
            if self.last_good is new:
                old, self.left = self.left, None
                return old
            self.ready = None
            if self.superseded(new.target):
                raise Superseded
            raise EntrypointFailed(f"{new.prepared.version} was warm, and ended by itself before its first job")

    def yield_child(self, target: Target) -> Serving | None:
        """Have the serving child once its job is done, and the slot without any; None where it has none any more.

        Raises:
            Superseded: something else was wanted before.
        """
        with self.changed:
            self.yield_for = target
            self.changed.notify_all()
        self._end_restart()
        with self.changed:
            self.changed.wait_for(lambda: self.serving is None or self.superseded(target))
            self.yield_for = None
            old, self.left = self.left, None
            if self.serving is not None:
                raise Superseded
            return old

    def install(self, new: Serving) -> None:
        """Serve with this child, in a slot that has none."""
        with self.changed:
            too_late = self.stopping
            if not too_late:
                self.put(new)
            self.changed.notify_all()
        if too_late:
            new.child.stop(0)
        self.parts.session.tell_soon()

    def take_back(self, old: Serving) -> None:
        """Serve on with the child that was given up: nothing came of the swap."""
        with self.changed:
            too_late = self.stopping
            if not too_late:
                self.serving = self.last_good = old
                self.left = None
            self.changed.notify_all()
        if too_late:
            old.child.stop(0)
        self.parts.session.tell_soon()

    def refuse(self, target: Target, error: BaseException) -> None:
        """Say why a target does not run here. What serves goes on."""
        with self.changed:
            refusal = refuse(target, error, now=time.monotonic(), before=self.refusal, timing=self.parts.timing)
            if self.target == target:  # a later change, be it of the same version, asks for another try at once
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

    def starting(self, child: SlotChild, target: Target) -> None:
        """Remember a child that loads, so that it can be ended when nobody wants it any more."""
        with self.changed:
            self.loading[child] = target
            self._load_until = time.monotonic() + self.parts.load_timeout_s
            unwanted = self.gives_way() or self._is_dropped(target)
        if unwanted:
            child.stop(0)

    def started(self, child: SlotChild) -> None:
        with self.changed:
            del self.loading[child]

    # What both threads ask, `changed` being held.

    def offering(self) -> tuple[Serving, ...]:
        """Return whose jobs the slot takes now, each in its turn first; after `rollback --now` only the target's."""
        others = () if self.target and self.target.end_running else tuple(self.companions.values())
        alive = [one for one in (self.serving, *others) if one is not None and one.child.alive]
        self._turns += 1
        first = self._turns % len(alive) if alive else 0
        return tuple(alive[first:] + alive[:first])

    def all_held(self) -> tuple[Held, ...]:
        """Return all attempts that run here."""
        return () if self.held is None else (self.held, *self.with_held)

    def serves(self, target: Target) -> bool:
        return self.serving is not None and self.serving.target.key == target.key

    def is_left(self) -> bool:
        """After `rollback --now` the version that is left takes no more jobs, unless the other does not come up."""
        target = self.target
        return target is not None and target.end_running and self.refusal is None and not self.serves(target)

    def gives_way(self) -> bool:
        """Tell whether the child that serves is about to go: starting it again would keep the next one waiting."""
        return self.stopping or self.ready is not None or self.yield_for is not None

    def put(self, new: Serving) -> None:
        """Serve with another child from now on."""
        self.serving = self.last_good = new
        self.restart_wanted, self.idle_deaths = False, 0
        self.breaker = self.breaker.swapped(time.monotonic())
        self.switched = True

    def _coming(self) -> Coming:
        """Return what is brought up; `changed` is held."""
        comes = self.incoming[0] if self.incoming else None
        starting = next((child.state for child, wanted in self.loading.items() if wanted == comes), None)
        until = self._load_until if starting is not None else None
        return Coming(self.incoming, starting, until, self.plan, self.swaps)

    def _end_restart(self) -> None:
        """End what still loads here while the Swapper's own child does not: the old child, started again."""
        with self.changed:
            restarting = tuple(self.loading)
        for child in restarting:
            child.stop(0)

    def _is_dropped(self, wanted: Target) -> bool:
        """Tell whether what is loaded is the swap's under way, and something else is wanted by now."""
        swap = self.incoming[0] if self.incoming else None
        return swap is not None and self.target is not None and wanted.key == swap.key != self.target.key
