"""`modelrepo queue`."""

from __future__ import annotations

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import queue_text
from modelrepo_cli.verbs import Call, VerbGroup, verb

POLICIES = ("slo-share", "lwdf-late", "strict", "fifo")


@click.group(cls=VerbGroup)
def command() -> None:
    """Look after the queue."""


@verb("queue", name="migrate")
@click.option(
    "--post", is_flag=True, help="Also what only follows once no gateway or worker of the version before is left."
)
def migrate(call: Call, post: bool) -> None:
    """Bring a queue on PostgreSQL up to date, or make a new one.

    First this, then the gateways, then the workers, then --post: so nothing has to be stopped. A queue in a file brings
    itself up to date.
    """
    from modelrepo_runtime.queue.opening import default_queue_url, is_gateway

    url = default_queue_url(call.queue)
    if is_gateway(url):
        raise InvalidInput(f"{url} is a gateway, which changes no schema; name the database itself with --queue")
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidInput(f"queue {url} is not on PostgreSQL; it is brought up to date by whoever opens it")
    from modelrepo_runtime.queue.postgres.migrating import migrate as run

    ran = run(url, post=post)
    call.output.show({"ran": ran}, "\n".join(f"ran {name}" for name in ran) or "up to date")


@verb("queue", "token", name="show")
@click.argument("model", required=False)
@click.option("--tier", metavar="NAME", help="Only lanes of this tier.")
def show(call: Call, model: str | None, tier: str | None) -> None:
    """Show how many jobs wait where, and what holds them back.

    A line is a lane: the jobs that are alike to every worker that may take them. OF SLO is the part of its tier's
    longest acceptable wait that the oldest has used; NEW ONES WAIT is predicted from the work ahead, the live slots and
    learnt times.
    """
    with call.job_queue() as queue:
        report = queue.queue_report(model, tier)
    call.output.show(queue_text.document(report), queue_text.report(report))


@verb("queue", "token", name="reset")
@click.argument("reference", metavar="MODEL@VERSION")
def reset(call: Call, reference: str) -> None:
    """Give a version that fails its jobs again, as if one had succeeded.

    For a cause that is gone and was not the version's: a file server that was down, a bad driver on some boxes.
    """
    model, at, version = reference.partition("@")
    if not (model and at and version):
        raise InvalidInput(f"cannot reset {reference!r}: say which version, as MODEL@VERSION")
    with call.job_queue() as queue:
        was_failing = queue.reset_version(model, version)
    text = f"{reference} gets jobs again" if was_failing else f"{reference} was not failing; nothing was changed"
    call.output.show({"model": model, "version": version, "was_failing": was_failing}, text)


@verb("queue", "token", name="policy")
@click.argument("name", required=False, type=click.Choice(POLICIES))
def policy(call: Call, name: str | None) -> None:
    """Show by which policy jobs are ranked, or choose one; jobs that wait are ranked by it at once.

    slo-share: by the share of its SLO that a lane's oldest job has used. lwdf-late, for overload: jobs that can still
    be in time before those that are late already. strict (the shortest SLO first) and fifo: for comparison.
    """
    from modelrepo_runtime.queue.rank import Policy

    with call.job_queue() as queue:
        if name is not None:
            queue.set_policy(Policy(name))
        found = queue.policy()
    call.output.show({"policy": found.value}, found.value)


@verb("queue", "token", name="pause")
@click.argument("model", required=False)
@click.option("--tier", metavar="NAME", help="Only this tier.")
def pause(call: Call, model: str | None, tier: str | None) -> None:
    """Give out no more jobs, of a model, of a tier or at all; what runs runs on, what is submitted waits."""
    with call.job_queue() as queue:
        paused = queue.pause(model, tier)
    call.output.show(paused, f"{_paused_words(model, tier)}: paused")


@verb("queue", "token", name="resume")
@click.argument("model", required=False)
@click.option("--tier", metavar="NAME", help="Only this tier.")
def resume(call: Call, model: str | None, tier: str | None) -> None:
    """Give out jobs again that were paused in just these words."""
    with call.job_queue() as queue:
        resumed, left = queue.resume(model, tier), queue.pauses()
    said = "resumed" if resumed else "was not paused"
    still = "".join(f"\nstill paused: {_paused_words(each.model, each.tier)}" for each in left)
    call.output.show({"resumed": resumed, "pauses": left}, f"{_paused_words(model, tier)}: {said}{still}")


def _paused_words(model: str | None, tier: str | None) -> str:
    return f"{model or 'all models'}, {f'tier {tier}' if tier else 'all tiers'}"


for _verb in (show, policy, pause, resume, migrate, reset):
    command.add_command(_verb)
command.default_verb = "show"
