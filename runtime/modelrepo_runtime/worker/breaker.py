"""The slot breaker: a slot that fails three different jobs in a row takes no more until one probe succeeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelrepo_runtime.jobs import Cause

STREAK = 3

# Only what may be the slot's own fault counts; a rejection shows that the child works.
COUNTED = frozenset({Cause.CRASH, Cause.HANG, Cause.OUT_OF_MEMORY, Cause.EXCEPTION})
HEALTHY = frozenset({Cause.SUCCEEDED, Cause.REJECTED})


@dataclass(frozen=True, slots=True)
class Breaker:
    """One slot's record. Times are seconds of the caller's monotonic clock."""

    failed: tuple[str, ...] = ()
    cordoned_until: float | None = None
    trips: int = 0
    reason: str | None = None
    first_backoff_s: float = 60.0
    longest_backoff_s: float = 1800.0

    @property
    def cordoned(self) -> bool:
        return self.cordoned_until is not None

    def may_claim(self, now: float) -> bool:
        """Tell whether the slot may take a job; when its back-off is over, that job is the probe."""
        return self.cordoned_until is None or now >= self.cordoned_until

    def after(self, job_id: str, cause: Cause, *, last_stage: bool, now: float) -> Breaker:
        """Record how an attempt ended. A stage in the middle that succeeds says nothing about the job."""
        if cause in HEALTHY:
            return replace(self, failed=(), cordoned_until=None, trips=0, reason=None) if last_stage else self
        if cause not in COUNTED:
            return self
        failed = (*(known for known in self.failed if known != job_id), job_id)[-STREAK:]
        if not self.cordoned and len(failed) < STREAK:
            return replace(self, failed=failed)
        backoff_s = min(self.first_backoff_s * 2**self.trips, self.longest_backoff_s)
        told = f"the probe job {job_id}" if self.cordoned else f"{STREAK} different jobs in a row"
        return replace(
            self,
            failed=failed,
            cordoned_until=now + backoff_s,
            trips=self.trips + 1,
            reason=f"{told} failed here, the last by {cause.value}",
        )

    def swapped(self, now: float) -> Breaker:
        """Another version serves: its first job is the probe, at once."""
        return replace(self, failed=(), cordoned_until=now) if self.cordoned else replace(self, failed=())
