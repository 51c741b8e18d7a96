"""Lets the slots of a worker go round among more models than there are slots: see `sharing` for which and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modelrepo_runtime.queue.demand import Demand
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.sharing import Move, Tenure, moves
from modelrepo_runtime.worker.slot import Slot

URGENT_AT_ONCE = "10%"
"""Slots that leave work at once for a model, of as many as jobs wait for it."""
SHUNS_S = 600.0
"""How long a slot does not try again a model that did not come up in it."""


class Shared(Protocol):
    """The worker's roster, as it is moved."""

    def slots(self) -> Mapping[str, Slot]: ...

    def is_ordered(self, name: str) -> bool:
        """Tell whether an operator has chosen a slot's model."""

    def is_open(self, name: str) -> bool:
        """Tell whether nobody has cordoned a slot."""

    def shared_models(self) -> Sequence[str]:
        """Name all models that this worker may serve."""

    def demands(self, models: Sequence[str]) -> Callable[[str, str], Demand]:
        """Look at what waits now; the answer says it by slot and model."""

    def move(self, name: str, model: str) -> bool:
        """Bring a slot closer to having a model; True once it has. Called until then."""


class Turns(Protocol):
    """The turns of the whole fleet, by which not all boxes run after the same job."""

    def take_share_turn(self, model: str, slot: str, waiting: int, most: str) -> bool: ...

    def end_share_turn(self, model: str, slot: str) -> None: ...


@dataclass(slots=True)
class _Known:
    """What was seen of a slot, on the monotonic clock."""

    model: str
    came_at: float
    """When it got the model."""
    served_at: float | None = None
    """When the model first served."""
    busy_at: float = 0.0
    """When it last ran a job, or came up."""
    shuns: dict[str, float] = field(default_factory=dict)
    """Models that did not come up here -> until when they are left alone."""


class Mover:
    """Looks now and then; for one thread."""

    def __init__(
        self, shared: Shared, turns: Turns, journal: Journal, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared, self._turns, self._journal, self._clock = shared, turns, journal, clock
        self._known: dict[str, _Known] = {}
        self._under_way: dict[str, Move] = {}
        self._bring_up_s: dict[str, float] = {}

    def look(self) -> None:
        """Go on with the moves that are under way, and begin those that are due. Raises: Unreachable."""
        self._go_on()
        models = self._shared.shared_models()
        slots = {name: slot for name, slot in self._shared.slots().items() if name not in self._under_way}
        tenures = [tenure for name, slot in slots.items() if (tenure := self._tenure(name, slot)) is not None]
        if not tenures or len(models) < 2:
            return
        asked = self._shared.demands(sorted({*models, *(tenure.model for tenure in tenures)}))
        now = self._clock()

        def demand(slot: str, model: str) -> Demand:
            return Demand() if self._known[slot].shuns.get(model, 0.0) > now else asked(slot, model)

        arriving = [self._arriving(move) for move in self._under_way.values()]
        for move in list(moves([*tenures, *arriving], models, demand, self._bring_up_s)):
            waiting = demand(move.slot, move.new).waiting
            if self._turns.take_share_turn(move.new, move.slot, waiting, URGENT_AT_ONCE if move.urgent else "100%"):
                self._journal.say("slot-moves", slot=move.slot, to=move.new, why=move.why)
                self._under_way[move.slot] = move
        self._go_on()

    def _go_on(self) -> None:
        for name, move in list(self._under_way.items()):
            if self._shared.is_ordered(name):  # who orders a model brings it up
                self._end(move)
            elif self._shared.move(name, move.new):
                self._follow(move)

    def _follow(self, move: Move) -> None:
        """End a move once its model serves, or does not come up."""
        slot = self._shared.slots().get(move.slot)
        if slot is None or slot.model != move.new:
            return
        tenure = self._tenure(move.slot, slot)
        if tenure is None or not tenure.up:
            return
        known = self._known[move.slot]
        if known.served_at is None:
            known.shuns[move.new] = self._clock() + SHUNS_S
            self._journal.say("slot-moved-in-vain", slot=move.slot, model=move.new, next="another model may have it")
        self._end(move)

    def _end(self, move: Move) -> None:
        del self._under_way[move.slot]
        self._turns.end_share_turn(move.new, move.slot)

    def _tenure(self, name: str, slot: Slot) -> Tenure | None:
        """Say how a slot stands with its model; None where it cannot be moved now."""
        now = self._clock()
        known = self._known.get(name)
        if known is None or known.model != slot.model:
            shuns = known.shuns if known is not None else {}
            known = self._known[name] = _Known(slot.model, now, None, now, shuns)
        with slot.changed:
            serves, refused = slot.serving is not None, slot.refusal is not None
            busy = slot.held is not None
            changing = slot.incoming is not None or slot.stopping or slot.withheld is not None
        if serves and known.served_at is None:
            known.served_at = known.busy_at = now
            self._bring_up_s[slot.model] = now - known.came_at
        if busy:
            known.busy_at = now
        if self._shared.is_ordered(name) or not self._shared.is_open(name) or (changing and serves):
            return None
        served_s = now - known.served_at if known.served_at is not None and serves else 0.0
        return Tenure(name, slot.model, now - known.busy_at, served_s, serves or refused)

    @staticmethod
    def _arriving(move: Move) -> Tenure:
        return Tenure(move.slot, move.new, 0.0, 0.0, up=False)
