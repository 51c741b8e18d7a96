"""The jobs of a day, drawn once and the same for every policy: what differs is then the policy alone."""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.simulation.day import Day, Failures

HOUR_S = 3600.0
_ONCE = (Cause.EXCEPTION, Cause.CRASH, Cause.OUT_OF_MEMORY, Cause.HANG)
POISONED_TRIES = 16
"""More tries than any rule gives a job that crashes every time."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """How one attempt at the accelerator stage ends, and after what part of its service time."""

    cause: Cause
    part: float


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs by number, in the order of their arrival; the columns are parallel."""

    at_s: Sequence[float]
    tier: Sequence[int]
    """Into `Day.tiers`."""
    tenant: Sequence[int]
    """Into `tenant_names`."""
    size: Sequence[int]
    """Into `Day.sizes`."""
    factor: Sequence[float]
    """Of the mean times of its size."""
    luck: Sequence[float]
    """0..1: with a version that fails a share of its attempts, the jobs below that share fail."""
    trouble: Mapping[int, tuple[Trouble, ...]]
    """Job -> how its first attempts at the accelerator stage end badly; the ones after them succeed."""
    tenant_names: tuple[str, ...]
    weights: tuple[float, ...]
    lost_boxes: Sequence[tuple[float, float]]
    """(moment, 0..1): which box of the clusters' largest numbers is lost then."""


def draw(day: Day, seed: int) -> Workload:
    """Draw a day's jobs."""
    names: list[str] = []
    weights: list[float] = []
    tenant_shares: list[float] = []
    for customers in day.tenants:
        for name in customers.names():
            names.append(name)
            weights.append(customers.weight)
            tenant_shares.append(customers.share / customers.number)
    for flood in day.floods:
        if flood.tenant not in names:
            names.append(flood.tenant)
            weights.append(1.0)
    tiers = {tier.name: n for n, tier in enumerate(day.tiers)}
    when, who = random.Random(f"{seed} arrivals"), random.Random(f"{seed} jobs")
    arrivals: list[tuple[float, int, int]] = []  # moment, tier, tenant; -1: as the day's shares have it
    for hour, jobs in enumerate(day.arrivals_per_hour()):
        length_s = HOUR_S if day.arrivals.load is None else min(HOUR_S, (day.arrivals.hours - hour) * HOUR_S)
        arrivals += [(hour * HOUR_S + length_s * when.random(), -1, -1) for _ in range(jobs)]
    for flood in day.floods:
        tier, tenant = tiers[flood.tier], names.index(flood.tenant)
        arrivals += [(flood.at_s + flood.over_s * when.random(), tier, tenant) for _ in range(flood.jobs)]
    arrivals.sort()
    of_tier = list(accumulate(mix.share for mix in day.tier_mix))
    tier_numbers = [tiers[mix.name] for mix in day.tier_mix]
    of_tenant, of_size = list(accumulate(tenant_shares)), list(accumulate(size.share for size in day.sizes))
    pick = who.random
    sizes = [_pick(of_size, pick()) for _ in arrivals]
    return Workload(
        at_s=[at for at, _, _ in arrivals],
        tier=[tier_numbers[_pick(of_tier, pick())] if tier < 0 else tier for _, tier, _ in arrivals],
        tenant=[_pick(of_tenant, pick()) if tenant < 0 else tenant for _, _, tenant in arrivals],
        size=sizes,
        factor=_factors(day, sizes, random.Random(f"{seed} times")),
        luck=[pick() for _ in arrivals],
        trouble=_troubles(day.failures, len(arrivals), random.Random(f"{seed} failures")),
        tenant_names=tuple(names),
        weights=tuple(weights),
        lost_boxes=_lost_boxes(day, arrivals[-1][0], random.Random(f"{seed} boxes")),
    )


def _pick(sums: list[float], drawn: float) -> int:
    return min(bisect(sums, drawn * sums[-1]), len(sums) - 1)


def _factors(day: Day, sizes: Sequence[int], chance: random.Random) -> list[float]:
    """Log-normal with mean 1 and the size's spread: sigma^2 = ln(1 + spread^2)."""
    sigmas = [math.sqrt(math.log1p(size.spread**2)) for size in day.sizes]
    return [math.exp(sigmas[size] * chance.gauss(0, 1) - sigmas[size] ** 2 / 2) for size in sizes]


def _troubles(failures: Failures, jobs: int, chance: random.Random) -> dict[int, tuple[Trouble, ...]]:
    shares = list(accumulate((failures.exception, failures.crash, failures.out_of_memory, failures.hang)))
    found: dict[int, tuple[Trouble, ...]] = {}
    for job in range(jobs):
        if failures.poison and chance.random() < failures.poison:
            found[job] = (Trouble(Cause.CRASH, chance.random()),) * POISONED_TRIES
            continue
        ends: list[Trouble] = []
        while (drawn := chance.random()) < shares[-1]:
            ends.append(Trouble(_ONCE[bisect(shares, drawn)], chance.random()))
        if ends:
            found[job] = tuple(ends)
    return found


def _lost_boxes(day: Day, last_s: float, chance: random.Random) -> list[tuple[float, float]]:
    """Losses are a Poisson process over all boxes that there ever are; one that is not there then loses nothing."""
    boxes = sum(math.ceil(cluster.most(cluster.gpus) / cluster.gpus_per_box) for cluster in day.clusters)
    rate = boxes * day.failures.boxes_lost_per_hour / HOUR_S
    found: list[tuple[float, float]] = []
    at = chance.expovariate(rate) if rate else math.inf
    while at < last_s:
        found.append((at, chance.random()))
        at += chance.expovariate(rate)
    return found
