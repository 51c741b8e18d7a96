"""What becomes of a job after an attempt: SCHEDULER's table, as data, and the one function that reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelrepo_runtime.jobs import Cause, JobError, Outcome, Status
from modelrepo_runtime.timing import Timing


class Party(StrEnum):
    """Whom an attempt's end is held against."""

    JOB = "job"
    SLOT = "slot"
    VERSION = "version"
    SIZE_CLASS = "size_class"


class Elsewhere(StrEnum):
    """What the next try keeps away from, where another live worker may take the job."""

    ANYWHERE = "anywhere"
    OTHER_SLOT = "other_slot"
    OTHER_BOX = "other_box"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    tries: int | None
    """Counted attempts ended by any cause of this row before the job ends; None: no limit."""
    against: frozenset[Party]
    ends_as: Status
    elsewhere: Elsewhere = Elsewhere.ANYWHERE
    delayed: bool = True
    """The next try waits; a planned one (preemption) does not."""


def _against(*parties: Party) -> frozenset[Party]:
    return frozenset(parties)


_JOB, _SLOT, _VERSION = Party.JOB, Party.SLOT, Party.VERSION
_EXCEPTION = Rule(2, _against(_JOB), Status.FAILED, Elsewhere.OTHER_SLOT)
_CRASH = Rule(3, _against(_JOB, _SLOT, _VERSION), Status.FAILED, Elsewhere.OTHER_SLOT)

RULES: Mapping[Cause, Rule] = {
    Cause.SUCCEEDED: Rule(1, _against(), Status.SUCCEEDED),
    Cause.REJECTED: Rule(1, _against(), Status.REJECTED),
    Cause.CANCELLED: Rule(1, _against(), Status.CANCELLED),
    Cause.EXCEPTION: _EXCEPTION,
    Cause.RETRY: _EXCEPTION,
    Cause.OUT_OF_MEMORY: Rule(2, _against(_JOB, Party.SIZE_CLASS), Status.FAILED, Elsewhere.OTHER_SLOT),
    Cause.CRASH: _CRASH,
    Cause.HANG: _CRASH,
    Cause.LOAD_FAILED: Rule(None, _against(_SLOT, _VERSION), Status.FAILED, Elsewhere.OTHER_SLOT),
    Cause.PREEMPTED: Rule(None, _against(), Status.FAILED, delayed=False),
    Cause.WORKER_LOST: Rule(3, _against(_JOB), Status.FAILED, Elsewhere.OTHER_BOX),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended attempt at a job, since it was submitted or last sent back by hand."""

    cause: Cause
    counted: bool
    slot: str
    """`<worker>/<slot>`."""
    box: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Either an end, or another try."""

    ends_as: Status | None
    error: JobError | None = None
    delay_s: float = 0.0
    avoid: frozenset[str] = frozenset()
    """`slot:<worker>/<slot>` and `box:<host>`, to be kept away from while another live one may take it."""


_WORDS: Mapping[Cause, str] = {
    Cause.EXCEPTION: "the model raised an exception",
    Cause.RETRY: "the model asked for another try",
    Cause.OUT_OF_MEMORY: "the model ran out of memory",
    Cause.CRASH: "the model's process crashed",
    Cause.HANG: "the stage ran into its time limit",
    Cause.LOAD_FAILED: "the model did not load",
    Cause.PREEMPTED: "the worker was preempted",
    Cause.WORKER_LOST: "the worker was lost",
    Cause.CANCELLED: "the job was cancelled",
    Cause.REJECTED: "the model rejected the job",
}


def decide(outcome: Outcome, last: Attempt, earlier: Sequence[Attempt], timing: Timing) -> Decision:
    """Return what follows an attempt that did not simply succeed; `earlier` are the same job's ended attempts."""
    rule = RULES[outcome.cause]
    if outcome.cause in (Cause.SUCCEEDED, Cause.REJECTED, Cause.CANCELLED):
        return Decision(rule.ends_as, outcome.error)
    attempts = (*earlier, last)
    counted = [attempt for attempt in attempts if attempt.counted]
    alike = [attempt for attempt in counted if RULES[attempt.cause] is rule]
    if last.counted and rule.tries is not None and len(alike) >= rule.tries:
        return Decision(rule.ends_as, _last_error(outcome, len(alike)))
    delay_s = timing.retry_delay_s(len(counted)) if rule.delayed else 0.0
    return Decision(None, None, delay_s, kept_away_from(attempts))


def kept_away_from(attempts: Iterable[Attempt]) -> frozenset[str]:
    """Return the places that a job avoids after these attempts, at all of its stages; not where it was given back."""
    avoid: set[str] = set()
    for attempt in attempts:
        if not attempt.counted:
            continue
        match RULES[attempt.cause].elsewhere:
            case Elsewhere.OTHER_SLOT:
                avoid.add(f"slot:{attempt.slot}")
            case Elsewhere.OTHER_BOX:
                avoid.add(f"box:{attempt.box}")
            case Elsewhere.ANYWHERE:
                pass
    return frozenset(avoid)


def _last_error(outcome: Outcome, tries: int) -> JobError:
    if outcome.error is not None:
        return outcome.error
    return JobError(outcome.cause.value, f"{_WORDS[outcome.cause]}, {tries} times; see `modelrepo jobs logs`", True)
