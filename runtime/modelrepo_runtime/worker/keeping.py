"""A slot on the CPU holds a child of every version that its cluster's accelerators serve or load."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from modelrepo.errors import Stopped, Unsuitable
from modelrepo_runtime.worker.child_start import start
from modelrepo_runtime.worker.preparing import Chosen, Prepared, choose
from modelrepo_runtime.worker.refusal import Refusal, refuse
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot import Slot, Superseded
from modelrepo_runtime.worker.swapping import Swapper
from modelrepo_runtime.worker.target import Target


@dataclass(frozen=True, slots=True)
class _Due:
    """What is to be done next: one of the two."""

    bring: Target | None = None
    end: Serving | None = None


class Keeper(Swapper):
    """The thread that keeps such a slot's children.

    The target is swapped to as in any slot, but the version that it replaces stays for as long as it is wanted, and
    the slot takes no turn for it: nothing is away meanwhile.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self._refused: dict[str, Refusal] = {}
        self._seen: dict[str, Target] = {}
        """The newest target of each version, whose configuration it is started with again."""

    def _run(self) -> None:
        slot = self._slot
        while True:
            with slot.changed:
                due = None
                while not slot.stopping and not self._is_due() and (due := self._due()) is None:
                    slot.changed.wait(self._patience())
                if slot.stopping:
                    return
                target = slot.target
                if target is not None:
                    self._seen[target.version] = target
            if due is not None:
                self._do(due)
            elif target is not None and not self._take_up(target):
                self._swap(target)

    def _patience(self) -> float | None:
        """Never past a beat: a companion may die by itself."""
        rests = [super()._patience(), *(refusal.retry_at - time.monotonic() for refusal in self._refused.values())]
        return max(0.01, min([rest for rest in rests if rest is not None] + [self._parts.timing.beat_s]))

    def _due(self) -> _Due | None:
        slot = self._slot
        if slot.target is None:
            return None
        for version, serving in slot.companions.items():
            unwanted = version not in slot.wanted or version == slot.target.version or not serving.child.alive
            if unwanted and (slot.using is None or slot.using.child is not serving.child):
                return _Due(end=serving)
        own = slot.serving.prepared.version.version if slot.serving else None
        for version in sorted(slot.wanted - {slot.target.version, own or "", *slot.companions}):
            refusal = self._refused.get(version)
            if refusal is None or time.monotonic() >= refusal.retry_at:
                return _Due(bring=self._seen.get(version) or Target(slot.model, version, None, 0))
        return None

    def _do(self, due: _Due) -> None:
        if due.end is not None:
            with self._slot.changed:
                self._slot.companions.pop(due.end.prepared.version.version, None)
            due.end.child.stop(self._parts.timing.stop_grace_s)
            self._parts.journal.say("version-dropped", slot=self._parts.name, version=due.end.prepared.version)
        elif due.bring is not None:
            self._bring(due.bring)
        self._parts.session.tell_soon()

    def _bring(self, target: Target) -> None:
        """Start a child of a wanted version beside the one that serves."""
        slot, parts = self._slot, self._parts

        def stop() -> bool:
            with slot.changed:
                return slot.stopping or target.version not in slot.wanted

        try:
            chosen = choose(parts.source.resolve(target.model, target.version), target, parts.box)
            prepared = self._prepare(chosen, stop, lambda: None)
            decided = self._plan(prepared, slot.serving, self._inplace(prepared, None))
            if decided.mode != "overlap":
                raise Unsuitable(f"cannot hold {chosen.version} beside what slot {parts.name} serves: {decided}")
            self._await_alone(target, stop)
            new = start(slot, prepared, target)
        except (Stopped, Superseded):
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot must say so and live on
            before, now = self._refused.get(target.version), time.monotonic()
            refusal = self._refused[target.version] = refuse(target, error, now=now, before=before, timing=parts.timing)
            parts.journal.say("version-not-held", slot=parts.name, version=target.version, reason=refusal.reason)
            return
        self._refused.pop(target.version, None)
        self._keep(new)

    def _keep(self, serving: Serving) -> None:
        slot, version = self._slot, serving.prepared.version.version
        with slot.changed:
            kept = not slot.stopping and version in slot.wanted
            if kept:
                slot.companions[version] = serving
            slot.changed.notify_all()
        if not kept:
            serving.child.stop(self._parts.timing.stop_grace_s)

    def _take_up(self, target: Target) -> bool:
        """Make the target's child, which is here already, the one that serves; False where it is not."""
        slot = self._slot
        with slot.changed:
            found = slot.companions.get(target.version)
            if found is None or found.target.key != target.key or not found.child.alive:
                return False
            old = slot.serving
            del slot.companions[target.version]
            slot.put(replace(found, target=target))
            if old is not None:
                slot.companions[old.prepared.version.version] = old
            slot.refusal = None
            slot.changed.notify_all()
        self._parts.session.tell_soon()
        return True

    def _retire(self, old: Serving, new: Serving) -> None:  # noqa: ARG002 - as a Swapper's
        self._keep(old)

    def _show_phase(self, target: Target, phase: str) -> None:
        """Of versions that are wanted beside the target nothing is shown as its swap."""
        if self._slot.target is not None and self._slot.target.key == target.key:
            super()._show_phase(target, phase)

    def _inplace(self, prepared: Prepared, old: Serving | None) -> tuple[str, ...]:  # noqa: ARG002 - as a Swapper's
        return ("this slot keeps the old version as well",)

    def _wish(self, chosen: Chosen) -> str:  # noqa: ARG002 - as a Swapper's
        """`swap:` is about accelerators: here both versions are wanted at once, wherever they fit."""
        return "auto"

    def _turn(
        self,
        target: Target,  # noqa: ARG002 - as a Swapper's
        check: Callable[[], None],  # noqa: ARG002
        *,
        needed: bool,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def _drain(self, prepared: Prepared) -> None:
        with super()._turn(prepared.target, lambda: None, needed=True):
            super()._drain(prepared)
