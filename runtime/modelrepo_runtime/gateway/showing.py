"""Jobs as the gateway shows them: the job object, its outputs by URLs that run out."""

from __future__ import annotations

from typing import Any

from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.jobs import Job, Json


def show(parts: Parts, job: Job, base_url: str) -> dict[str, Json]:
    """Return the job object. Signs without asking the store."""
    return job.to_json({output.key: place(parts, output.key, base_url) for output in job.outputs})


def place(parts: Parts, key: str, base_url: str) -> tuple[str | None, float | None]:
    """Return a URL by which anybody may fetch a file, the store's own or the gateway's, and when it runs out."""
    url, expires_at = parts.files.place(key)
    if url is not None and not url.startswith("file:"):
        return url, expires_at
    return parts.signer.url(base_url, "GET", key, parts.settings.url_life_s)


def event(before: Any, job: Job) -> str:
    """Return the kind of event by which a job's new state is told."""
    if job.status.ended:
        return "job.finished"
    if job.status.value == "queued":
        return "job.queued"
    return "job.progress" if job.progress is not None or before == "running" else "job.started"
