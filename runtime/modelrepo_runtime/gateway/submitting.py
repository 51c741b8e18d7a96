"""Takes jobs in: what the token allows, how much may wait, and the same checks that an embedded client makes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_runtime.gateway.access import Caller
from modelrepo_runtime.gateway.addresses import AddressRefused
from modelrepo_runtime.gateway.logs import note
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.refusals import Overloaded
from modelrepo_runtime.gateway.schemas import SubmissionBody, WebhookBody
from modelrepo_runtime.jobs import Job, Submission, Webhook, stored_keys
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.submissions import Wanted


async def submit(parts: Parts, caller: Caller, body: SubmissionBody, key: str | None, *, small: bool) -> Job:
    """Queue a job for a caller. `small`: the body is so short that checking it takes no time.

    Raises: NotAllowed, TooManyQueued, Overloaded, and what `Client.submit` raises.
    """
    caller.check_model(body.model)
    tenant = caller.tenant_of(body.tenant)
    if caller.grant.tiers:
        caller.check_tier(body.tier, await parts.queue_calls.run(_default_tier, parts.queue))
    if parts.news.stopping:
        raise Overloaded("the gateway is about to stop; ask again", retry_after_s=1.0)
    room = nullcontext() if caller.grant.max_queued is None else parts.room.one_more(tenant, caller.grant.max_queued)
    async with room:
        wanted = partial(_prepare, parts, caller, body, tenant)
        job = await _take_in(parts, body, wanted, key, small)
    note(job=job.id)
    parts.metrics.submissions.labels(job.model, job.tier).inc()
    return job


async def _take_in(
    parts: Parts, body: SubmissionBody, prepare: Callable[[], Submission], key: str | None, small: bool
) -> Job:
    if (
        small
        and body.webhook is None
        and not body.adapters
        and parts.submissions.is_at_hand(body.model, body.version, body.inputs)
    ):
        submission = prepare()  # a fraction of what going to a thread and back would take
    else:
        submission = await parts.store_calls.run(prepare)
    try:
        job = await parts.queue_calls.run(parts.queue.submit, submission, idempotency_key=key)
    except Unreachable:
        raise  # it may have become a job all the same; files that no job has go by age
    except Exception:
        await parts.store_calls.run(parts.submissions.drop, submission)
        raise
    if job.id != submission.job_id and stored_keys(submission.files, submission.adapters):
        await parts.store_calls.run(parts.submissions.drop, submission)
    return job


def _prepare(parts: Parts, caller: Caller, body: SubmissionBody, tenant: str) -> Submission:
    deadline = body.deadline.timestamp() if body.deadline is not None else None
    webhook = _webhook(parts, body.webhook)
    may_name = partial(parts.uploads.is_open_to, caller.grant.tenant)
    adapters = [one.model_dump(exclude_none=True) for one in body.adapters]
    wanted = Wanted(body.tier, tenant, body.version, deadline, body.metadata, webhook, adapters, may_name)
    return parts.submissions.prepare(body.model, body.inputs, wanted)


def _webhook(parts: Parts, told: WebhookBody | None) -> Webhook | None:
    if told is None:
        return None
    try:
        parts.rules.target(told.url)
    except AddressRefused as error:
        raise InvalidInput(f"webhook: {error}") from error
    except Unreachable:
        pass  # a name server may be away for now; the address is judged again at each delivery
    return Webhook(told.url, told.secret)


def _default_tier(queue: JobQueue) -> str:
    return next((tier.name for tier in queue.tiers() if tier.default), "")
