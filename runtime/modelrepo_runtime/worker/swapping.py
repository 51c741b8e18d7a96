"""Bring another version into a slot: fetch, build, plan, start, switch; keep or bring back the old where it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from modelrepo.errors import Corrupt, Stopped, Unsuitable
from modelrepo.versions.version import Version
from modelrepo_runtime.queue.swaps import Swap
from modelrepo_runtime.worker.changeover import Changeover
from modelrepo_runtime.worker.device_memory import look_again
from modelrepo_runtime.worker.footprint import Footprint
from modelrepo_runtime.worker.inplace import hindrances
from modelrepo_runtime.worker.preparing import Chosen, Prepared, checkpoints_of, choose, interpreter
from modelrepo_runtime.worker.refusal import one_line, speaks_against
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot import Slot, Superseded
from modelrepo_runtime.worker.swap_plan import SwapFacts, SwapPlan, plan
from modelrepo_runtime.worker.target import Target
from modelrepo_runtime.worker.turn_taking import TurnTaker


class Swapper(Changeover):
    """The thread that makes a slot serve its target."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
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
        if slot.target is None or self._parts.device_broken():
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
        old: Serving | None = None
        try:
            version = self._resolve(target)
            swap = Swap(target.model, target.version, version.digest, target.generation)
            chosen = choose(version, target, parts.box)
            if slot.adopt(chosen):
                return
            old, before = slot.serving, slot.refusal
            check = partial(self._check_halt, swap, old)
            check()
            with self._telling(swap, target):
                prepared = self._prepare(chosen, partial(slot.superseded, target), check)
            self._edge(target)
            with self._turn(target, check, needed=old is not None), self._telling(swap, target):
                check()
                self._bring_up(prepared)
            slot.accept()
            slot.end_swap("done", old)
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
                slot.end_swap("dropped", old, "something else was wanted meanwhile")
            else:
                slot.end_swap("refused", old, one_line(error))
                slot.refuse(target, error)
        finally:
            slot.show_plan(None)
            slot.show(None)

    def _resolve(self, target: Target) -> Version:
        """Read what the target means. Raises: Corrupt, where the repository holds something else under its name."""
        version = self._parts.source.resolve(target.model, target.version)
        if target.digest is not None and target.digest.removeprefix("sha256:") != version.digest:
            raise Corrupt(
                f"cannot serve {target}: active.yaml means sha256:{target.digest[-64:]}, "
                f"the repository holds sha256:{version.digest}",
                digest=version.digest,
            )
        return version

    @contextmanager
    def _telling(self, swap: Swap, target: Target) -> Iterator[None]:
        """Tell the fleet of a version that would fail elsewhere as well, before anybody else has our turn."""
        try:
            yield
        except Exception as error:
            if speaks_against(error) and not self._slot.superseded(target):
                self._parts.session.refuse_swap(swap, self._parts.name, one_line(error))
            raise

    def _check_halt(self, swap: Swap, old: Serving | None) -> None:
        """A slot that serves nothing takes nothing away by trying what others have refused. Raises: SwapHalted."""
        if old is not None:
            self._turns.check_halt(swap)

    def _prepare(self, chosen: Chosen, stop: Callable[[], bool], check: Callable[[], None]) -> Prepared:
        """Bring a version and its environment to this box, in this box's turn where it lacks any of it."""
        slot, source, target, needed = self._slot, self._parts.source, chosen.target, checkpoints_of(chosen)
        self._await_memory(target, stop)
        is_here = source.is_here(chosen.version, needed, chosen.extra)
        with nullcontext() if is_here else self._turns.to_fetch(target, stop, check):
            self._show_phase(target, "fetching")
            local = source.fetch(chosen.version, needed, stop, lambda _, *how_far: slot.show_fetched(target, *how_far))
            self._edge_of(target, stop)
            self._show_phase(target, "building")
            environment = source.build(chosen.version, chosen.extra, self._parts.box.accelerator, stop)
            self._edge_of(target, stop)
        self._show_phase(target, "pooling")
        pooled = source.pool(local, stop)
        self._edge_of(target, stop)
        self._await_memory(target, stop)
        return Prepared(chosen, local, interpreter(environment), pooled)

    def _await_memory(self, target: Target, stop: Callable[[], bool]) -> None:
        """Bring nothing here while the box's memory is tight. Raises: Superseded."""
        while self._parts.tight() is not None:
            self._show_phase(target, "waiting for memory")
            with self._slot.changed:
                self._slot.changed.wait_for(lambda: stop() or self._parts.tight() is None, self._parts.timing.beat_s)
            self._edge_of(target, stop)

    def _show_phase(self, target: Target, phase: str) -> None:
        self._slot.show(target, phase)

    def _bring_up(self, prepared: Prepared) -> None:
        slot, target = self._slot, prepared.target
        slot.show(target, "starting")
        old = slot.serving
        decided = self._plan(prepared, old, self._inplace(prepared, old))
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

    def _plan(self, prepared: Prepared, old: Serving | None, inplace: tuple[str, ...]) -> SwapPlan:
        parts = self._parts
        neighbour = parts.learnt.of(old.prepared.version.digest) if old else None
        devices = frozenset(device.label for device in parts.layout.devices)
        host, device = parts.reservations.less(parts.host_room(), parts.device_room(), devices)
        incoming = self._expected(prepared, old)
        return plan(SwapFacts(self._wish(prepared.chosen), incoming, neighbour or Footprint(), host, device, inplace))

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
