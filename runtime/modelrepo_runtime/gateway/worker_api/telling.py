"""The log's lines about attempts: which job was claimed by whom, and how each attempt ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from modelrepo_runtime.gateway.logs import note
from modelrepo_runtime.jobs import Claim, Fence, Outcome

log = logging.getLogger(__name__)

ENDS = frozenset({"finish", "hand_back"})


def claimed(claims: Sequence[Claim]) -> None:
    """Write a line for each lease that is handed out."""
    for claim in claims:
        facts = {"job": claim.job_id, "attempt": str(claim.fence), "model": claim.model, "version": claim.version}
        facts |= {"stage": claim.stage, "slot": claim.slot}
        log.info("claimed", extra={"facts": facts})


def asked(arguments: Mapping[str, Any]) -> None:
    """Name job and attempt in every line of a request that is about one."""
    job_id, fence = arguments.get("job_id"), arguments.get("fence")
    if isinstance(job_id, str):
        note(job=job_id, attempt=str(fence) if isinstance(fence, Fence) else None)


def done(call: str, arguments: Mapping[str, Any]) -> None:
    """Write a line for each attempt that a call has ended."""
    if call in ENDS:
        outcome = arguments.get("outcome")
        cause = outcome.cause if isinstance(outcome, Outcome) else arguments.get("cause")
        _ended(arguments["job_id"], arguments["fence"], cause)
    elif call == "finish_all":
        for job_id, fence, outcome in arguments["ends"]:
            _ended(job_id, fence, outcome.cause)


def _ended(job_id: str, fence: Fence, cause: Any) -> None:
    log.info("ended", extra={"facts": {"job": job_id, "attempt": str(fence), "cause": str(cause)}})
