"""What a swap waits for the rest of the fleet: turns to fetch and to be away, and a halt after others refused it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelrepo.errors import SwapHalted, Unreachable
from modelrepo_runtime.queue.swaps import Swap
from modelrepo_runtime.worker.slot import Slot, Superseded
from modelrepo_runtime.worker.target import Target


class TurnTaker:
    """Turns and halts as one slot asks for them. What is superseded meanwhile raises Superseded."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._parts = slot, slot.parts

    def check_halt(self, swap: Swap) -> None:
        """Raises: SwapHalted, where so many slots refused the version that this one should not try."""
        halt = self._parts.session.halt_of(swap)
        if halt is not None:
            raise SwapHalted(str(halt))

    @contextmanager
    def to_fetch(self, target: Target, dropped: Callable[[], bool], check: Callable[[], None]) -> Iterator[None]:
        """Hold this box's turn to fetch for a model; beats renew it for as long as it takes."""
        slot, session = self._slot, self._parts.session
        told = f"waiting for its turn to fetch ({target.max_fetching} boxes of a cluster fetch at once)"
        self._wait(
            target,
            lambda: session.take_fetch_turn(target.model, self._parts.name, target.max_fetching),
            told,
            dropped,
            check,
        )
        try:
            yield
        finally:
            session.end_fetch_turn(target.model, slot.parts.name)

    @contextmanager
    def to_swap(self, target: Target, check: Callable[[], None]) -> Iterator[None]:
        """Hold one of the model's turns to be away."""
        told = f"waiting for its turn ({target.max_unavailable} of the slots swap at once)"
        self._wait(target, lambda: self._takes_turn(target), told, lambda: self._slot.superseded(target), check)
        try:
            yield
        finally:
            self._parts.session.end_turn(target.model, self._parts.name)

    def _wait(
        self,
        target: Target,
        takes: Callable[[], bool],
        told: str,
        dropped: Callable[[], bool],
        check: Callable[[], None],
    ) -> None:
        slot, timing = self._slot, self._parts.timing
        rest_s = timing.queue_poll_s
        while not takes():
            slot.show(target, told)
            with slot.changed:
                slot.changed.wait_for(dropped, rest_s)
            if dropped():
                raise Superseded
            check()
            rest_s = min(2 * rest_s, timing.beat_s)  # thousands may wait, and turns last for minutes

    def _takes_turn(self, target: Target) -> bool:
        parts = self._parts
        try:
            total = parts.slots_total(target.model)
        except Unreachable as error:
            parts.journal.say_once("queue", "queue-unreachable", error=error)
            return False
        return parts.session.take_turn(target.model, parts.name, total, target.max_unavailable)
