"""Tenants of a simulated day: their places within each tier, by the queue's own fair queueing."""

from __future__ import annotations

import math

from modelrepo_runtime.queue import fair
from modelrepo_runtime.simulation.day import Day
from modelrepo_runtime.simulation.workload import Workload


class Tenancy:
    """One flow per tier. What a job needs is known as well as a queue knows it that has run its size class before."""

    def __init__(self, day: Day, work: Workload) -> None:
        self._work = work
        self.tag: list[float] = [0.0] * len(work.at_s)
        self.over = bytearray(len(work.at_s))
        self._clocks = [fair.FlowClock()] * len(day.tiers)
        self._accounts: list[dict[int, fair.Account]] = [{} for _ in day.tiers]
        self._shares = [
            fair.Share(weight, math.inf) if name == fair.NOT_TOLD_APART else fair.Share(weight)
            for name, weight in zip(work.tenant_names, work.weights, strict=True)
        ]
        self._estimates_s = [size.stages_s[day.gpu_stage] for size in day.sizes]
        self._waiting = [0] * len(day.tiers)
        """Jobs of each flow that were never claimed and do not stand back."""

    def arrived(self, job: int, now: float) -> None:
        """Give a job its place."""
        work = self._work
        tier, tenant = work.tier[job], work.tenant[job]
        accounts = self._accounts[tier]
        account = accounts.get(tenant)
        estimate_s = self._estimates_s[work.size[job]]
        place = fair.enter(self._clocks[tier], account or fair.Account(), self._shares[tenant], estimate_s, now)
        accounts[tenant] = place.account
        self.tag[job], self.over[job] = place.tag, place.over
        if not place.over:
            self._waiting[tier] += 1

    def claimed(self, job: int, now: float) -> None:
        """A job is claimed for the first time."""
        tier, over = self._work.tier[job], bool(self.over[job])
        if not over:
            self._waiting[tier] -= 1
        others_wait = self._waiting[tier] > 0
        clock, tag = self._clocks[tier], self.tag[job]
        self._clocks[tier] = fair.claimed(clock, tag, over=over, others_wait=others_wait, now=now)

    def took(self, job: int, attempt: int, used_s: float, *, counted: bool) -> None:
        """An attempt at the accelerator stage has ended."""
        tier, tenant = self._work.tier[job], self._work.tenant[job]
        accounts = self._accounts[tier]
        estimate_s = self._estimates_s[self._work.size[job]]
        more_s = fair.difference_s(attempt, estimate_s, used_s, counted=counted)
        accounts[tenant] = fair.corrected(accounts[tenant], self._shares[tenant], more_s)
