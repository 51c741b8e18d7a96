"""`/v1/jobs`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from modelrepo.errors import InvalidInput, JobNotFound
from modelrepo_runtime.gateway.access import Caller, Operator, Submitter, no_token
from modelrepo_runtime.gateway.logs import note
from modelrepo_runtime.gateway.news import Watch, face
from modelrepo_runtime.gateway.parts import Parts, PartsOf
from modelrepo_runtime.gateway.schemas import NAME_PATTERN, JobDocument, JobPage, SubmissionBody, faults
from modelrepo_runtime.gateway.showing import event, show
from modelrepo_runtime.gateway.submitting import submit
from modelrepo_runtime.jobs import Job, Status
from modelrepo_runtime.queue.port import JobFilter

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

SMALL_BYTES = 8 << 10
"""Of a submission that is checked in the event loop."""
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")
EVENT_SCHEMA = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "For `Last-Event-ID`."},
        "event": {"enum": ["job.queued", "job.started", "job.progress", "job.finished"]},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "The job."},
        "retry": {},
    },
}
"""Of one server-sent event."""
Filter = Annotated[str | None, Query(min_length=1, max_length=100, pattern=NAME_PATTERN)]
Prefer = Annotated[str | None, Header(max_length=200, description="`wait=30` waits so many seconds for the job's end.")]


@router.post(
    "",
    operation_id="submitJob",
    status_code=201,
    response_model=JobDocument,
    responses=faults(404, 409, 429),
    summary="Submit a job",
)
async def submit_job(
    body: SubmissionBody,
    request: Request,
    caller: Submitter,
    parts: PartsOf,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$", description="The same again is the same job."),
    ] = None,
    prefer: Prefer = None,
) -> Response:
    """Check the inputs against the model's schema and queue the job.

    The same `Idempotency-Key` with the same body answers with the first job; with another body it is refused.
    """
    length = request.headers.get("content-length", "")
    small = length.isdigit() and int(length) <= SMALL_BYTES
    job = await submit(parts, caller, body, idempotency_key, small=small)
    return await _answer(parts, caller, request, job, prefer, 201)


@router.get("", operation_id="listJobs", response_model=JobPage, responses=faults(), summary="List jobs, newest first")
async def list_jobs(
    request: Request,
    caller: Submitter,
    parts: PartsOf,
    status: Annotated[Status | None, Query(description="Only in this state.")] = None,
    model: Filter = None,
    tier: Filter = None,
    tenant: Filter = None,
    older_than_s: Annotated[float | None, Query(ge=0, le=1e9, description="Only made so long ago.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> Response:
    """List the tenant's jobs; operators and tokens for any tenant see those of all."""
    own = caller.grant.tenant
    if own is not None and tenant not in (None, own):
        return JSONResponse({"jobs": [], "next": None})
    if after is not None:
        try:
            await _own(parts, caller, after)
        except JobNotFound as error:  # as well where it is another tenant's, which the queue would not mind
            raise InvalidInput(
                "cannot list what comes after that job: there is none; begin with the first page"
            ) from error
    where = JobFilter(status, model, tier, own or tenant, older_than_s, limit + 1, before=after)
    found = await parts.queue_calls.run(parts.queue.list, where)
    base_url = parts.base_url(request)
    jobs = [show(parts, job, base_url) for job in found[:limit]]
    return JSONResponse({"jobs": jobs, "next": found[limit - 1].id if len(found) > limit else None})


@router.get(
    "/{job_id}", operation_id="getJob", response_model=JobDocument, responses=faults(404), summary="Look at a job"
)
async def get_job(job_id: str, request: Request, caller: Submitter, parts: PartsOf, prefer: Prefer = None) -> Response:
    """Return the job as it is now, or once it has ended with `Prefer: wait=..`."""
    job = await _own(parts, caller, job_id)
    return await _answer(parts, caller, request, job, prefer, 200)


@router.delete(
    "/{job_id}", operation_id="deleteJob", status_code=204, responses=faults(404, 409), summary="Delete a job at once"
)
async def delete_job(job_id: str, caller: Submitter, parts: PartsOf) -> Response:
    """Forget the job with its payload and files. One that runs must be cancelled first."""
    job = await _own(parts, caller, job_id)
    deleted = await parts.queue_calls.run(parts.queue.delete, job.id)
    await parts.store_calls.run(parts.client.forget, deleted)
    return Response(status_code=204)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancelJob",
    response_model=JobDocument,
    responses=faults(404),
    summary="Cancel a job",
)
async def cancel_job(job_id: str, request: Request, caller: Submitter, parts: PartsOf) -> Response:
    """End a queued job; ask a running one to stop. One that has ended stays as it is."""
    job = await _own(parts, caller, job_id)
    cancelled = await parts.queue_calls.run(parts.queue.cancel, job.id)
    return JSONResponse(show(parts, cancelled, parts.base_url(request)))


@router.get(
    "/{job_id}/events",
    operation_id="watchJob",
    responses={
        **faults(404),
        200: {
            "description": "`job.queued`, `job.started`, `job.progress`, `job.finished`; data: the job.",
            "content": {"text/event-stream": {"schema": EVENT_SCHEMA}},
        },
    },
    response_class=StreamingResponse,
    summary="Watch a job",
)
async def watch_job(
    job_id: str,
    request: Request,
    caller: Submitter,
    parts: PartsOf,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> Response:
    """Send the job now and after each change, until it has ended: server-sent events.

    With `Last-Event-ID` the first one is sent only where the job has changed since.
    """
    job = await _own(parts, caller, job_id)
    stream = _events(parts, caller, job, parts.base_url(request), last_event_id)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@router.get(
    "/{job_id}/log",
    operation_id="getJobLog",
    response_class=Response,
    responses={**faults(404), 200: {"description": "What it printed.", "content": {"text/plain": {}}}},
    summary="Read a job's log",
)
async def get_job_log(job_id: str, caller: Operator, parts: PartsOf) -> Response:
    """Return what the last ended attempt printed; empty where nothing is kept. For operators alone."""
    job = await _own(parts, caller, job_id)
    text = await parts.store_calls.run(parts.client.log_of, job)
    return Response(text, media_type="text/plain")


async def _own(parts: Parts, caller: Caller, job_id: str) -> Job:
    try:
        if not JOB_ID.fullmatch(job_id):
            raise JobNotFound
        note(job=job_id)
        return caller.own(await parts.queue_calls.run(parts.queue.get, job_id))
    except JobNotFound as error:  # in the same words, whether there is none or it is another tenant's
        raise JobNotFound(f"no job {job_id[:64]!a}; it may have been deleted") from error


async def _answer(
    parts: Parts, caller: Caller, request: Request, job: Job, prefer: str | None, status: int
) -> Response:
    headers = {"Location": f"/v1/jobs/{job.id}"} if status == 201 else {}
    wait_s = _wait_s(prefer)
    if wait_s is not None:
        wait_s = min(wait_s, parts.settings.longest_wait_s)
        headers["Preference-Applied"] = f"wait={wait_s:g}"
        job = await _ended(parts, caller, job, wait_s)
    return JSONResponse(show(parts, job, parts.base_url(request)), status, headers)


def _wait_s(prefer: str | None) -> float | None:
    found = _WAIT.search(prefer or "")
    return float(found[1]) if found else None


@contextmanager
def _watching(parts: Parts, caller: Caller, job: Job, kind: str) -> Iterator[tuple[Watch, asyncio.Future[None]]]:
    """Watch a job, and the caller's token: the future is done, and the watch told, when that ends."""
    with (
        parts.metrics.waits.labels(kind).track_inprogress(),
        parts.news.watch(job.id) as watch,
        parts.tokens.waiting(caller.token_id) as lapsed,
    ):
        lapsed.add_done_callback(lambda _: watch.tell())
        yield watch, lapsed


async def _ended(parts: Parts, caller: Caller, job: Job, wait_s: float) -> Job:
    """Wait for a job's end, holding no thread; return it as it is when the time is over. Raises: Unauthenticated."""
    until = time.monotonic() + wait_s
    with _watching(parts, caller, job, "wait") as (watch, lapsed):
        while not job.status.ended and not parts.news.stopping and (left := until - time.monotonic()) > 0:
            await watch.changed(left)
            if lapsed.done():
                raise no_token()
            job = await parts.queue_calls.run(parts.queue.get, job.id)
    return job


async def _events(parts: Parts, caller: Caller, job: Job, base_url: str, last_id: str | None) -> AsyncIterator[str]:
    told, before = last_id, None
    with _watching(parts, caller, job, "events") as (watch, lapsed):
        yield "retry: 1000\n\n"
        while True:
            state = hashlib.sha256(repr(face(job)).encode()).hexdigest()[:16]
            if state != told:
                data = json.dumps(show(parts, job, base_url), separators=(",", ":"), ensure_ascii=False)
                yield f"id: {state}\nevent: {event(before, job)}\ndata: {data}\n\n"
                told, before = state, job.status.value
            if job.status.ended or parts.news.stopping:
                return
            asked = time.monotonic()
            await watch.changed(parts.settings.keep_alive_s)
            if lapsed.done():
                return
            if time.monotonic() - asked >= parts.settings.keep_alive_s:
                yield ": still here\n\n"
            try:
                job = await parts.queue_calls.run(parts.queue.get, job.id)
            except JobNotFound:
                return
