"""Bring another version into a slot: fetch, build, plan, start, switch; keep or bring back the old where it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from modelrepo.errors import Corrupt, DeviceHeld, EntrypointFailed, Stopped, Unsuitable
from modelrepo_runtime.queue.swaps import Swap
from modelrepo_runtime.worker.child_start import start
from modelrepo_runtime.worker.device_memory import due_after, free_bytes, look_again, wait_returned, withhold
from modelrepo_runtime.worker.footprint import Footprint, expected
from modelrepo_runtime.worker.inplace import hindrances
from modelrepo_runtime.worker.preparing import Chosen, Prepared, checkpoints_of, child_spec, choose, interpreter
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot import Slot, Superseded
from modelrepo_runtime.worker.swap_plan import SwapFacts, SwapPlan, plan
from modelrepo_runtime.worker.target import Target
from modelrepo_runtime.worker.turn_taking import TurnTaker


class Swapper:
    """The thread that makes a slot serve its target."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._parts = slot, slot.parts
        self._turns = TurnTaker(slot)
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
                while not slot.stopping and not self._is_due() and slot.withheld is None:
                    slot.changed.wait(self._patience())
                if slot.withheld is not None and not slot.stopping and not self._is_due():
                    slot.changed.wait(self._parts.timing.beat_s)
                if slot.stopping:
                    return
                target = slot.target if self._is_due() else None
            look_again(slot)
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
        swap = _swap_to(target, target.digest) if target.digest is not None else None
        try:
            version = parts.source.resolve(target.model, target.version)
            if target.digest is not None and target.digest.removeprefix("sha256:") != version.digest:
                raise Corrupt(
                    f"cannot serve {target}: active.yaml means sha256:{target.digest[-64:]}, "
                    f"the repository holds sha256:{version.digest}",
                    digest=version.digest,
                )
            swap = _swap_to(target, version.digest)
            chosen = choose(version, target, parts.box)
            if slot.adopt(chosen):
                return
            old, before = slot.serving, slot.refusal
            check = partial(self._check_halt, swap, old)
            check()
            prepared = self._prepare(chosen, partial(slot.superseded, target), check)
            self._edge(target)
            with self._turn(target, check, needed=old is not None):
                check()
                self._bring_up(prepared)
            slot.accept()
            if before is not None and before.target == target.key:
                parts.session.accept_swap(swap, parts.name)
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
                slot.refuse(target, error, swap)
        finally:
            slot.show_plan(None)
            slot.show(None)

    def _check_halt(self, swap: Swap, old: Serving | None) -> None:
        """A slot that serves nothing takes nothing away by trying what others have refused. Raises: SwapHalted."""
        if old is not None:
            self._turns.check_halt(swap)

    def _prepare(self, chosen: Chosen, stop: Callable[[], bool], check: Callable[[], None]) -> Prepared:
        """Bring a version and its environment to this box, in this box's turn where it lacks any of it."""
        source, target, needed = self._parts.source, chosen.target, checkpoints_of(chosen)
        is_here = source.is_here(chosen.version, needed, chosen.extra)
        with nullcontext() if is_here else self._turns.to_fetch(target, stop, check):
            self._show_phase(target, "fetching")
            local = source.fetch(chosen.version, needed, stop)
            self._edge_of(target, stop)
            self._show_phase(target, "building")
            environment = source.build(chosen.version, chosen.extra, self._parts.box.accelerator, stop)
            self._edge_of(target, stop)
        return Prepared(chosen, local, interpreter(environment))

    def _show_phase(self, target: Target, phase: str) -> None:
        self._slot.show(target, phase)

    def _edge(self, target: Target) -> None:
        """Between two phases: read the target again, and drop a swap that nobody wants any more."""
        self._edge_of(target, partial(self._slot.superseded, target))

    def _edge_of(self, target: Target, stop: Callable[[], bool]) -> None:
        self._parts.look_again(target.model)
        if stop():
            raise Superseded

    def _bring_up(self, prepared: Prepared) -> None:
        slot, target = self._slot, prepared.target
        slot.show(target, "starting")
        old = slot.serving
        decided = self._plan(prepared.chosen, old, self._inplace(prepared, old))
        if decided.mode == "refuse":
            raise Unsuitable(f"cannot serve {prepared.version} in slot {self._parts.name}: {decided}")
        if old is None:
            self._start_or_bring_back(prepared, slot.last_good)
            return
        slot.show_plan(decided)
        match decided.mode:
            case "overlap":
                self._overlap(prepared)
            case "inplace":
                self._reload(prepared)
            case _:
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
            self._retire(old, new)

    def _retire(self, old: Serving, new: Serving) -> None:
        """End the old child. Until its memory is seen to be back no other is started, and then the slot says so."""
        slot, parts = self._slot, self._parts
        slot.show(new.target, f"waiting for the memory of {old.prepared.version}")
        grown = (parts.learnt.of(new.prepared.version.digest) or Footprint()).device_bytes or 0
        growth = max(0, (self._expected(new.prepared.chosen, old).device_bytes or 0) - grown)
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

    def _plan(self, chosen: Chosen, old: Serving | None, inplace: tuple[str, ...]) -> SwapPlan:
        parts = self._parts
        neighbour = parts.learnt.of(old.prepared.version.digest) if old else None
        devices = frozenset(device.label for device in parts.layout.devices)
        host, device = parts.reservations.less(parts.host_room(), parts.device_room(), devices)
        incoming = self._expected(chosen, old)
        return plan(SwapFacts(self._wish(chosen), incoming, neighbour or Footprint(), host, device, inplace))

    def _expected(self, chosen: Chosen, old: Serving | None) -> Footprint:
        learnt = self._parts.learnt
        return expected(
            chosen.needs, learnt.of(chosen.version.digest), learnt.of(old.prepared.version.digest) if old else None
        )

    def _inplace(self, prepared: Prepared, old: Serving | None) -> tuple[str, ...]:
        """Say why the child that serves cannot take a version up in place; empty: it can."""
        if old is None or not old.child.alive:
            return ("nothing serves",)
        return hindrances(old.prepared, prepared, reloads=old.child.reloads)

    def _wish(self, chosen: Chosen) -> str:
        return chosen.version.spec.swap

    def _turn(self, target: Target, check: Callable[[], None], *, needed: bool) -> AbstractContextManager[None]:
        """Hold one of the model's turns; a slot that serves nothing takes nothing away and needs none."""
        return self._turns.to_swap(target, check) if needed else nullcontext()


def _swap_to(target: Target, digest: str) -> Swap:
    return Swap(target.model, target.version, digest.removeprefix("sha256:"), target.generation)
