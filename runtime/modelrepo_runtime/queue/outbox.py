"""Events on their way to webhooks: what waits, when it is tried again, and when it is given up.

An event is written in the transaction of the change that it tells of, so none is lost and none tells of what was taken
back. Any number of senders take events with a short lease and settle them; each is delivered at least once, the events
of one job in their order. Receivers tell repeats by `message`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlsplit

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import Job, JobError, Json, Status, Webhook

PROGRESS_EVERY_S = 1.0
"""A job's progress is told at most this often; what comes between is told with the next."""
WAITS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 5400.0, 14_400.0, 25_200.0, 38_845.0)
"""Between ten tries: a blip costs seconds, an outage of a day is outlasted. They add up to 24 h."""
TRIES = len(WAITS_S) + 1
LEASE_S = 60.0
"""How long a sender has for one try; then another may take the event."""
SHORTEST_SECRET_BYTES, LONGEST_SECRET_BYTES = 16, 512
LONGEST_URL = 2048


class EventKind(StrEnum):
    """What a webhook is told of."""

    STARTED = "job.started"
    PROGRESS = "job.progress"
    FINISHED = "job.finished"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event, taken to be sent."""

    id: int
    message: str
    """`msg_..`: the same through all tries of this event."""
    kind: str
    at: float
    """When it happened."""
    webhook: Webhook
    tries: int
    """How often it was tried before."""
    job: Job
    """The job as it was then."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An event that waits for another try, or that was given up."""

    message: str
    job_id: str
    kind: str
    url: str
    at: float
    tries: int
    error: str | None
    """What came of the last try."""
    due: float | None
    """When it is tried again; None: given up."""


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How far the senders are behind."""

    waiting: int
    oldest_age_s: float | None
    given_up: int


class Outbox(Protocol):
    """The part of a JobQueue that senders of webhooks use."""

    def take_deliveries(
        self, holder: str, limit: int, *, lease_s: float = LEASE_S, per_host: int = 4, avoid: Sequence[str] = ()
    ) -> tuple[Delivery, ...]:
        """Take events that are due, oldest first, at most `per_host` for each host, none for the hosts of `avoid`.

        Nobody else gets them within `lease_s`. Of one job only the oldest event is handed out.
        """

    def settle_delivery(
        self, delivery_id: int, holder: str, error: str | None = None, *, again_in_s: float | None = None
    ) -> bool:
        """Say what came of a try: no error is delivered; else it is tried again in `again_in_s`, or given up where that
        is None. False where the event is not this holder's any more; nothing changes then.
        """

    def drop_deliveries(self, job_id: str, reason: str) -> int:
        """Give up all events of a job, and tell it no more: its receiver is gone for good. Returns how many waited."""

    def outbox(self) -> OutboxState:
        """Return how many events wait, and how many were given up and are still remembered."""

    def undelivered(self, *, limit: int = 100) -> tuple[Undelivered, ...]:
        """Return the events that were tried in vain or given up, newest first."""


def check_webhook(webhook: Webhook) -> None:
    """Raises: InvalidInput for a URL that is not http(s) or a secret that is no `whsec_` and base64."""
    parts = urlsplit(webhook.url)
    if parts.scheme not in ("https", "http") or not parts.hostname or len(webhook.url) > LONGEST_URL:
        raise InvalidInput(f"cannot take webhook {webhook.url[:100]!r}: give an https URL with a host")
    if parts.username is not None or any(letter.isspace() or not letter.isprintable() for letter in webhook.url):
        raise InvalidInput(f"cannot take a webhook on {parts.hostname}: its URL holds a password or a blank")
    secret_key(webhook.secret)


def secret_key(secret: str) -> bytes:
    """Return the key that a `whsec_..` secret holds. Raises: InvalidInput; the message does not hold the secret."""
    body = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if body == secret or not SHORTEST_SECRET_BYTES <= len(key) <= LONGEST_SECRET_BYTES:
        raise InvalidInput(
            "cannot take the webhook's secret: write `whsec_` and the base64 of"
            f" {SHORTEST_SECRET_BYTES} to {LONGEST_SECRET_BYTES} random bytes"
        )
    return key


def host_of(url: str) -> str:
    """Return the host and port that a webhook's events go to."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower()}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def next_wait_s(tries: int, *, jitter: float = 0.0, asked_s: float | None = None) -> float | None:
    """Return the wait after the `tries`-th try, None where it was the last one.

    `jitter` in -0.1..0.1 spreads the tries of one outage; `asked_s` is what the receiver asked for, heeded up to what
    is left of the 24 h.
    """
    if tries >= TRIES:
        return None
    planned = WAITS_S[tries - 1] * (1 + jitter)
    return max(planned, min(asked_s or 0.0, sum(WAITS_S[tries - 1 :])))


def as_of(job: Job, facts: dict[str, Json]) -> Job:
    """Return a job as an event tells of it: what has become of it since is left out."""
    status = Status(facts["status"])
    error = JobError.from_json(facts["error"]) if facts.get("error") else None
    then = replace(
        job,
        status=status,
        stage=facts.get("stage"),
        attempt=facts.get("attempt", job.attempt),
        version=facts.get("version") or job.version,
        progress=facts.get("progress"),
        message=facts.get("message"),
        finished_at=facts.get("finished_at"),
        error=error,
        position=None,
        slo_share=None,
    )
    if status.ended and job.status is status:
        return then
    return replace(then, result=None, outputs=(), log_key=None)
