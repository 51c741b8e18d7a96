"""The states of a slot, as `modelrepo status` shows them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.refusal import Refusal


class SlotState(StrEnum):
    """`open` takes jobs; `cordoned` takes none but a probe; `refused` serves what it has, not what it should."""

    OPEN = "open"
    CORDONED = "cordoned"
    REFUSED = "refused"


# A cordon hides a refusal: a slot that takes no jobs is the more urgent of the two.
SLOT_TRANSITIONS: dict[SlotState, frozenset[SlotState]] = {
    SlotState.OPEN: frozenset({SlotState.CORDONED, SlotState.REFUSED}),
    SlotState.CORDONED: frozenset({SlotState.OPEN, SlotState.REFUSED}),
    SlotState.REFUSED: frozenset({SlotState.OPEN, SlotState.CORDONED}),
}


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why a slot takes no jobs: its device lacks memory that has been returned by nobody. `look_at`: monotonic."""

    reason: str
    wanted_bytes: int
    look_at: float


def slot_state(breaker: Breaker, refusal: Refusal | None) -> SlotState:
    if breaker.cordoned:
        return SlotState.CORDONED
    return SlotState.OPEN if refusal is None else SlotState.REFUSED
