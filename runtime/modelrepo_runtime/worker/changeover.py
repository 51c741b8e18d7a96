"""Change the child of a slot: beside the old one, after it, or in place; the old comes back where that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from modelrepo.errors import DeviceHeld, EntrypointFailed
from modelrepo_runtime.worker.alone import WAITS_FOR, wait_until_over
from modelrepo_runtime.worker.child_start import start
from modelrepo_runtime.worker.device_memory import due_after, free_bytes, wait_returned, withhold
from modelrepo_runtime.worker.footprint import Footprint, expected, unpooled
from modelrepo_runtime.worker.preparing import Prepared, child_spec
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot import Slot, Superseded
from modelrepo_runtime.worker.target import Target


class Changeover:
    """The ways in which a slot comes to serve what is prepared. Each raises Superseded once that is not wanted."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._parts = slot, slot.parts

    def _overlap(self, prepared: Prepared) -> None:
        """The old serves until the new is warm."""
        slot, target = self._slot, prepared.target
        self._await_alone(target, partial(slot.superseded, target))
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
            self._retire(old, new)

    def _retire(self, old: Serving, new: Serving) -> None:
        """End the old child. Until its memory is seen to be back no other is started, and then the slot says so."""
        slot, parts = self._slot, self._parts
        slot.show(new.target, f"waiting for the memory of {old.prepared.version}")
        grown = (parts.learnt.of(new.prepared.version.digest) or Footprint()).device_bytes or 0
        growth = max(0, (self._expected(new.prepared, old).device_bytes or 0) - grown)
        due = due_after(slot, old, free_bytes(slot), growth_bytes=growth)
        old.child.stop(parts.timing.stop_grace_s)
        try:
            wait_returned(slot, due)
        except DeviceHeld as error:
            withhold(slot, due, error)

    def _take_child(self, prepared: Prepared) -> Serving | None:
        """Have the serving child once its job is done, while the slot has its turn; None where there is none any more.

        Raises: Superseded, with the child serving on.
        """
        slot, parts, target = self._slot, self._parts, prepared.target
        self._edge(target)
        if not parts.session.has_turn(target.model, parts.name):
            raise Superseded
        slot.show(target, "waiting for the job that runs")
        old = slot.yield_child(target)
        # The job may have run for long: look again, just before what cannot be taken back.
        if old is not None and (slot.superseded(target) or not parts.session.has_turn(target.model, parts.name)):
            slot.take_back(old)
            raise Superseded
        slot.show(target, "starting")
        return old

    def _drain(self, prepared: Prepared) -> None:
        """The old finishes its job and goes, then the new comes; if it does not, the old comes back."""
        slot, parts = self._slot, self._parts
        old = self._take_child(prepared)
        if old is None:
            self._start_or_bring_back(prepared, slot.last_good)
            return
        due = due_after(slot, old, free_bytes(slot))
        old.child.stop(parts.timing.stop_grace_s)
        try:
            wait_returned(slot, due)
        except DeviceHeld as error:
            parts.journal.say("memory-not-returned", slot=parts.name, reason=error)
            self._bring_back_after(error, old)
            raise
        self._start_or_bring_back(prepared, old)

    def _reload(self, prepared: Prepared) -> None:
        """The old child takes the new version up between two jobs; where it cannot, it serves on or is started anew."""
        slot, parts, target = self._slot, self._parts, prepared.target
        old = self._take_child(prepared)
        if old is None:
            self._start_or_bring_back(prepared, slot.last_good)
            return
        slot.show(target, "reloading")
        spec = child_spec(prepared, parts.layout, parts.folder / "children", parts.slot_descriptors)
        slot.starting(old.child, target)
        try:
            seconds = old.child.reload(spec, parts.load_timeout_s)
        except Exception as error:
            slot.started(old.child)
            if old.child.alive:
                parts.journal.say("reload-taken-back", slot=parts.name, version=old.prepared.version, error=error)
                slot.take_back(old)
            elif not slot.superseded(target):
                self._bring_back_after(error, old)
            raise
        slot.started(old.child)
        phases = {"reload_s": seconds, "ready_at": time.time()}
        slot.install(Serving(prepared, old.child, target, phases))
        parts.journal.say(
            "child-reloaded", slot=parts.name, version=prepared.version, pid=old.child.pid, seconds=seconds
        )

    def _start_or_bring_back(self, prepared: Prepared, old: Serving | None) -> None:
        slot, target = self._slot, prepared.target
        try:
            slot.install(start(slot, prepared, target))
        except Exception as error:
            if slot.stopping or old is None or old.prepared.chosen.runs_as == prepared.chosen.runs_as:
                raise
            self._bring_back_after(error, old)
            raise

    def _bring_back_after(self, error: Exception, old: Serving) -> None:
        """Start the old version again. Raises: EntrypointFailed with both reasons, where it does not come back."""
        self._parts.journal.say("old-comes-back", slot=self._parts.name, version=old.prepared.version)
        try:
            self._slot.install(start(self._slot, old.prepared, old.target))
        except Exception as second:  # noqa: BLE001 - told together with the first
            raise EntrypointFailed(f"{error}; and {old.prepared.version} did not come back: {second}") from error

    def _await_alone(self, target: Target, stop: Callable[[], bool]) -> None:
        """Load nothing beside a try that is to have the slot for itself. Raises: Superseded."""
        while self._slot.alone:
            self._slot.show(target, WAITS_FOR)
            wait_until_over(self._slot, stop, self._parts.timing.beat_s)
            self._edge_of(target, stop)

    def _edge(self, target: Target) -> None:
        """Between two phases: read the target again, and drop a swap that nobody wants any more."""
        self._edge_of(target, partial(self._slot.superseded, target))

    def _edge_of(self, target: Target, stop: Callable[[], bool]) -> None:
        self._parts.look_again(target.model)
        if stop():
            raise Superseded

    def _expected(self, prepared: Prepared, old: Serving | None) -> Footprint:
        learnt = self._parts.learnt
        neighbour = learnt.of(old.prepared.version.digest) if old else None
        pooled_bytes = sum(size_bytes for _, size_bytes, _ in prepared.pooled.entries().values())
        promised = unpooled(prepared.chosen.needs, pooled_bytes)
        return expected(promised, learnt.of(prepared.version.digest), neighbour)
