"""One slot, and one box, as people read them; `now` is in epoch seconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from modelrepo_cli.convergence import comes
from modelrepo_cli.fleet_facts import box_of, fact
from modelrepo_cli.output import counted, size, span

if TYPE_CHECKING:
    from modelrepo_runtime.jobs import Job
    from modelrepo_runtime.queue.port import SlotReport, WorkerReport


def clock(at: float) -> str:
    """Write a moment as a time of day, here."""
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"


def serves(slot: SlotReport) -> str:
    """Say what a slot serves."""
    if slot.model is None:
        return "-"
    return f"{slot.model}@{slot.version}" if slot.version else f"{slot.model} (nothing yet)"


def memory(slot: SlotReport) -> str:
    """Say what is used of its devices by the driver's word, else what its child has of the host's memory."""
    told = fact(slot, "memory")
    if "device_total_bytes" in told:
        return f"{size(told['device_used_bytes'])} of {size(told['device_total_bytes'])}"
    return f"{size(told['child_bytes'])}" if "child_bytes" in told else "-"


def does(slot: SlotReport, job: Job | None, now: float) -> str:
    """Say what it does now: its job, how far that is, and what comes."""
    parts = [_job(slot, job, now) if slot.job_id else "", _comes(slot, now) or ""]
    return ", ".join(part for part in parts if part) or "idle"


def notes(slot: SlotReport, now: float) -> list[str]:
    """Return a line for each thing that stands in its way, for what happens next, and for its swaps."""
    lines = _standing(slot, now)
    if slot.extra.get("pinned"):
        lines.append(f"assigned {slot.model}@{slot.extra['pinned']}, whatever is active")
    lines += [str(note) for note in slot.extra.get("notes", ()) or ()]
    if slot.extra.get("memory_group") is False:
        lines.append("no memory group of its own: a child that runs out of memory may take the worker along")
    if slot.extra.get("ranks"):
        lines.append(f"{slot.extra['ranks']} ranks, one process a device")
    told = fact(slot, "memory")
    if "device_total_bytes" in told and "child_bytes" in told:
        lines.append(f"its child has {size(told['child_bytes'])} of the host's memory")
    if slot.plan:
        lines.append(f"swap: {slot.plan}")
    last = fact(slot, "last_swap")
    return [*lines, _last_swap(slot, last, now)] if last else lines


def box(worker: WorkerReport) -> list[str]:
    """Return what is said of a worker's box: memory, pool, states that wait, devices that are not well."""
    told, lines = box_of(worker), []
    if told.get("memory"):
        lines.append(f"memory: {_host(told['memory'])}")
    if told.get("pool"):
        lines.append(f"pool: {_pool(told['pool'])}")
    waiting = told.get("states", {}).get("waiting")
    if waiting:
        lines.append(f"{counted(waiting, 'saved state')} not beyond this box yet")
    lines += [f"not well: {each}" for each in told.get("sick", ())]
    return [*lines, *(str(note) for note in told.get("notes", ()))]


def _standing(slot: SlotReport, now: float) -> list[str]:
    if not slot.reason:
        until = f" (by {clock(slot.deadline)})" if slot.deadline and slot.next_action else ""
        return [f"next: {slot.next_action}{until}"] if slot.next_action else []
    again = ""
    if slot.deadline:
        again = " (tried again now)" if slot.deadline <= now else f" (tried again at {clock(slot.deadline)})"
    return [f"{slot.reason}{again}" + (f"; next: {slot.next_action}" if slot.next_action else "")]


def _job(slot: SlotReport, job: Job | None, now: float) -> str:
    told, parts = fact(slot, "job"), [str(slot.job_id)]
    if told.get("batch", 1) > 1:
        parts.append(f"and {told['batch'] - 1} more")
    if told.get("stage"):
        parts.append(str(told["stage"]) + (f" (try {told['attempt']})" if told.get("attempt", 1) > 1 else ""))
    if job is not None and job.progress is not None:
        parts.append(f"{job.progress:.0%} {job.message or ''}".rstrip())
    if told.get("since"):
        parts.append(f"for {span(round(max(0.0, now - told['since'])))}")
    if job is not None and job.eta is not None and job.eta.finish_at is not None:
        left_s = job.eta.finish_at - now
        parts.append(f"about {span(round(left_s))} left" if left_s > 0 else "longer than expected")
    return " ".join(parts)


def _comes(slot: SlotReport, now: float) -> str | None:
    text, coming = comes(slot), slot.incoming or {}
    if text is None:
        return None
    done, total, since = coming.get("done_bytes"), coming.get("total_bytes"), coming.get("phase_since")
    if isinstance(done, int) and isinstance(total, int) and total:
        text += f", {done / total:.0%} of {size(total)}"
    return f"{text} for {span(round(max(0.0, now - since)))}" if isinstance(since, int | float) else text


def _last_swap(slot: SlotReport, last: Mapping[str, Any], now: float) -> str:
    what = f"last swap: {last['old']} -> {last.get('new')}" if last.get("old") else f"brought up {last.get('new')}:"
    how = f" by {last['mode']}" if last.get("mode") else ""
    ago = span(round(max(0.0, now - last.get("ended_at", now))))
    line = f"{what} {last.get('result')}{how} in {span(last.get('took_s', 0.0))}, {ago} ago"
    if last.get("why"):
        line += f": {last['why']}"
    phases = {**(last.get("phases") or {}), **_child_phases(slot, last)}
    took = ", ".join(f"{name} {span(seconds)}" for name, seconds in phases.items() if seconds >= 0.05)
    reasons = "; ".join(last.get("reasons") or ())
    return line + (f" ({took})" if took else "") + (f"; why so: {reasons}" if reasons else "")


def _child_phases(slot: SlotReport, last: Mapping[str, Any]) -> dict[str, float]:
    """Return what the child that came up spent on what, and for how long the slot took no jobs."""
    if last.get("result") != "done" or last.get("new") != slot.version:
        return {}
    named = {"import_s": "import", "load_s": "load", "warmup_s": "warm-up", "reload_s": "reload", "gap_s": "gap"}
    return {name: slot.phases[key] for key, name in named.items() if slot.phases and key in slot.phases}


def _host(told: Mapping[str, Any]) -> str:
    text = f"{size(told['available_bytes'])} of {size(told['total_bytes'])} available"
    if "group_limit_bytes" in told:
        text += f", {size(told['group_free_bytes'])} of {size(told['group_limit_bytes'])} free in the control group"
    return text


def _pool(told: Mapping[str, Any]) -> str:
    if told.get("state") == "off":
        return f"off: {told.get('reason')}"
    held = f"{size(told['held_bytes'])} in use" if told["held_bytes"] else "none in use"
    entries = f"{told['entries']:,} {'entry' if told['entries'] == 1 else 'entries'}"
    return f"{size(told['used_bytes'])} of {size(told['limit_bytes'])} in {told['folder']}, {entries}, {held}"
