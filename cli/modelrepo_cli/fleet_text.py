"""Workers, slots and active versions as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from modelrepo_cli.convergence import comes, is_live
from modelrepo_cli.output import span, table

if TYPE_CHECKING:
    from modelrepo.promotion import ActiveState
    from modelrepo_cli.standing import Standing
    from modelrepo_runtime.queue.port import SlotReport, WorkerReport


def only(workers: Sequence[WorkerReport], model: str | None) -> tuple[WorkerReport, ...]:
    """Leave out the slots of other models."""
    if model is None:
        return tuple(workers)
    kept = (replace(worker, slots=tuple(slot for slot in worker.slots if slot.model == model)) for worker in workers)
    return tuple(worker for worker in kept if worker.slots)


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
            ", ".join(sorted({_serves(slot) for slot in each.slots if slot.model is not None})) or "-",
            heard(each),
        )
        for each in reports
    ]
    return table(("WORKER", "CLUSTER", "HOST", "OPEN SLOTS", "RUNNING", "SERVES", "HEARD"), rows)


def heard(worker: WorkerReport) -> str:
    """Say when a worker was last heard of."""
    return ("" if is_live(worker) else "silent, ") + span(worker.last_beat_age_s) + " ago"


def slots(workers: Sequence[WorkerReport]) -> str:
    """Return a line a slot, and under it what stands in its way and what happens next."""
    if not workers:
        return "no live worker; start one with `modelrepo worker`"
    rows: list[tuple[object, ...]] = []
    for worker in workers:
        rows += [
            (worker.info.name, slot.slot, slot.device, slot.state, _serves(slot), _does(slot), heard(worker))
            for slot in worker.slots
        ]
        if not worker.slots:
            rows.append((worker.info.name, "-", "-", "-", "-", "-", heard(worker)))
    text = table(("WORKER", "SLOT", "DEVICE", "STATE", "SERVES", "DOES", "HEARD"), rows)
    notes = [note for worker in workers for slot in worker.slots for note in _notes(worker.info.name, slot)]
    pools = [
        f"  {worker.info.name}: pool: {worker.slots[0].extra['pool']}"
        for worker in workers
        if worker.slots and worker.slots[0].extra.get("pool")
    ]
    return "\n".join([text, *notes, *pools])


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


def _serves(slot: SlotReport) -> str:
    if slot.model is None:
        return "-"
    return f"{slot.model}@{slot.version}" if slot.version else f"{slot.model} (nothing yet)"


def _does(slot: SlotReport) -> str:
    return ", ".join(part for part in (slot.job_id, comes(slot)) if part) or "idle"


def _notes(worker: str, slot: SlotReport) -> list[str]:
    where = f"  {worker} {slot.slot}: "
    lines = []
    if slot.reason:
        again = (
            f" (tried again at {datetime.fromtimestamp(slot.deadline).astimezone():%H:%M:%S})" if slot.deadline else ""
        )
        then = f"; next: {slot.next_action}" if slot.next_action else ""
        lines.append(f"{where}{slot.reason}{again}{then}")
    elif slot.next_action:
        lines.append(f"{where}next: {slot.next_action}")
    if slot.extra.get("pinned"):
        lines.append(f"{where}assigned {slot.model}@{slot.extra['pinned']}, whatever is active")
    lines += [f"{where}{note}" for note in slot.extra.get("notes", ())]
    if slot.extra.get("memory_group") is False:
        lines.append(f"{where}no memory group of its own: a child that runs out of memory may take the worker along")
    if slot.extra.get("ranks"):
        lines.append(f"{where}{slot.extra['ranks']} ranks, one process a device")
    if slot.plan:
        lines.append(f"{where}swap: {slot.plan}")
    return lines


def _oddities(state: ActiveState) -> str:
    odd = []
    if state.edited_by_hand:
        odd.append("edited by hand")
    if state.stale_file:
        odd.append("active.yaml is stale; the next change repairs it")
    return ", ".join(odd)
