"""A version that a slot could not bring up: why, when it is tried again, and what a person can do."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from modelrepo.errors import (
    Corrupt,
    DeviceHeld,
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
    SwapHalted,
    Unreachable,
)
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.target import Target

# What comes back by itself is tried again sixty times sooner than what needs a person or another version.
TRANSIENT_SHARE = 1 / 60

_FREE_SPACE = "free space on the cache's disk, or give the worker another --cache"
_NEXT_ACTIONS: tuple[tuple[type[Exception], str], ...] = (
    (NoSpace, _FREE_SPACE),
    (Unreachable, "check the store and the network; the worker tries by itself"),
    (SecretMissing, "put the secret's file into --secrets-dir, or set MODELREPO_SECRET_<NAME>"),
    (NoExtraFits, "serve the model on another box, or push a version with an extra for this one"),
    (HostNeedUnmet, "install what is missing on this box"),
    (DeviceHeld, "see which process holds the device, and end it; the worker tries again by itself"),
    (SwapHalted, "see why those slots refused it; roll back, or push a version that loads"),
    (InterpreterMissing, "install that Python on this box"),
    (EnvironmentFailed, "see the message; push the version again, or repair the package index"),
    (EntrypointFailed, "see the child's log; roll back, or push a version that loads"),
    (Corrupt, "push the version again: the repository holds other bytes than were published"),
    (NotFound, "promote a version that exists"),
    (InvalidInput, "roll back, or push a version that this box can run"),
)
# What a person may mend without another version; whoever has, should not have to wait for the next try.
_MENDED_HERE = (
    OSError,
    SecretMissing,
    HostNeedUnmet,
    InterpreterMissing,
    EnvironmentFailed,
    EntrypointFailed,
    SwapHalted,
)
# What is the same on every box: code, checkpoints, environment. Other refusals are of this box alone.
_OF_THE_VERSION = (EntrypointFailed, EnvironmentFailed, Corrupt)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why `target` (its key) does not run here; `retry_at`, on the monotonic clock, is when it is tried again."""

    target: str
    reason: str
    retry_at: float
    next_action: str
    tries: int = 1


def refuse(target: Target, error: BaseException, *, now: float, before: Refusal | None, timing: Timing) -> Refusal:
    """Refuse `target` for `error`; another try of the same waits twice as long. `now`: the monotonic clock."""
    tries = before.tries + 1 if before is not None and before.target == target.key else 1
    share = TRANSIENT_SHARE if isinstance(error, Unreachable) else 1.0
    delay_s = min(timing.cordon_first_s * 2 ** (tries - 1), timing.cordon_longest_s) * share
    return Refusal(target.key, one_line(error), now + delay_s, _next_action(target, error), tries)


def speaks_against(error: BaseException) -> bool:
    """Tell whether a refusal is the version's own fault, as far as one slot can know."""
    return isinstance(error, _OF_THE_VERSION)


def _next_action(target: Target, error: BaseException) -> str:
    action = next((action for kind, action in _NEXT_ACTIONS if isinstance(error, kind)), "see the worker's log")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        action = _FREE_SPACE
    if isinstance(error, _MENDED_HERE) and not isinstance(error, Unreachable):
        action += f"; once that is mended, `modelrepo promote {target} --retry` has it tried at once"
    return action


def one_line(error: BaseException) -> str:
    """Return a reason in one line."""
    text = " ".join(str(error).split())
    return text if text and isinstance(error, ModelRepoError) else f"{type(error).__name__}: {text}"
