"""Bring another version into a slot: fetch, build, plan, start, switch; keep or bring back the old where it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from modelrepo.errors import Corrupt, EntrypointFailed, Stopped, Unreachable, Unsuitable
from modelrepo_runtime.worker.child_start import free_bytes, start, wait_returned
from modelrepo_runtime.worker.footprint import Footprint, expected
from modelrepo_runtime.worker.preparing import Chosen, Prepared, checkpoints_of, choose, interpreter
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot import Slot, Superseded
from modelrepo_runtime.worker.swap_plan import SwapFacts, SwapPlan, plan
from modelrepo_runtime.worker.target import Target


class Swapper:
    """The thread that makes a slot serve its target."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._parts = slot, slot.parts
        self._thread = threading.Thread(target=self._run, name=f"swap {slot.parts.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        slot = self._slot
        while True:
            with slot.changed:
                while not slot.stopping and not self._is_due():
                    slot.changed.wait(self._patience())
                if slot.stopping:
                    return
                target = slot.target
            if target is not None:
                self._swap(target)

    def _is_due(self) -> bool:
        slot = self._slot
        if slot.target is None:
            return False
        current = slot.serving
        if current is not None and current.target == slot.target:
            return False
        refusal = slot.refusal
        return refusal is None or refusal.target != slot.target.key or time.monotonic() >= refusal.retry_at

    def _patience(self) -> float | None:
        refusal = self._slot.refusal
        return None if refusal is None else max(0.01, refusal.retry_at - time.monotonic())

    def _swap(self, target: Target) -> None:
        slot, parts, began = self._slot, self._parts, time.monotonic()
        try:
            version = parts.source.resolve(target.model, target.version)
            if target.digest is not None and target.digest.removeprefix("sha256:") != version.digest:
                raise Corrupt(
                    f"cannot serve {target}: active.yaml means sha256:{target.digest[-64:]}, "
                    f"the repository holds sha256:{version.digest}",
                    digest=version.digest,
                )
            chosen = choose(version, target, parts.box)
            if slot.adopt(chosen):
                return
            old = slot.serving
            with self._turn(target, needed=old is not None):
                prepared = self._prepare(chosen)
                self._bring_up(prepared)
            slot.accept()
            parts.journal.say(
                "swapped" if old else "serving",
                slot=parts.name,
                version=version,
                generation=target.generation,
                old=old.prepared.version.version if old else None,
                mode=slot.plan.mode if slot.plan and old else None,
                seconds=time.monotonic() - began,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot must say so and live on
            if isinstance(error, Superseded | Stopped) or slot.superseded(target):
                parts.journal.say("swap-dropped", slot=parts.name, target=target, generation=target.generation)
            else:
                slot.refuse(target, error)
        finally:
            slot.show_plan(None)
            slot.show(None)

    def _prepare(self, chosen: Chosen) -> Prepared:
        slot, source, target = self._slot, self._parts.source, chosen.target

        def stop() -> bool:
            return slot.superseded(target)

        slot.show(target, "fetching")
        local = source.fetch(chosen.version, checkpoints_of(chosen), stop)
        self._edge(target)
        slot.show(target, "building")
        environment = source.build(chosen.version, chosen.extra, self._parts.box.accelerator, stop)
        self._edge(target)
        return Prepared(chosen, local, interpreter(environment))

    def _edge(self, target: Target) -> None:
        """Between two phases: read the target again, and drop a swap that nobody wants any more."""
        self._parts.look_again(target.model)
        if self._slot.superseded(target):
            raise Superseded

    def _bring_up(self, prepared: Prepared) -> None:
        slot, target = self._slot, prepared.target
        slot.show(target, "starting")
        old = slot.serving
        decided = self._plan(prepared.chosen, old)
        if decided.mode == "refuse":
            raise Unsuitable(f"cannot serve {prepared.version} in slot {self._parts.name}: {decided}")
        if old is None:
            self._start_or_bring_back(prepared, slot.last_good)
            return
        slot.show_plan(decided)
        if decided.mode == "overlap":
            self._overlap(prepared)
        else:
            self._drain(prepared)

    def _overlap(self, prepared: Prepared) -> None:
        """The old serves until the new is warm."""
        slot, target = self._slot, prepared.target
        new = start(slot, prepared, target)
        try:
            self._edge(target)
            slot.show(target, "ready")
            old = slot.hand_over(new)
        except BaseException:
            new.child.stop(0)
            raise
        self._parts.session.tell_soon()
        if old is not None:
            self._retire(old)

    def _retire(self, old: Serving) -> None:
        old.child.stop(self._parts.timing.stop_grace_s)

    def _drain(self, prepared: Prepared) -> None:
        """The old finishes its job and goes, then the new comes; if it does not, the old comes back."""
        slot, parts, target = self._slot, self._parts, prepared.target
        self._edge(target)
        if not parts.session.has_turn(target.model, parts.name):
            raise Superseded
        slot.show(target, "waiting for the job that runs")
        old = slot.yield_child(target)
        slot.show(target, "starting")
        if old is None:
            self._start_or_bring_back(prepared, slot.last_good)
            return
        before, held = free_bytes(slot), parts.learnt.of(old.prepared.version.digest)
        old.child.stop(parts.timing.stop_grace_s)
        try:
            if before is not None and held is not None:
                wait_returned(slot, before, held.device_bytes)
        except EntrypointFailed:
            self._bring_back(old)
            raise
        self._start_or_bring_back(prepared, old)

    def _start_or_bring_back(self, prepared: Prepared, old: Serving | None) -> None:
        slot, target = self._slot, prepared.target
        try:
            slot.install(start(slot, prepared, target))
        except Exception as error:
            if slot.stopping or old is None or old.prepared.chosen.runs_as == prepared.chosen.runs_as:
                raise
            try:
                self._bring_back(old)
            except Exception as second:  # noqa: BLE001 - told together with the first
                raise EntrypointFailed(f"{error}; and {old.prepared.version} did not come back: {second}") from error
            raise

    def _bring_back(self, old: Serving) -> None:
        self._parts.journal.say("old-comes-back", slot=self._parts.name, version=old.prepared.version)
        self._slot.install(start(self._slot, old.prepared, old.target))

    def _plan(self, chosen: Chosen, old: Serving | None) -> SwapPlan:
        parts = self._parts
        neighbour = parts.learnt.of(old.prepared.version.digest) if old else None
        incoming = expected(chosen.needs, parts.learnt.of(chosen.version.digest), neighbour)
        devices = frozenset(device.label for device in parts.layout.devices)
        host, device = parts.reservations.less(parts.host_room(), parts.device_room(), devices)
        return plan(SwapFacts(self._wish(chosen), incoming, neighbour or Footprint(), host, device))

    def _wish(self, chosen: Chosen) -> str:
        return chosen.version.spec.swap

    @contextmanager
    def _turn(self, target: Target, *, needed: bool) -> Iterator[None]:
        """Hold one of the model's turns; a slot that serves nothing takes nothing away and needs none."""
        slot, parts = self._slot, self._parts
        if not needed:
            yield
            return
        rest_s = parts.timing.queue_poll_s
        while not self._takes_turn(target):
            slot.show(target, f"waiting for its turn ({target.max_unavailable} of the slots swap at once)")
            with slot.changed:
                slot.changed.wait_for(lambda: slot.superseded(target), rest_s)
            if slot.superseded(target):
                raise Superseded
            rest_s = min(2 * rest_s, parts.timing.beat_s)  # thousands may wait, and turns last for minutes
        try:
            yield
        finally:
            parts.session.end_turn(target.model, parts.name)

    def _takes_turn(self, target: Target) -> bool:
        parts = self._parts
        try:
            total = parts.slots_total(target.model)
        except Unreachable as error:
            parts.journal.say_once("queue", "queue-unreachable", error=error)
            return False
        return parts.session.take_turn(target.model, parts.name, total, target.max_unavailable)
