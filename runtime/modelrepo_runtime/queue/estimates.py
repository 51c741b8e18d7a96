"""Learnt service times: how long a stage takes, by model, stage, size class and accelerator.

Exponential mean and deviation: a plain average over the first attempts, then each new one moves it by a tenth, so that
a change of code or of boxes shows after some twenty attempts. Every attempt also teaches the coarser keys, to which a
look-up falls back where the exact one has never run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelrepo_runtime.jobs import StageNeed

LEAST_WEIGHT = 0.1
"""Of the newest attempt, once there are ten."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """What a service time is known for; a field that is None stands for all of its kind."""

    model: str
    stage: str
    size: str | None = None
    accelerator: str | None = None

    def coarser(self) -> tuple[ServiceKey, ...]:
        """Return this key and what to fall back to, the finest first: the size says more than the device."""
        return tuple(
            dict.fromkeys(
                (
                    self,
                    ServiceKey(self.model, self.stage, self.size),
                    ServiceKey(self.model, self.stage, None, self.accelerator),
                    ServiceKey(self.model, self.stage),
                )
            )
        )


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """How long attempts took, in seconds from their start to their end."""

    count: int
    mean_s: float
    deviation_s: float

    def after(self, taken_s: float) -> ServiceTime:
        """Learn from one more attempt.

        West, "Updating mean and variance estimates" (1979), with a weight that does not fall below a tenth.
        """
        weight = max(LEAST_WEIGHT, 1 / (self.count + 1))
        off = taken_s - self.mean_s
        variance = (1 - weight) * (self.deviation_s**2 + weight * off**2)
        return ServiceTime(self.count + 1, self.mean_s + weight * off, math.sqrt(variance))

    def rest_s(self, elapsed_s: float) -> float:
        """Return the expected rest of an attempt that has run for `elapsed_s`, never below 0.

        The mean of a normal distribution beyond `elapsed_s` (inverse Mills ratio): an attempt that is overdue is not
        expected to end this very instant.
        """
        ahead_s = self.mean_s - elapsed_s
        if self.deviation_s <= 0:
            return max(0.0, ahead_s)
        off = -ahead_s / self.deviation_s
        beyond = math.erfc(off / math.sqrt(2)) / 2
        if off > 6:  # erfc runs out of digits; the ratio's own series begins with this
            return self.deviation_s / off
        return max(0.0, ahead_s + self.deviation_s * math.exp(-off * off / 2) / math.sqrt(2 * math.pi) / beyond)


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt that succeeded."""

    key: ServiceKey
    taken_s: float


def fold(known: Mapping[ServiceKey, ServiceTime], ran: Iterable[Ran]) -> dict[ServiceKey, ServiceTime]:
    """Return what changes by these attempts, oldest first."""
    changed: dict[ServiceKey, ServiceTime] = {}
    for attempt in ran:
        if not (math.isfinite(attempt.taken_s) and attempt.taken_s >= 0):
            continue  # the clock went back while it ran
        for key in attempt.key.coarser():
            before = changed.get(key) or known.get(key)
            changed[key] = before.after(attempt.taken_s) if before else ServiceTime(1, attempt.taken_s, 0.0)
    return changed


@dataclass(frozen=True, slots=True)
class Estimates:
    """All that is known; unknown is None, never a guess."""

    times: Mapping[ServiceKey, ServiceTime] = field(default_factory=dict)

    def of(self, model: str, stage: str, size: str | None = None, accelerator: str | None = None) -> ServiceTime | None:
        """Return the service time of a stage, as exactly as it is known."""
        for key in ServiceKey(model, stage, size, accelerator).coarser():
            if key in self.times:
                return self.times[key]
        return None

    def work_s(self, model: str, stages: Iterable[StageNeed], size: str | None = None) -> float | None:
        """Return the seconds that a job holds an accelerator, or a CPU slot where it needs no accelerator.

        None where one of these stages has never run.
        """
        needs = tuple(stages)
        heavy = tuple(stage for stage in needs if stage.on == "gpu") or needs
        times = [self.of(model, stage.name, size) for stage in heavy]
        return None if None in times else sum(time.mean_s for time in times if time is not None)
