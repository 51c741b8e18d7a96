"""How long jobs and their files are kept, tier by tier, and the sweep that holds to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelrepo.errors import Conflict, JobNotFound
from modelrepo_runtime.jobstore import JobStore, job_of
from modelrepo_runtime.queue.port import JobFilter, JobQueue, Tier

DAY_S = 24 * 3600.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages at which what has ended goes; a job that still waits or runs keeps all of its files."""

    files_s: float = 7 * DAY_S
    jobs_s: float = 30 * DAY_S

    def of(self, tier: Tier) -> Retention:
        """Return what holds for a tier: its own figures where it has any."""
        return Retention(
            self.files_s if tier.keep_files_s is None else tier.keep_files_s,
            self.jobs_s if tier.keep_jobs_s is None else tier.keep_jobs_s,
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep took away."""

    jobs: int
    files: int


def sweep(queue: JobQueue, files: JobStore, retention: Retention, clock: Callable[[], float] = time.time) -> Swept:
    """Forget ended jobs, with tenants that have none left, and delete files past their retention.

    Several may sweep at once. Raises: Unreachable.
    """
    by_tier = {tier.name: retention.of(tier) for tier in queue.tiers()}
    jobs = 0
    for tier, kept in by_tier.items():
        while found := _old_jobs(queue, tier, kept.jobs_s):
            gone = sum(_forget(queue, files, job_id) for job_id in found)
            jobs += gone
            if not gone:
                break  # another sweeper is at it
    queue.forget_accounts()
    now = clock()
    shortest_s = min([retention.files_s, *(kept.files_s for kept in by_tier.values())])
    swept = files.sweep(now - shortest_s, lambda job_id: now - _kept_s(queue, job_id, by_tier, retention))
    return Swept(jobs, swept)


def delete_dropped(queue: JobQueue, files: JobStore) -> int:
    """Delete saved states that nobody needs any more; return how many. Several may do so. Raises: Unreachable."""
    deleted = 0
    while keys := queue.dropped_states(PAGE):
        for key in keys:
            files.delete(key)
        for job_id in {job_of(key) for key in keys}:
            _delete_states_if_ended(queue, files, job_id)
        queue.forget_dropped_states(keys)
        deleted += len(keys)
    return deleted


def _delete_states_if_ended(queue: JobQueue, files: JobStore, job_id: str) -> None:
    try:
        job = queue.get(job_id)
    except JobNotFound:
        return  # all its files go with it
    if job.status.ended:
        files.delete_states(job_id, job.created_at)


def sweep_handovers(files: JobStore, retention: Retention, clock: Callable[[], float] = time.time) -> int:
    """Delete what stages left in a cluster's own storage, by age alone: its boxes may not ask for jobs of others.

    A stage deletes what it was handed over; what lies on is of jobs that ended elsewhere. Raises: Unreachable.
    """
    return files.sweep(clock() - retention.jobs_s)


def _old_jobs(queue: JobQueue, tier: str, age_s: float) -> list[str]:
    old = queue.list(JobFilter(tier=tier, older_than_s=age_s, ended=True, limit=PAGE))
    return [job.id for job in old]


def _forget(queue: JobQueue, files: JobStore, job_id: str) -> bool:
    try:
        deleted = queue.delete(job_id)
    except (JobNotFound, Conflict):
        return False
    files.delete_job(job_id, deleted.created_at)
    for key in deleted.files:
        files.delete(key)
    return True


def _kept_s(queue: JobQueue, job_id: str, by_tier: Mapping[str, Retention], retention: Retention) -> float:
    """Return how long a job's files are kept: for ever while it waits or runs, else as its tier says."""
    if not job_id:
        return retention.files_s
    try:
        job = queue.get(job_id)
    except JobNotFound:
        return retention.files_s
    return by_tier.get(job.tier, retention).files_s if job.status.ended else math.inf
