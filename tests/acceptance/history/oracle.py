"""Judges a history of a queue: what was submitted, what the queue says, and what workers wrote down of their own.

Every rule is a function that returns the violations it found, in words. None needs to know which faults there were.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelrepo_runtime.jobs import Fence
from modelrepo_runtime.queue.port import HistoryRow

SETTLED_S = 2.0
"""A row that was committed less than this before a claim may be overlooked by it."""
STEP_S = 1e-6
"""Moments that are nearer than this are one."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job as its submitter knows it; `enqueued` is the queue's own moment."""

    job_id: str
    tier: str
    enqueued: float


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a worker's own log."""

    worker: str
    event: str
    """claimed, accepted, refused."""
    job_id: str
    fence: Fence


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the rules look at."""

    submitted: Sequence[Submitted]
    statuses: Mapping[str, str]
    """Job -> its status in the end."""
    history: Sequence[HistoryRow]
    said: Sequence[Said]
    slo_s: Mapping[str, float]


def judge(evidence: Evidence) -> list[str]:
    """Return every violation of every rule."""
    return [
        *none_lost(evidence),
        *at_most_one_accepted(evidence),
        *fences_ordered(evidence),
        *workers_agree(evidence),
        *inversions(evidence),
    ]


def none_lost(evidence: Evidence) -> list[str]:
    """Every submitted job has succeeded, and nothing else is there."""
    found = [
        f"{job.job_id} ended as {evidence.statuses.get(job.job_id, 'nothing')}"
        for job in evidence.submitted
        if evidence.statuses.get(job.job_id) != "succeeded"
    ]
    strangers = evidence.statuses.keys() - {job.job_id for job in evidence.submitted}
    return found + [f"{job_id} was never submitted" for job_id in sorted(strangers)]


def at_most_one_accepted(evidence: Evidence) -> list[str]:
    """No two attempts at one job were accepted as its end."""
    accepted: dict[str, set[Fence | None]] = defaultdict(set)
    for row in evidence.history:
        if row.event == "attempt" and row.cause == "succeeded":
            accepted[row.job_id].add(row.fence)
    return [f"{job} was finished by {sorted(map(str, fences))}" for job, fences in accepted.items() if len(fences) != 1]


def fences_ordered(evidence: Evidence) -> list[str]:
    """A later attempt has a greater fence, no fence serves twice, and the accepted one is the last."""
    found: list[str] = []
    owner: dict[int, str] = {}
    for job, rows in _attempts(evidence.history).items():
        numbers = [row.fence.number for row in rows if row.fence is not None]
        if numbers != sorted(set(numbers)):
            found.append(f"{job} has its fences in the order {numbers}")
        if any(row.cause == "succeeded" for row in rows[:-1]):
            found.append(f"{job} went on after an accepted finish")
        for number in numbers:
            other = owner.setdefault(number, job)
            found += [f"fence {number} was given to {other} and to {job}"] * (other != job)
    return found


def workers_agree(evidence: Evidence) -> list[str]:
    """What a worker was told of as accepted is what the queue holds, and no fence was given to two workers."""
    accepted = {
        (row.job_id, row.fence) for row in evidence.history if row.event == "attempt" and row.cause == "succeeded"
    }
    found: list[str] = []
    holders: dict[Fence, str] = {}
    for line in evidence.said:
        if line.event == "accepted" and (line.job_id, line.fence) not in accepted:
            found.append(f"{line.worker} was told that {line.job_id} {line.fence} is accepted; it is not")
        if line.event == "refused" and (line.job_id, line.fence) in accepted:
            found.append(f"{line.worker} was refused {line.job_id} {line.fence}, which is accepted")
        if line.event == "claimed" and holders.setdefault(line.fence, line.worker) != line.worker:
            found.append(f"fence {line.fence} was claimed by {holders[line.fence]} and {line.worker}")
    return found


def inversions(evidence: Evidence) -> list[str]:
    """No first claim went to a job while one of a greater share had long been ready.

    Only first attempts are compared: a job that failed is delayed, and kept away from places. Claims of one instant are
    one batch. Share is (claim - enqueued) / SLO; a row counts from SETTLED_S after its `enqueued` on.
    """
    first: dict[str, float] = {}
    for row in evidence.history:
        if row.claimed_at is not None:
            first[row.job_id] = min(first.get(row.job_id, row.claimed_at), row.claimed_at)
    lines = {tier: _Line(evidence.submitted, tier, first) for tier in {job.tier for job in evidence.submitted}}
    found: list[str] = []
    for job in evidence.submitted:
        claimed = first.get(job.job_id, math.inf)
        for tier, line in lines.items():
            # Whoever entered before this moment had a greater share when `job` was claimed.
            before = claimed - (claimed - job.enqueued) / evidence.slo_s[job.tier] * evidence.slo_s[tier]
            passed = line.passed_over(min(before, claimed - SETTLED_S), claimed)
            if passed is not None and claimed < math.inf:
                found.append(f"{job.job_id} ({job.tier}) was claimed at {claimed:.3f} before {passed} ({tier})")
    return found


class _Line:
    """The jobs of a tier in the order of entering, with the latest first claim of all up to each."""

    def __init__(self, submitted: Iterable[Submitted], tier: str, first: Mapping[str, float]) -> None:
        mine = sorted((job.enqueued, job.job_id) for job in submitted if job.tier == tier)
        self._entered = [enqueued for enqueued, _ in mine]
        claims = [(first.get(job_id, math.inf), job_id) for _, job_id in mine]
        self._latest = list(itertools.accumulate(claims, max))

    def passed_over(self, before: float, at: float) -> str | None:
        """Return a job that entered before a moment and was first claimed only after `at`."""
        end = bisect.bisect_left(self._entered, before - STEP_S)
        claimed, job_id = self._latest[end - 1] if end else (-math.inf, "")
        return job_id if claimed > at + STEP_S else None


def _attempts(history: Iterable[HistoryRow]) -> dict[str, list[HistoryRow]]:
    rows: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in history:
        if row.event in ("attempt", "unanswered"):
            rows[row.job_id].append(row)
    return rows
