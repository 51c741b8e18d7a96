"""Waiting until every live slot of a model runs what was promoted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelrepo.errors import NotConverged
from modelrepo_cli.output import span

if TYPE_CHECKING:
    from modelrepo_runtime.queue.port import SlotReport, WorkerReport

POLL_S = 0.25  # as often as workers look at a local active.yaml


@dataclass(frozen=True, slots=True)
class Target:
    """What every slot of a model is to run."""

    model: str
    version: str
    digest: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class Behind:
    """A slot that runs something else, and why."""

    worker: str
    slot: str
    version: str | None
    state: str
    reason: str | None
    comes: str | None = None
    """What it does to change that, such as `warming v3`."""

    def __str__(self) -> str:
        where = f"{self.worker} slot {self.slot} runs {self.version or 'nothing'}"
        why = "; ".join(part for part in (self.comes, self.reason) if part)
        return f"{where} ({why})" if why else where


def is_live(worker: WorkerReport) -> bool:
    """Say whether a worker was heard of within a lease."""
    return worker.live


def present(fleet: Sequence[WorkerReport]) -> tuple[WorkerReport, ...]:
    """Leave out what a worker said before it died, of slots that the next one of its name and box has taken over.

    A slot has one owner at a time, so of two sessions that report it, one of which has missed beats, that one is gone.
    """
    newest: dict[tuple[str, str, str], float] = {}
    for worker in fleet:
        for slot in worker.slots:
            key = (worker.info.host, worker.info.name, slot.slot)
            newest[key] = min(newest.get(key, worker.last_beat_age_s), worker.last_beat_age_s)

    def is_gone(worker: WorkerReport) -> bool:
        names = [(worker.info.host, worker.info.name, slot.slot) for slot in worker.slots]
        missed_s = worker.lease_s / 2  # three beats
        return worker.last_beat_age_s > missed_s and any(newest[name] < worker.last_beat_age_s for name in names)

    return tuple(worker for worker in fleet if not is_gone(worker))


def comes(slot: SlotReport) -> str | None:
    """Say what a slot brings up, and how far it is."""
    coming = slot.incoming
    return f"{coming.get('phase', 'preparing')} {coming.get('version', '')}".strip() if coming else None


def behind(fleet: Sequence[WorkerReport], target: Target) -> tuple[Behind, ...]:
    """Return the live slots of the target's model that do not run it yet."""
    return tuple(
        Behind(worker.info.name, slot.slot, slot.version, slot.state, slot.reason, comes(slot))
        for worker in fleet
        if is_live(worker)
        for slot in worker.slots
        if slot.model == target.model
        and not slot.extra.get("pinned")  # it was ordered to serve another one
        and not (slot.digest == target.digest and (slot.generation or 0) >= target.generation)
    )


def wait(
    fleet: Callable[[], Sequence[WorkerReport]],
    target: Target,
    timeout_s: float,
    *,
    changed: Callable[[tuple[Behind, ...]], None] = lambda _late: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until no live slot is behind, and return how many there are; `changed` hears of every change of who is.

    Raises:
        NotConverged: the time is over; its message says who is where.
    """
    end = clock() + timeout_s
    last: tuple[Behind, ...] | None = None
    while True:
        seen = present(fleet())
        late = behind(seen, target)
        if not late:
            return sum(slot.model == target.model for worker in seen if is_live(worker) for slot in worker.slots)
        if late != last:
            changed(late)
            last = late
        if clock() >= end:
            raise not_converged(target, late, timeout_s)
        sleep(POLL_S)


def not_converged(target: Target, late: Sequence[Behind], timeout_s: float) -> NotConverged:
    """Return the error that says who is where."""
    shown = "; ".join(str(slot) for slot in late[:3]) + (f"; and {len(late) - 3} more" if len(late) > 3 else "")
    return NotConverged(
        f"{target.model}@{target.version} is active (generation {target.generation}), but after {span(timeout_s)} "
        f"{'1 slot does' if len(late) == 1 else f'{len(late)} slots do'} not run it yet: {shown}; "
        "see `modelrepo status`"
    )
