"""Notice time that passed while the process was stopped: SIGSTOP, a laptop's lid, a frozen control group."""

from __future__ import annotations

import time

# Linux has a clock of its own for it; on macOS CLOCK_MONOTONIC counts sleep, which time.monotonic() does not.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Return seconds of a clock that also runs while the box is suspended and cannot be set."""
    return time.clock_gettime(_CLOCK)


def must_renew(requested_at: float, now: float, lease_s: float) -> bool:
    """Tell whether a lease, asked for at `requested_at`, is too old to start work on without renewing it.

    The lease may begin as early as the request was sent, so half of it may be gone before we see the answer.
    """
    return now - requested_at > lease_s / 2
