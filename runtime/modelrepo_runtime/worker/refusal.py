"""A version that a slot could not bring up: why, when it is tried again, and what a person can do."""

from __future__ import annotations

from dataclasses import dataclass

from modelrepo.errors import (
    Corrupt,
    EntrypointFailed,
    EnvironmentFailed,
    HostNeedUnmet,
    InterpreterMissing,
    InvalidInput,
    ModelRepoError,
    NoExtraFits,
    NoSpace,
    NotFound,
    SecretMissing,
    Unreachable,
)
from modelrepo_runtime.timing import Timing

# What comes back by itself is tried again sixty times sooner than what needs a person or another version.
TRANSIENT_SHARE = 1 / 60

_NEXT_ACTIONS: tuple[tuple[type[Exception], str], ...] = (
    (NoSpace, "free space on the cache's disk, or give the worker another --cache"),
    (Unreachable, "check the store and the network; the worker tries by itself"),
    (SecretMissing, "put the secret's file into --secrets-dir, or set MODELREPO_SECRET_<NAME>"),
    (NoExtraFits, "serve the model on another box, or push a version with an extra for this one"),
    (HostNeedUnmet, "install what is missing on this box"),
    (InterpreterMissing, "install that Python on this box"),
    (EnvironmentFailed, "see the message; push the version again, or repair the package index"),
    (EntrypointFailed, "see the child's log; roll back, or push a version that loads"),
    (Corrupt, "push the version again: the repository holds other bytes than were published"),
    (NotFound, "promote a version that exists"),
    (InvalidInput, "roll back, or push a version that this box can run"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why `target` does not run here; `retry_at`, on the monotonic clock, is when it is tried again."""

    target: str
    reason: str
    retry_at: float
    next_action: str
    tries: int = 1


def refuse(target: str, error: BaseException, *, now: float, before: Refusal | None, timing: Timing) -> Refusal:
    """Refuse `target` (a key of version and configuration) for `error`; another try of the same waits twice as long."""
    tries = before.tries + 1 if before is not None and before.target == target else 1
    share = TRANSIENT_SHARE if isinstance(error, Unreachable) else 1.0
    delay_s = min(timing.cordon_first_s * 2 ** (tries - 1), timing.cordon_longest_s) * share
    return Refusal(target, _one_line(error), now + delay_s, _next_action(error), tries)


def _next_action(error: BaseException) -> str:
    return next((action for kind, action in _NEXT_ACTIONS if isinstance(error, kind)), "see the worker's log")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text and isinstance(error, ModelRepoError) else f"{type(error).__name__}: {text}"
