"""Which jobs a command means: `--where KEY=VALUE`, the same for every command that takes many.

Conditions are joined by `and`. Keys: `model`, `tier`, `tenant`, `status`, and `older_than` with a length of time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import parameters
from modelrepo_cli.verbs import Call

if TYPE_CHECKING:
    from modelrepo_runtime.client import Client, JobObject

Command = TypeVar("Command", bound=Callable[..., Any])

WAITING = ("queued", "running")
ENDED = ("succeeded", "failed", "rejected", "cancelled", "expired")
STATUSES = (*WAITING, *ENDED)
KEYS = ("model", "tier", "tenant", "status", "older_than")


@dataclass(frozen=True, slots=True)
class JobsMeant:
    """What `--where` and its like say; a key that is None was not given."""

    model: str | None = None
    tier: str | None = None
    tenant: str | None = None
    status: str | None = None
    older_than_s: float | None = None
    limit: int = 100

    @property
    def narrows(self) -> bool:
        """Whether anything but the number of jobs is said."""
        return replace(self, limit=0) != JobsMeant(limit=0)

    def facts(self) -> dict[str, Any]:
        """Return what `Client.list` takes, but the status."""
        return {"model": self.model, "tier": self.tier, "tenant": self.tenant, "older_than_s": self.older_than_s}

    def among(self, client: Client, statuses: Sequence[str], what: str) -> list[JobObject]:
        """List matching jobs in any of these states; `what` says in errors what is to be done to them.

        Raises: InvalidInput where a status is asked for that is none of them.
        """
        if self.status is not None and self.status not in statuses:
            raise InvalidInput(f"cannot {what} jobs that are {self.status}: only those that are {', '.join(statuses)}")
        found: list[JobObject] = []
        for status in (self.status,) if self.status is not None else statuses:
            if len(found) < self.limit:
                found += client.list(status=status, limit=self.limit - len(found), **self.facts())
        return found


def filter_options(limit: int) -> Callable[[Command], Command]:
    """Give a command `--where`, `--older-than` and `--limit`; `meant` reads them."""

    def decorate(function: Command) -> Command:
        for option in (
            click.option(
                "--limit",
                type=click.IntRange(1),
                metavar="N",
                default=limit,
                show_default=True,
                help="At most so many.",
            ),
            click.option(
                "--older-than", type=parameters.DURATION, metavar="TIME", help="Only made at least that long ago."
            ),
            click.option(
                "--where",
                "conditions",
                multiple=True,
                metavar="KEY=VALUE",
                help="Only where model=, tier=, tenant=, status= or older_than= is this; repeat it, all must hold.",
            ),
        ):
            function = option(function)
        return function

    return decorate


def meant(conditions: Sequence[str], older_than: float | None, limit: int, **named: str | None) -> JobsMeant:
    """Read conditions, and options that say the same.

    Raises: InvalidInput for a key that is not known, a value that it cannot have, or one that is said twice.
    """
    said: dict[str, Any] = parameters.assignments(conditions, "--where")
    for key in said:
        if key not in KEYS:
            raise InvalidInput(f"cannot filter jobs by {key!r}: --where takes {', '.join(f'{key}=' for key in KEYS)}")
    if "older_than" in said:
        said["older_than"] = parameters.DURATION.convert(said["older_than"], None, None)
    for key, value in {**named, "older_than": older_than}.items():
        if value is not None and said.setdefault(key, value) != value:
            raise InvalidInput(f"cannot filter jobs by two values of {key}: {said[key]} and {value}; leave one out")
    if said.get("status") not in (None, *STATUSES):
        raise InvalidInput(f"no job is ever {said['status']!r}: a status is one of {', '.join(STATUSES)}")
    said["older_than_s"] = said.pop("older_than", None)
    return JobsMeant(**said, limit=limit)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The jobs that a command is to do something to: by id, or by what they have in common."""

    jobs: tuple[str, ...]
    which: JobsMeant


def jobs_to(what: str) -> Callable[[Command], Callable[..., Any]]:
    """Give a command `[JOB]...` and what describes jobs, as `chosen`; `what` says in errors what it does to them."""

    def decorate(function: Command) -> Callable[..., Any]:
        @wraps(function)
        def choose(
            call: Call,
            *,
            jobs: tuple[str, ...],
            conditions: tuple[str, ...],
            older_than: float | None,
            limit: int,
            **more: Any,
        ) -> Any:
            which = meant(conditions, older_than, limit)
            one_way(jobs, which, what)
            return function(call, chosen=Chosen(jobs, which), **more)

        return click.argument("jobs", nargs=-1, metavar="[JOB]...")(filter_options(1000)(choose))

    return decorate


def one_way(jobs: Sequence[str], which: JobsMeant, what: str) -> None:
    """Raises: InvalidInput unless jobs are either named or described."""
    if bool(jobs) == which.narrows:
        raise InvalidInput(f"cannot tell which jobs to {what}: name them, or say --where or --older-than; not both")
