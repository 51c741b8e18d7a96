"""The tiers that a new queue has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelrepo.errors import InvalidInput
from modelrepo.names import near_names
from modelrepo_runtime.queue.port import Tier

SHIPPED_TIERS: tuple[Tier, ...] = (
    Tier("api", 60.0, 0.01),
    Tier("enterprise", 120.0, 0.01),
    Tier("unlimited", 600.0, 0.05),
    Tier("light", 1800.0, 0.10),
    Tier("free", 7200.0, 0.20, default=True),
)


@dataclass(frozen=True, slots=True)
class TierFigures:
    """What is to be set of a tier; None leaves it as it is."""

    slo_s: float | None = None
    allowed_miss: float | None = None
    refuse_late: bool | None = None
    keep_files_s: float | None = None
    keep_jobs_s: float | None = None


def changed(tier: Tier | None, name: str, figures: TierFigures) -> Tier:
    """Return the tier with its new figures; a new one needs an SLO. Raises: InvalidInput."""
    slo_s, allowed_miss, refuse_late = figures.slo_s, figures.allowed_miss, figures.refuse_late
    if not name or len(name) > 64 or not name.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput(f"cannot set tier {name!r}: a tier's name has letters, digits, - and _, at most 64")
    slo = slo_s if slo_s is not None else tier.slo_s if tier else None
    if slo is None:
        raise InvalidInput(f"cannot add tier {name}: it has no longest acceptable wait; give one with --slo")
    if not (math.isfinite(slo) and slo > 0):
        raise InvalidInput(f"cannot set tier {name}: its longest acceptable wait is {slo:g} s; it must be above 0 s")
    miss = allowed_miss if allowed_miss is not None else tier.allowed_miss if tier else 0.05
    if not 0 <= miss < 1:
        raise InvalidInput(f"cannot set tier {name}: its allowed miss is {miss:g}; give a share from 0 to below 1")
    refuse = refuse_late if refuse_late is not None else tier.refuse_late if tier else False
    files_s = _kept(name, figures.keep_files_s, tier.keep_files_s if tier else None)
    jobs_s = _kept(name, figures.keep_jobs_s, tier.keep_jobs_s if tier else None)
    return Tier(name, slo, miss, tier.default if tier else False, refuse, files_s, jobs_s)


def _kept(name: str, wanted_s: float | None, known_s: float | None) -> float | None:
    if wanted_s is None:
        return known_s
    if not (math.isfinite(wanted_s) and wanted_s >= 0):
        raise InvalidInput(f"cannot set tier {name}: its jobs and files cannot be kept for {wanted_s:g} s")
    return wanted_s


def unknown(name: str, known: list[str]) -> InvalidInput:
    """Return the error for a tier that the queue does not have."""
    near = near_names(name, known)
    meant = f"; did you mean {', '.join(near)}?" if near else ""
    return InvalidInput(
        f"unknown tier {name!r}{meant}; this queue has {', '.join(known)}; `modelrepo tiers set` adds one"
    )
