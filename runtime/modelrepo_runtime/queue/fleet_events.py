"""What happened to the fleet: workers, slots, breakers, policies, promotions. What happened to a job is its history."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from modelrepo_runtime.jobs import Json, timestamp

KEPT_S = 30 * 86_400.0
"""How long events are remembered."""


class Happened(StrEnum):
    """What an event may tell of."""

    SESSION_BEGAN = "session_began"
    SESSION_ENDED = "session_ended"
    SESSION_LOST = "session_lost"
    SLOT_OPENED = "slot_opened"
    SLOT_CORDONED = "slot_cordoned"
    SLOT_REFUSED = "slot_refused"
    SLOT_SWAPPED = "slot_swapped"
    SWAP_HALTED = "swap_halted"
    BREAKER_TRIPPED = "breaker_tripped"
    BREAKER_CLOSED = "breaker_closed"
    PAUSED = "paused"
    RESUMED = "resumed"
    POLICY_SET = "policy_set"
    TIER_SET = "tier_set"
    TENANT_SET = "tenant_set"
    PROMOTED = "promoted"
    CREDITS_CORRECTED = "credits_corrected"
    ORDER_GIVEN = "order_given"
    ORDER_REFUSED = "order_refused"
    WEBHOOK_GIVEN_UP = "webhook_given_up"


@dataclass(frozen=True, slots=True)
class FleetEvent:
    """One thing that happened; `id` grows with time."""

    kind: str
    text: str
    """In words, for people."""
    model: str | None = None
    version: str | None = None
    worker: str | None = None
    slot: str | None = None
    job_id: str | None = None
    id: int = 0
    at: float = 0.0

    def to_json(self) -> dict[str, Json]:
        """Return it as commands show it."""
        return {
            "id": self.id,
            "at": timestamp(self.at),
            "kind": self.kind,
            "text": self.text,
            "model": self.model,
            "version": self.version,
            "worker": self.worker,
            "slot": self.slot,
            "job": self.job_id,
        }


class FleetEvents(Protocol):
    """The part of a JobQueue that remembers what happened to the fleet."""

    def fleet_events(
        self,
        *,
        since_s: float | None = None,
        after: int | None = None,
        model: str | None = None,
        kind: str | None = None,
        limit: int = 1000,
    ) -> tuple[FleetEvent, ...]:
        """Return the newest events, oldest first: of the last `since_s`, with an id above `after`, of one model.

        Raises: InvalidInput for a kind that there is not.
        """

    def note_event(self, event: FleetEvent) -> None:
        """Write an event down; its id and moment are the queue's to give."""
