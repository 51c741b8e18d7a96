"""A job that is being followed, and when to lose patience with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelrepo_runtime.jobs import Cause, Json

from .spec import JobRequest

OnProgress = Callable[[float, str | None], None]
OnPartial = Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Follow:
    """A job that is being followed, and its two deadlines."""

    request: JobRequest
    timeout_s: float | None
    cancel_grace_s: float
    on_progress: OnProgress | None
    on_partial: OnPartial | None
    began: float = field(default_factory=time.monotonic)

    def runtime_s(self) -> float:
        return time.monotonic() - self.began

    def earliest(self, cancel_asked_at: float | None) -> float | None:
        """When to look again, at the latest."""
        ends = [] if self.timeout_s is None else [self.began + self.timeout_s]
        if cancel_asked_at is not None:
            ends.append(cancel_asked_at + self.cancel_grace_s)
        return min(ends, default=None)

    def overdue(self, cancel_asked_at: float | None) -> tuple[Cause, str] | None:
        """Why the job must be ended now, if it must."""
        now = time.monotonic()
        if cancel_asked_at is not None and now >= cancel_asked_at + self.cancel_grace_s:
            return Cause.CANCELLED, f"cancelled; it did not return within {self.cancel_grace_s:g} s"
        if self.timeout_s is not None and now >= self.began + self.timeout_s:
            return Cause.HANG, f"stage {self.request.stage} was not done after {self.timeout_s:g} s"
        return None
