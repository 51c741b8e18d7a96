"""`modelrepo submit`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo.errors import InvalidInput, NotConverged
from modelrepo_cli import job_adapters, job_inputs, job_text, parameters
from modelrepo_cli.failures import JobUnsuccessful
from modelrepo_cli.output import span
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo_runtime.client import Client, JobObject
    from modelrepo_runtime.jobs import Webhook


@verb("repo", "queue", "files", "token")
@click.argument("reference", metavar="MODEL[@VERSION]")
@click.option("-i", "pairs", multiple=True, metavar="NAME=VALUE", help="One input, or NAME=@FILE; repeat it.")
@click.option(
    "--input", "source", metavar="@FILE|-", help="All inputs as a JSON object, from a file or standard input."
)
@click.option("--adapter", "adapters", multiple=True, metavar="SOURCE", help=job_adapters.SUBMITTED)
@click.option("--tier", metavar="NAME", help="The class of user; the default tier unless given.")
@click.option("--tenant", metavar="NAME", help="On whose behalf; a token's own tenant, or `default`, unless given.")
@click.option("--version", metavar="VERSION", help="Pin a version; the one that is active when it runs unless given.")
@click.option("--idempotency-key", metavar="KEY", help="Submitting twice with one key makes one job.")
@click.option("--deadline", type=parameters.DURATION, metavar="TIME", help="Let it expire after this time.")
@click.option("--webhook", "hook", metavar="URL", help="Where a gateway posts its start, its progress and its end.")
@click.option(
    "--webhook-secret-file",
    "secret_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the `whsec_..` that signs them [MODELREPO_WEBHOOK_SECRET].",
)
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the job and handed back; repeat it.")
@click.option(
    "--wait",
    "wait_s",
    type=parameters.DURATION,
    is_flag=False,
    flag_value="1h",
    metavar="[TIME]",
    help="Wait for its end, 1h unless said; exit 1 unless it succeeds, 6 when the time is over.",
)
def command(
    call: Call,
    reference: str,
    pairs: tuple[str, ...],
    source: str | None,
    adapters: tuple[str, ...],
    tier: str | None,
    tenant: str | None,
    version: str | None,
    idempotency_key: str | None,
    deadline: float | None,
    metadata: tuple[str, ...],
    hook: str | None,
    secret_file: Path | None,
    wait_s: float | None,
) -> None:
    """Send a job.

    Its inputs are checked and defaulted by the model's own schema before anything is queued.
    """
    kept = {key: parameters.scalar(text) for key, text in parameters.assignments(metadata, "--metadata").items()}
    model, pinned = _named(reference, version)
    webhook = _webhook(hook, secret_file)
    with call.client() as client:
        job = client.submit(
            model,
            job_inputs.read(pairs, source, client.schemas(model, pinned)),
            tier=tier,
            tenant=tenant,
            version=pinned,
            idempotency_key=idempotency_key,
            deadline=None if deadline is None else time.time() + deadline,
            metadata=kept,
            webhook=webhook,
            adapters=job_adapters.read(adapters),
        )
        if webhook is not None and not _by_gateway(call):
            call.output.note(
                "its webhook is told by a gateway, and by nobody until `modelrepo gateway` runs on this queue"
            )
        if wait_s is not None:
            call.output.note(f"{job['id']} is queued")
            job = _ended(client, job["id"], wait_s, watched=not call.output.as_json and sys.stderr.isatty())
    if wait_s is None:
        call.output.show(job, job["id"])
        return
    if job["status"] != "succeeded":
        why = f": {job['error']['code']}: {job['error']['message']}" if job["error"] else ""
        raise JobUnsuccessful(f"job {job['id']} ended {job['status']}{why}; see `modelrepo jobs logs {job['id']}`", job)
    call.output.show(job, job_text.detail(job))


def _by_gateway(call: Call) -> bool:
    from modelrepo_runtime.queue.opening import default_queue_url, is_gateway

    return is_gateway(default_queue_url(call.queue))


def _named(reference: str, version: str | None) -> tuple[str, str | None]:
    from modelrepo.names import parse_reference

    parsed = parse_reference(reference)
    if version is not None and parsed.version not in (None, version):
        raise InvalidInput(f"cannot submit to {reference} and --version {version} at once; leave one out")
    named = parsed.version if version is None else version
    return parsed.model, None if named == "active" else named


def _webhook(url: str | None, secret_file: Path | None) -> Webhook | None:
    from modelrepo_runtime.jobs import Webhook
    from modelrepo_runtime.queue.outbox import check_webhook

    if url is None:
        if secret_file is not None:
            raise InvalidInput("a webhook's secret says nothing without --webhook URL")
        return None
    if secret_file is not None:
        secret = parameters.read_text(secret_file, "--webhook-secret-file").strip()
    else:
        secret = os.environ.get("MODELREPO_WEBHOOK_SECRET", "").strip()
    if not secret:
        raise InvalidInput("a webhook needs a secret: --webhook-secret-file FILE, or MODELREPO_WEBHOOK_SECRET")
    webhook = Webhook(url, secret)
    check_webhook(webhook)
    return webhook


def _ended(client: Client, job_id: str, wait_s: float, *, watched: bool) -> JobObject:
    job = client.get(job_id)
    for job in client.events(job_id, timeout_s=wait_s):
        if watched:
            print(job_text.moment(job), file=sys.stderr)
    if job["status"] in ("queued", "running"):
        raise NotConverged(
            f"job {job_id} is still {job['status']} after {span(wait_s)} and goes on; "
            f"see `modelrepo jobs show {job_id}`"
        )
    return job
