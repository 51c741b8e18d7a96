"""What slots of the whole fleet agree on while they swap: turns, and versions that nobody else should try."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from modelrepo_runtime.queue.turns import SWAP

REFUSALS = 3
"""So many slots that refuse a version are no bad luck of theirs."""


@dataclass(frozen=True, slots=True)
class Swap:
    """A change of what a model's slots should serve; another generation is another one."""

    model: str
    version: str
    digest: str
    generation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A slot where a version did not come up, be it for its code, its checkpoints or its environment."""

    worker: str
    slot: str
    reason: str
    at: float = 0.0

    @property
    def key(self) -> str:
        """Name the slot in the whole fleet."""
        return f"{self.worker}/{self.slot}"


@dataclass(frozen=True, slots=True)
class Halt:
    """A swap that slots which have not begun it leave alone, until `promote --retry` makes another generation of it."""

    swap: Swap
    since: float
    refused: tuple[Refused, ...]
    """The oldest first."""

    def __str__(self) -> str:
        name = f"{self.swap.model}@{self.swap.version}"
        where = ", ".join(each.key for each in self.refused[:REFUSALS])
        return f"the swap to {name} is halted: {where} refused it, the last one since {self.refused[-1].reason}"


def halts(refused: Collection[Refused], workers: int) -> bool:
    """Tell whether so many refusals halt a swap for slots that have not begun it.

    One worker alone may be at fault itself where the model has several: `workers` counts them.
    """
    places = {each.key for each in refused}
    return len(places) >= REFUSALS and (workers <= 1 or len({each.worker for each in refused}) > 1)


class Swaps(Protocol):
    """Part of the JobQueue port."""

    def take_turn(
        self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float, kind: str = SWAP
    ) -> bool:
        """Try to be one of the max(1, floor(share x slots)) of a model that may do this now.

        True also where the slot has its turn already. `max_unavailable` is a share ("10%") or a number of slots ("2").
        Turns of other kinds are counted apart.
        """

    def renew_turn(self, model: str, slot_key: str, ttl_s: float, kind: str = SWAP) -> bool:
        """Prolong a turn; False once it has passed to others."""

    def end_turn(self, model: str, slot_key: str, kind: str = SWAP) -> None:
        """Give a turn back; giving back what one does not have is legal."""

    def refuse_swap(self, swap: Swap, worker: str, slot: str, reason: str) -> bool:
        """Say that a version did not come up in a slot, whose own fault it is not; True once the swap is halted.

        A slot counts once. What is known of the model's earlier generations is forgotten.
        """

    def accept_swap(self, swap: Swap, worker: str, slot: str) -> None:
        """Say that a version came up after all in a slot that had refused it. What is halted stays so."""

    def halt_of(self, swap: Swap) -> Halt | None:
        """Return why slots that have not begun a swap should leave it alone; None: they may begin."""
