"""Tries of a job whose memory ran out before: each alone in its slot, with what the pool can spare given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.jobs import Cause, Claim
from modelrepo_runtime.queue.port import JobQueue

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot

WAITS_FOR = "waiting for a job that runs alone"
"""What a swap shows meanwhile."""


def ran_out_before(queue: JobQueue, claim: Claim) -> bool:
    """Tell whether an earlier try at the same stage ran out of memory; a queue that does not answer knows of none."""
    if claim.attempt == 1:
        return False
    try:
        rows = queue.history(claim.job_id)
    except ModelRepoError:
        return False
    return any((row.event, row.stage, row.cause) == ("attempt", claim.stage, Cause.OUT_OF_MEMORY.value) for row in rows)


@contextmanager
def alone_in(slot: Slot) -> Iterator[bool]:
    """Load nothing beside what runs in a slot, once what loads there has come up; False where that must go first."""
    with slot.changed:
        slot.alone = True
        slot.changed.wait_for(lambda: not slot.loading or slot.stopping)
        clear = slot.ready is None and not slot.stopping
    try:
        yield clear
    finally:
        with slot.changed:
            slot.alone = False
            slot.changed.notify_all()


def wait_until_over(slot: Slot, stop: Callable[[], bool], look_s: float) -> bool:
    """Wait a while for a try that runs alone; True once none does."""
    with slot.changed:
        slot.changed.wait_for(lambda: stop() or not slot.alone, look_s)
        return not slot.alone
