"""How an attempt on this box ended, and what to tell the queue of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo_runtime.jobs import Cause, JobError, Outcome
from modelrepo_runtime.supervision.spec import AdapterPath
from modelrepo_runtime.worker.holding import End
from modelrepo_runtime.worker.states import Resumed


@dataclass(frozen=True, slots=True)
class Brought:
    """The files of an attempt's inputs on this box, and how long it took to get them."""

    files: Mapping[str, Path]
    took_s: float = 0.0
    resumed: Resumed = field(default_factory=Resumed)
    """What an earlier attempt has saved."""
    adapters: tuple[AdapterPath, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What to tell the queue of an attempt; `outcome` None hands it back, uncounted, for `cause`."""

    cause: Cause
    outcome: Outcome | None = None


def early(why: End) -> Ended:
    """Return how an attempt ends that was told to."""
    match why:
        case End.CANCELLED:
            return Ended(Cause.CANCELLED, Outcome(Cause.CANCELLED))
        case End.LOST:
            return Ended(Cause.WORKER_LOST)
        case End.PREEMPTED:
            return Ended(Cause.PREEMPTED)


def failed(cause: Cause, code: str, error: Exception, log_key: str | None = None, runtime_s: float = 0.0) -> Ended:
    """Return how an attempt ends by what happened here rather than in the model."""
    told = JobError(code, " ".join(str(error).split()))
    return Ended(cause, Outcome(cause, error=told, log_key=log_key, runtime_s=runtime_s))
