"""What a finish does to its job: decided here once, carried out by every adapter."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelrepo.errors import InvalidInput, StaleFence
from modelrepo_runtime.attempts import Attempt, decide, kept_away_from
from modelrepo_runtime.jobs import (
    MOST_ADAPTERS,
    Adapter,
    Cause,
    Fence,
    JobError,
    Json,
    Outcome,
    StageNeed,
    Status,
    Submission,
)
from modelrepo_runtime.queue.outbox import check_webhook
from modelrepo_runtime.timing import Timing

BEATS_LEFT_OUT = 2
"""A lease that so many beats leave out, and that is old enough, was never told to its session."""
SILENT_FORGOTTEN_S = 7 * 24 * 3600.0
"""A session that holds nothing is forgotten after this silence."""
MOST_RESTARTS = 2
"""Times that a job may begin again because the version of its first stage is served nowhere."""
AFTER_NO_CLAIM = -1
"""`seq` of leases that a finish gave."""
NO_ANSWER = Outcome(Cause.PREEMPTED, counted=False)
"""How an attempt ends whose session never heard of it, or has said goodbye."""
CLOCK_STEP_S = 1e-6
"""Between the `enqueued` of two jobs of one instant: they go in the order they came."""
EXPIRED = JobError("expired", "the job's deadline passed before it was done")
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
LARGEST_RESULT_BYTES = 256 * 1024
_ADAPTERS = "/adapters"
"""No input has such a name: it would be no key of a file."""
LARGEST_INPUTS_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Held:
    """A lease and its job, as far as the next step depends on them."""

    stage_index: int
    last_stage: bool
    attempt: int
    version: str
    wanted: str | None
    deadline: float | None
    cancel_requested: bool
    slot: str
    box: str


@dataclass(frozen=True, slots=True)
class Step:
    """An end, or back into the queue at `stage_index`."""

    status: Status
    error: JobError | None = None
    stage_index: int = 0
    attempt: int = 1
    version: str | None = None
    """The only version that may take it now; None: any."""
    avoid: frozenset[str] = frozenset()
    delay_s: float = 0.0


def step_after(held: Held, outcome: Outcome, earlier: Sequence[Attempt], now: float, timing: Timing) -> Step:
    """Return what becomes of a job after an attempt. `earlier` does not matter where it succeeded at the last stage."""
    if held.cancel_requested:
        return Step(Status.CANCELLED)
    if outcome.cause is Cause.SUCCEEDED:
        if held.last_stage:
            return Step(Status.SUCCEEDED)
        if _late(held, now):
            return Step(Status.EXPIRED, EXPIRED)
        avoid = kept_away_from(earlier)
        return Step(Status.QUEUED, stage_index=held.stage_index + 1, version=held.version, avoid=avoid)
    decision = decide(outcome, Attempt(outcome.cause, outcome.counted, held.slot, held.box), earlier, timing)
    if decision.ends_as is not None:
        return Step(decision.ends_as, decision.error)
    if _late(held, now):
        return Step(Status.EXPIRED, EXPIRED)
    return Step(
        Status.QUEUED,
        stage_index=held.stage_index,
        attempt=held.attempt + 1,
        version=held.version if held.stage_index else held.wanted,
        avoid=decision.avoid,
        delay_s=decision.delay_s,
    )


def _late(held: Held, now: float) -> bool:
    return held.deadline is not None and held.deadline <= now


def lost_outcome(worker: str) -> Outcome:
    """Return how an attempt ends whose worker fell silent for a whole lease."""
    return Outcome(
        Cause.WORKER_LOST, error=JobError("worker_lost", f"worker {worker} was lost while it ran the job", True)
    )


def enqueued_after(newest: float | None, now: float) -> float:
    """Return the moment that waits are counted from: later than the newest job's, even if the clock went back."""
    return now if newest is None else max(now, newest + CLOCK_STEP_S)


def stale(job_id: str, fence: Fence) -> StaleFence:
    """Return the error for a write by somebody who does not hold the lease."""
    return StaleFence(f"cannot write to {job_id} with fence {fence}: the attempt is not leased to it; drop its work")


def shown_progress(fraction: float | None, message: str | None) -> tuple[float | None, str | None]:
    """Return progress as it can be stored and shown, whatever a model says: a fraction from 0 to 1, valid Unicode."""
    part = None if fraction is None or math.isnan(fraction) else min(1.0, max(0.0, fraction))
    return part, None if message is None else message.encode("utf-8", "replace").decode()


def check_submission(submission: Submission, key: str | None = None) -> None:
    """Refuse what no queue can hold. Raises: InvalidInput."""
    _check_names(submission, key)
    if not submission.stages:
        raise InvalidInput(f"cannot submit a job for {submission.model}: it has no stages; push the model again")
    if submission.webhook is not None:
        check_webhook(submission.webhook)
    if len(submission.adapters) > MOST_ADAPTERS:
        raise InvalidInput(
            f"cannot submit a job for {submission.model}: {len(submission.adapters)} adapters; {MOST_ADAPTERS} at most"
        )
    if submission.deadline is not None and not math.isfinite(submission.deadline):
        raise InvalidInput(f"cannot submit a job for {submission.model}: deadline {submission.deadline} is no time")
    try:
        size = len(json.dumps([submission.inputs, submission.metadata], allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"cannot submit a job for {submission.model}: its inputs are not JSON ({error})") from error
    if size > LARGEST_INPUTS_BYTES:
        raise InvalidInput(
            f"cannot submit a job for {submission.model}: inputs and metadata are {size} bytes, the limit is"
            f" {LARGEST_INPUTS_BYTES}; hand large data over as files"
        )


def _check_names(submission: Submission, key: str | None) -> None:
    named = {"model": submission.model, "tier": submission.tier, "tenant": submission.tenant}
    for what, text in {**named, "version": submission.version, "idempotency key": key}.items():
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"cannot submit a job: its {what} {text!a} is no valid Unicode") from error


def check_result(outcome: Outcome, text: str) -> None:
    """Refuse a result that is too large; `text` is the outcome as JSON. Raises: InvalidInput."""
    if len(text) > LARGEST_RESULT_BYTES and len(json.dumps(outcome.result)) > LARGEST_RESULT_BYTES:
        raise InvalidInput(
            f"output too large: the result is {len(json.dumps(outcome.result))} bytes of JSON, the limit is"
            f" {LARGEST_RESULT_BYTES}; write large data to a file with job.output()"
        )


def outcome_text(outcome: Outcome) -> str:
    """Return an outcome as one line of JSON. Raises: InvalidInput."""
    try:
        text = _COMPACT.encode(outcome.to_json())
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"cannot finish the job: its result is not JSON ({error})") from error
    check_result(outcome, text)
    return text


def digest_of(text: str) -> str:
    """Return the digest by which a repeated finish is told from a different one."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def body_digest(submission: Submission) -> str:
    """Return the digest by which a repeated submission is told from a different one under the same key."""
    body: dict[str, Json] = {
        "model": submission.model,
        "inputs": dict(submission.inputs),
        "tier": submission.tier,
        "version": submission.version,
        "deadline": submission.deadline,
        "metadata": dict(submission.metadata),
    }
    if submission.webhook is not None:
        body["webhook"] = submission.webhook.url
    if submission.adapters:
        body["adapters"] = [[adapter.sha256, adapter.weight] for adapter in submission.adapters]
    return digest_of(json.dumps(body, sort_keys=True, separators=(",", ":")))


def key_reused(key: str) -> InvalidInput:
    """Return the error for an idempotency key that came with another body before."""
    return InvalidInput(f"idempotency key {key!r} was used with another body; use a new key for a new job")


def write_files(files: Mapping[str, str], adapters: Sequence[Adapter]) -> str:
    """Write what lies in a job's JobStore as JSON: inputs by name, and adapters under a name that no input has."""
    more = {_ADAPTERS: [adapter.to_json() for adapter in adapters]} if adapters else {}
    return json.dumps({**files, **more})


def read_files(text: str) -> tuple[dict[str, str], tuple[Adapter, ...]]:
    """Read what `write_files` wrote."""
    if text == "{}":
        return {}, ()
    files = json.loads(text)
    return files, tuple(Adapter.from_json(one) for one in files.pop(_ADAPTERS, ()))


def write_stages(stages: Sequence[StageNeed]) -> str:
    """Write the plan of a job as JSON."""
    return json.dumps([stage.to_json() for stage in stages], separators=(",", ":"))
