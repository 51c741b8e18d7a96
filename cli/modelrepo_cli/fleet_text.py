"""Workers, slots and active versions as people read them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelrepo_cli import slot_text
from modelrepo_cli.convergence import is_live
from modelrepo_cli.fleet_facts import slots_of
from modelrepo_cli.output import span, table

if TYPE_CHECKING:
    from modelrepo.promotion import ActiveState
    from modelrepo_cli.standing import Standing
    from modelrepo_runtime.jobs import Job
    from modelrepo_runtime.queue.port import SlotReport, WorkerReport


def workers(reports: Sequence[WorkerReport]) -> str:
    """Return a line a worker: what its slots do, taken together."""
    if not reports:
        return "no live worker; start one with `modelrepo worker`"
    rows = [
        (
            each.info.name,
            each.info.cluster,
            each.info.host,
            f"{sum(slot.state == 'open' for slot in each.slots)} of {len(each.slots)}",
            sum(slot.job_id is not None for slot in each.slots),
            ", ".join(sorted({slot_text.serves(slot) for slot in each.slots if slot.model is not None})) or "-",
            heard(each),
        )
        for each in reports
    ]
    return table(("WORKER", "CLUSTER", "HOST", "OPEN SLOTS", "RUNNING", "SERVES", "HEARD"), rows)


def heard(worker: WorkerReport) -> str:
    """Say when a worker was last heard of."""
    return ("" if is_live(worker) else "silent, ") + span(worker.last_beat_age_s) + " ago"


def slots(workers: Sequence[WorkerReport], jobs: Mapping[str, Job] | None = None, now: float | None = None) -> str:
    """Return a line a slot, and under it what stands in its way and what happens next; then a line of each box.

    `jobs` are those that run, by id; `now` is in epoch seconds.
    """
    if not workers:
        return "no live worker; start one with `modelrepo worker`"
    now, jobs = time.time() if now is None else now, jobs or {}
    rows: list[tuple[object, ...]] = []
    for worker in workers:
        rows += [_row(worker, slot, jobs.get(slot.job_id or ""), now) for slot in worker.slots]
        if not worker.slots:
            rows.append((worker.info.name, "-", "-", "-", "-", "-", "-", heard(worker)))
    text = table(("WORKER", "SLOT", "DEVICE", "STATE", "SERVES", "DOES", "MEMORY", "HEARD"), rows)
    notes = [
        f"  {worker.info.name} {slot.slot}: {note}"
        for worker, slot in slots_of(workers)
        for note in slot_text.notes(slot, now)
    ]
    boxes = [f"  {worker.info.name}: {line}" for worker in workers for line in slot_text.box(worker)]
    return "\n".join([text, *notes, *boxes])


def _row(worker: WorkerReport, slot: SlotReport, job: Job | None, now: float) -> tuple[object, ...]:
    what = (slot_text.serves(slot), slot_text.does(slot, job, now), slot_text.memory(slot))
    return (worker.info.name, slot.slot, slot.device, slot.state, *what, heard(worker))


def models(standings: Sequence[Standing]) -> str:
    """Return a line a model, and under it what is odd about its active file."""
    if not standings:
        return ""
    text = table(("MODEL", "ACTIVE", "GENERATION", "NOTE"), [_model_row(each) for each in standings])
    notes = [
        f"  {each.model}: {note}"
        for each in standings
        for note in ((each.problem,) if each.state is None else each.state.notes)
    ]
    return "\n".join([text, *notes])


def _model_row(each: Standing) -> tuple[object, ...]:
    if each.state is None:
        return each.model, "?", "?", "cannot be read"
    return each.model, each.state.version or "-", each.state.generation, _oddities(each.state)


def _oddities(state: ActiveState) -> str:
    odd = []
    if state.edited_by_hand:
        odd.append("edited by hand")
    if state.stale_file:
        odd.append("active.yaml is stale; the next change repairs it")
    return ", ".join(odd)
