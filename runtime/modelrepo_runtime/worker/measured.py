"""What an attempt took of its slot's memory, as the queue is told of it."""

from __future__ import annotations

from modelrepo_runtime.job_memory import JobMemory, MemoryRoom, MemoryUse
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision.spec import ChildOutcome, Lacked

_TEACHES = (Cause.SUCCEEDED, Cause.OUT_OF_MEMORY)
"""Whatever else ended an attempt may have ended it before it took its most."""


def memory_of(outcome: ChildOutcome, room: MemoryRoom) -> JobMemory | None:
    """Return what to tell of a job that ran alone in a slot with this much room; None where nothing is known."""
    if outcome.cause not in _TEACHES:
        return None
    peaks = outcome.memory
    on_device = _use(peaks.accelerator_bytes, room.accelerator_bytes, peaks.lacked is Lacked.ACCELERATOR)
    on_host = _use(peaks.host_bytes, room.host_bytes, peaks.lacked is Lacked.HOST)
    if outcome.cause is Cause.OUT_OF_MEMORY:  # what it did not lack, it may not have taken its most of
        on_device, on_host = (use if use is not None and use.ran_out else None for use in (on_device, on_host))
    return JobMemory(on_device, on_host) or None


def _use(peak_bytes: int | None, room_bytes: int | None, ran_out: bool) -> MemoryUse | None:
    if ran_out:
        return MemoryUse(peak_bytes or 0, room_bytes, ran_out=True)
    return None if peak_bytes is None else MemoryUse(peak_bytes, room_bytes)
