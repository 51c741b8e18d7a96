"""A job as people read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelrepo_cli.output import facts, size, table


def listing(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return jobs, each the job object of the API, as a table."""
    rows = [
        (job["id"], job["model"], job["version"] or "-", job["tier"], job["status"], job["stage"] or "-", note(job))
        for job in jobs
    ]
    return table(("JOB", "MODEL", "VERSION", "TIER", "STATUS", "STAGE", "NOTE"), rows) if rows else "no job"


def detail(job: Mapping[str, Any]) -> str:
    """Return everything about one job."""
    queue = job["queue"] or {}
    share = queue.get("slo_share")
    return facts(
        {
            "job": job["id"],
            "model": job["model"] + (f"@{job['version']}" if job["version"] else ""),
            "tier": job["tier"],
            "tenant": job["tenant"],
            "status": job["status"],
            "stage": job["stage"],
            "progress": None if job["progress"] is None else f"{job['progress']:.0%}",
            "message": job["message"],
            "position": queue.get("position"),
            "of its wait": None if share is None else f"{share:.0%} used",
            **_expected(job),
            "created": job["created_at"],
            "started": job["started_at"],
            "finished": job["finished_at"],
            "error": job["error"] and f"{job['error']['code']}: {job['error']['message']}",
            "result": None if job["result"] is None else json.dumps(job["result"], ensure_ascii=False),
            **{f"output {output['name']}": _output(output) for output in job["outputs"]},
            **{f"metadata {key}": value for key, value in job["metadata"].items()},
        }
    )


def _expected(job: Mapping[str, Any]) -> dict[str, object]:
    eta = job.get("eta") or {}
    starts = eta.get("start_at") if job["status"] == "queued" else None
    return {"starts about": starts, "ends about": eta.get("finish_at")}


def note(job: Mapping[str, Any]) -> str:
    """Return what is most worth knowing about a job, in a few words."""
    if job["error"]:
        return f"{job['error']['code']}: {job['error']['message']}"
    if job["status"] == "queued" and job["queue"] and job["queue"]["position"] is not None:
        return f"position {job['queue']['position']}"
    if job["progress"] is not None and job["status"] == "running":
        return f"{job['progress']:.0%} {job['message'] or ''}".rstrip()
    return ""


def moment(job: Mapping[str, Any]) -> str:
    """Return where a job is just now, on one line."""
    parts = [job["status"], job["stage"] if job["status"] == "running" else "", note(job)]
    return " ".join(part for part in parts if part)


def _output(output: Mapping[str, Any]) -> str:
    return f"{output['url'] or '(not fetched)'} ({size(output['bytes'])}, {output['content_type']})"
