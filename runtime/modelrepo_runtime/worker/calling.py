"""Run attempts in a child: one in a call, or a batch in one, and each alone where that call fails."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision.child import ChildGone, OnProgress
from modelrepo_runtime.supervision.spec import ChildOutcome, JobRequest
from modelrepo_runtime.worker.ends import Ended, early
from modelrepo_runtime.worker.holding import Held

# What an exception of a whole call says of its jobs: of one of them, perhaps.
_ALONE = frozenset({Cause.EXCEPTION, Cause.OUT_OF_MEMORY, Cause.REJECTED, Cause.RETRY, Cause.CANCELLED})


class Runs(Protocol):
    """The part of a child that an attempt uses."""

    def run(
        self,
        request: JobRequest,
        *,
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
        cancel_grace_s: float = ...,
    ) -> ChildOutcome: ...

    def run_batch(
        self,
        requests: Sequence[JobRequest],
        *,
        timeout_s: float | None,
        on_progress: Sequence[OnProgress | None] = ...,
        cancel_grace_s: float = ...,
    ) -> list[ChildOutcome]: ...

    def cancel(self, job_id: str | None = ...) -> None: ...

    def stop(self, grace_s: float = ...) -> object: ...


def run_all(
    child: Runs, requests: Sequence[tuple[Held, JobRequest]], cancel_grace_s: float
) -> Sequence[ChildOutcome | Ended]:
    """Run attempts at one stage in one call, and each alone where that fails without taking the child with it."""
    if len(requests) <= 1:
        return [_run_one(held, child, request, cancel_grace_s) for held, request in requests]
    together = _together(child, requests, cancel_grace_s)
    if any(isinstance(each, ChildOutcome) and each.cause in _ALONE for each in together):
        # One of them may be to blame, and only that one: each gets a call of its own.
        for _, request in requests:
            shutil.rmtree(request.output_dir, ignore_errors=True)
        return [
            _run_one(held, child, request, cancel_grace_s) if isinstance(each, ChildOutcome) else each
            for (held, request), each in zip(requests, together, strict=True)
        ]
    return together


def _together(
    child: Runs, requests: Sequence[tuple[Held, JobRequest]], cancel_grace_s: float
) -> list[ChildOutcome | Ended]:
    told = [held.run_with(partial(child.cancel, request.job_id)) for held, request in requests]
    going = [each for each, why in zip(requests, told, strict=True) if why is None]
    try:
        ran = iter(
            child.run_batch(
                [request for _, request in going],
                timeout_s=max(held.claim.timeout_s for held, _ in requests),
                on_progress=[held.progressed for held, _ in going],
                cancel_grace_s=cancel_grace_s,
            )
            if going
            else ()
        )
    except ChildGone:
        return [early(held.ended) if held.ended else Ended(Cause.PREEMPTED) for held, _ in requests]
    finally:
        for held, _ in requests:
            held.finishing()
    return [early(why) if why is not None else _uncounted(next(ran)) for why in told]


def _run_one(held: Held, child: Runs, request: JobRequest, cancel_grace_s: float) -> ChildOutcome | Ended:
    why = held.run_with(child.cancel)
    if why is not None:
        return early(why)
    try:
        return child.run(
            request,
            timeout_s=held.claim.timeout_s,
            on_progress=held.progressed,
            cancel_grace_s=cancel_grace_s,
        )
    except ChildGone:
        # It died between two jobs: this one never began.
        return early(held.ended) if held.ended else Ended(Cause.PREEMPTED)
    finally:
        held.finishing()


def _uncounted(outcome: ChildOutcome) -> ChildOutcome:
    """A child that a batch took with it is held against none of its jobs: a second try runs each alone."""
    return replace(outcome, counted=False) if outcome.cause in (Cause.CRASH, Cause.HANG) else outcome
