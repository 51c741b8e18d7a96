"""How long jobs and their files are kept, and the sweep that holds to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modelrepo.errors import Conflict, JobNotFound
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobFilter, JobQueue

DAY_S = 24 * 3600.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages at which what has ended goes; a job that still waits or runs keeps all of its files."""

    files_s: float = 7 * DAY_S
    jobs_s: float = 30 * DAY_S


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep took away."""

    jobs: int
    files: int


def sweep(queue: JobQueue, files: JobStore, retention: Retention, clock: Callable[[], float] = time.time) -> Swept:
    """Forget ended jobs and delete files past their retention. Several may sweep at once. Raises: Unreachable."""
    jobs = 0
    while found := _old_jobs(queue, retention.jobs_s):
        for job_id in found:
            jobs += _forget(queue, files, job_id)
    return Swept(jobs, files.sweep(clock() - retention.files_s, spare=lambda job_id: _is_open(queue, job_id)))


def _old_jobs(queue: JobQueue, age_s: float) -> list[str]:
    old = queue.list(JobFilter(older_than_s=age_s, ended=True, limit=PAGE))
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


def _is_open(queue: JobQueue, job_id: str) -> bool:
    try:
        return not queue.get(job_id).status.ended
    except JobNotFound:
        return False
