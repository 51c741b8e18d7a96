"""Fair shares among the tenants of a flow, the jobs of one model and tier: start-time fair queueing.

After Goyal, Vin and Cheng, "Start-time fair queueing" (1996). Every job gets a start tag S = max(v, F), its tenant's
next one starts at F = S + estimate / weight, and v is the largest tag that was claimed. The job of least tag goes
first. Tags are virtual accelerator-seconds, and never part of the rank of lanes.

Virtual time also passes with the clock, never slower, as in Zhang's "VirtualClock" (1990). It would stand still for as
long as tenants that are new come faster than their first jobs go, and every second job of a tenant would starve behind
them. So a tenant is sure of what one accelerator (times its weight) does, in the order of arrival.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

NOT_TOLD_APART = "default"
"""The tenant of jobs that name none: everybody together is nobody's flood, so it never stands back unless told to."""
UNKNOWN_ESTIMATE_S = 1.0
"""What a job is taken to need of which nothing was learnt."""


@dataclass(frozen=True, slots=True)
class FlowClock:
    """Virtual time of a flow."""

    v: float = 0.0
    """How far virtual time is ahead of the clock: the largest of (tag - moment) of the claims while nobody of less tag
    stood back. It never falls."""
    over_v: float = -math.inf
    """The largest tag claimed from the rows of tenants far ahead."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a flow knows of one tenant."""

    f: float = 0.0
    """The tag that its next job would start at, were the clock not past it."""
    tag: float = 0.0
    """The tag of its newest job: the next one does not go before it, though F was corrected."""
    over_tag: float = -math.inf
    """The tag of its newest job among those far ahead."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant is entitled to."""

    weight: float = 1.0
    burst_jobs: float = 10.0
    """How many of its jobs' estimates it may be ahead, in virtual time, before it stands back; may be infinite."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new job stands among its flow's."""

    tag: float
    over: bool
    """True: its tenant is far ahead, the job goes with spare capacity and one pick in ten."""
    account: Account
    """Its tenant's from now on."""


def enter(clock: FlowClock, account: Account, share: Share, estimate_s: float, now: float = 0.0) -> Place:
    """Return the place of a tenant's new job. `now` is the moment by the clock of all claims of the flow.

    A tenant of which jobs still stand back is joined by its new ones, so that they go in the order they came.
    """
    virtual = clock.v + now
    tag = max(virtual, account.f, account.tag)
    over = tag - virtual > share.burst_jobs * estimate_s or account.over_tag > clock.over_v
    return Place(tag, over, Account(tag + estimate_s / share.weight, tag, tag if over else account.over_tag))


def claimed(clock: FlowClock, tag: float, *, over: bool, others_wait: bool, now: float = 0.0) -> FlowClock:
    """Return the clock after a claim; `others_wait`: jobs of the flow that do not stand back still waited then.

    A job that stands back and goes before others does not move v: that would forgive its tenant what it is ahead.
    """
    over_v = max(clock.over_v, tag) if over else clock.over_v
    return FlowClock(clock.v if over and others_wait else max(clock.v, tag - now), over_v)


def corrected(account: Account, share: Share, difference_s: float) -> Account:
    """Return the account after a job needed `difference_s` more than was charged for it."""
    return replace(account, f=account.f + difference_s / share.weight)


def difference_s(attempt: int, estimate_s: float, used_s: float, *, counted: bool) -> float:
    """Return by how much an attempt at the accelerator stage changes what its job was charged.

    The estimate was charged once, at submission; what was lost through no doing of the job is free.
    """
    return (used_s if counted else 0.0) - (estimate_s if attempt == 1 else 0.0)
