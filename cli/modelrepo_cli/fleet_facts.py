"""What workers say of their slots and boxes, put in order: what to look at first, and one document for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from modelrepo_cli.convergence import is_live
from modelrepo_cli.output import plain

if TYPE_CHECKING:
    from modelrepo_runtime.jobs import Job
    from modelrepo_runtime.queue.port import JobQueue, SlotReport, WorkerReport

JOBS_A_CALL = 500
_LIFTED = ("job", "memory", "last_swap", "box")
"""Of a slot's `extra`: shown in places of their own."""


class Attention(IntEnum):
    """How much a slot wants somebody to look at it; the greater, the sooner."""

    NONE = 0
    SWAPS = 1
    """It serves, and brings up another version."""
    STARTS = 2
    """It serves nothing yet."""
    CORDONED = 3
    REFUSED = 4
    SILENT = 5
    """Its worker has not been heard of for more than a lease."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which slots are looked at; what is None holds for all."""

    model: str | None = None
    cluster: str | None = None
    worker: str | None = None


def only(workers: Sequence[WorkerReport], which: Which) -> tuple[WorkerReport, ...]:
    """Leave out other slots and workers; what a worker says of its box stays with the first slot that is left."""
    kept: list[WorkerReport] = []
    for worker in workers:
        if which.worker not in (None, worker.info.name) or which.cluster not in (None, worker.info.cluster):
            continue
        slots = tuple(slot for slot in worker.slots if which.model in (None, slot.model))
        if which.model is not None and not slots:
            continue
        box = box_of(worker)
        if slots and box and "box" not in slots[0].extra:
            slots = (replace(slots[0], extra={**slots[0].extra, "box": box}), *slots[1:])
        kept.append(replace(worker, slots=slots))
    return tuple(kept)


def box_of(worker: WorkerReport) -> Mapping[str, Any]:
    """Return what a worker says of its box: `memory`, `pool`, `states`, `sick`, `notes`; empty: nothing."""
    return next((_mapping(slot.extra["box"]) for slot in worker.slots if slot.extra.get("box")), {})


def fact(slot: SlotReport, name: str) -> Mapping[str, Any]:
    """Return one of the objects in a slot's `extra`, such as `memory`; empty where there is none."""
    return _mapping(slot.extra.get(name))


def attention(worker: WorkerReport, slot: SlotReport) -> Attention:
    """Say how much a slot wants to be looked at."""
    if not is_live(worker):
        return Attention.SILENT
    if slot.state == "refused":
        return Attention.REFUSED
    if slot.state != "open":
        return Attention.CORDONED
    if slot.version is None:
        return Attention.STARTS
    return Attention.NONE if slot.incoming is None else Attention.SWAPS


def by_attention(workers: Iterable[WorkerReport]) -> list[WorkerReport]:
    """Order workers, and the slots of each, by what wants to be looked at first; alike ones by name."""

    def most(worker: WorkerReport) -> int:
        return max((attention(worker, slot) for slot in worker.slots), default=0)

    ordered = [
        replace(worker, slots=tuple(sorted(worker.slots, key=lambda slot: (-attention(worker, slot), slot.slot))))
        for worker in workers
    ]
    return sorted(ordered, key=lambda worker: (-most(worker), worker.info.name))


def running(queue: JobQueue, workers: Iterable[WorkerReport]) -> dict[str, Job]:
    """Return the jobs that slots say they run, by id: how far they are, and when each is expected to end."""
    from modelrepo_runtime.jobs import Status
    from modelrepo_runtime.queue.port import JobFilter

    named = sorted({slot.job_id for worker in workers for slot in worker.slots if slot.job_id is not None})
    found: dict[str, Job] = {}
    for start in range(0, len(named), JOBS_A_CALL):
        ids = tuple(named[start : start + JOBS_A_CALL])
        found |= {job.id: job for job in queue.list(JobFilter(Status.RUNNING, ids=ids, limit=len(ids)))}
    return found


def document(workers: Iterable[WorkerReport], jobs: Mapping[str, Job]) -> list[dict[str, Any]]:
    """Return workers for programs: as they report, with what stands in `extra` in places of its own."""
    return [
        {
            "live": is_live(worker),
            **plain(worker),
            "box": plain(box_of(worker)) or None,
            "slots": [_slot(worker, slot, jobs) for slot in worker.slots],
        }
        for worker in workers
    ]


def _slot(worker: WorkerReport, slot: SlotReport, jobs: Mapping[str, Job]) -> dict[str, Any]:
    told: dict[str, Any] = plain(slot)
    told["extra"] = {name: value for name, value in told["extra"].items() if name not in _LIFTED}
    told["attention"] = attention(worker, slot).name.lower()
    told["memory"] = plain(slot.extra.get("memory"))
    told["last_swap"] = _timed(plain(slot.extra.get("last_swap")), "ended_at")
    told["incoming"] = _timed(told["incoming"], "since", "phase_since")
    told["deadline"] = _moment(slot.deadline)
    told["job"] = _job(slot, jobs) if slot.job_id is not None else None
    return told


def _job(slot: SlotReport, jobs: Mapping[str, Job]) -> dict[str, Any]:
    told, known = fact(slot, "job"), jobs.get(slot.job_id or "")
    return {
        "id": slot.job_id,
        "stage": told.get("stage"),
        "attempt": told.get("attempt"),
        "batch": told.get("batch", 1),
        "since": _moment(told.get("since")),
        "progress": known.progress if known else None,
        "message": known.message if known else None,
        "expected_end": _moment(known.eta.finish_at) if known and known.eta else None,
    }


def slots_of(workers: Iterable[WorkerReport]) -> Iterator[tuple[WorkerReport, SlotReport]]:
    """Yield every slot with its worker."""
    for worker in workers:
        for slot in worker.slots:
            yield worker, slot


def _timed(told: dict[str, Any] | None, *moments: str) -> dict[str, Any] | None:
    """Write the moments of an object as timestamps."""
    return told and {name: _moment(value) if name in moments else value for name, value in told.items()}


def _moment(at: float | None) -> str | None:
    from modelrepo_runtime.jobs import timestamp

    return timestamp(at)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
