"""What every worker does now and then for all: lost jobs are taken back, old ones and their files let go."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.retention import Retention, delete_dropped, sweep, sweep_handovers
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.periodic import Periodic

SWEEP_EVERY_S = 3600.0


def reap(reaper: Reaper, journal: Journal) -> None:
    """Take back the jobs of workers that are gone."""
    for reaped in reaper.look():
        journal.say("reaped", job=reaped.job_id, session=reaped.session, status=reaped.status.value)


def let_go(queue: JobQueue, files: JobStore, journal: Journal) -> None:
    """Let jobs and files go when their retention is over; a second worker finds nothing left."""
    swept = sweep(queue, files, Retention())
    if swept.jobs or swept.files:
        journal.say("swept", jobs=swept.jobs, files=swept.files)


def let_go_of_handovers(files: JobStore, journal: Journal) -> None:
    """Let go of what lies in the cluster's own storage for too long: nobody but its boxes reaches it."""
    swept = sweep_handovers(files, Retention())
    if swept:
        journal.say("handovers-swept", files=swept)


def for_the_fleet(queue: JobQueue, files: JobStore, timing: Timing, journal: Journal) -> tuple[Periodic, ...]:
    """Return what is done now and then for all who share the queue; where there is a gateway, it does that."""
    reaper = Reaper(queue, timing)
    return (
        Periodic("reaper", partial(reap, reaper, journal), timing.beat_s, journal),
        Periodic("retention", partial(let_go, queue, files, journal), SWEEP_EVERY_S, journal),
        Periodic("dropped states", partial(_let_go_of_states, queue, files), timing.lease_s, journal),
    )


def _let_go_of_states(queue: JobQueue, files: JobStore) -> None:
    delete_dropped(queue, files)


def forget_old(folder: Path, kept_s: float) -> None:
    """Remove what lies in a folder for longer than that; other workers may do so at the same time."""
    for entry in folder.glob("*"):
        try:
            old = time.time() - entry.stat().st_mtime > kept_s
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(entry, ignore_errors=True)
