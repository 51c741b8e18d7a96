"""The tiers that a new queue has."""

from __future__ import annotations

import math

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.port import Tier

SHIPPED_TIERS: tuple[Tier, ...] = (
    Tier("api", 60.0, 0.01),
    Tier("enterprise", 120.0, 0.01),
    Tier("unlimited", 600.0, 0.05),
    Tier("light", 1800.0, 0.10),
    Tier("free", 7200.0, 0.20, default=True),
)


def changed(
    tier: Tier | None, name: str, slo_s: float | None, allowed_miss: float | None, refuse_late: bool | None = None
) -> Tier:
    """Return the tier with its new figures; a new one needs an SLO. Raises: InvalidInput."""
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
    return Tier(name, slo, miss, tier.default if tier else False, refuse)


def unknown(name: str, known: list[str]) -> InvalidInput:
    """Return the error for a tier that the queue does not have."""
    return InvalidInput(f"unknown tier {name!r}; this queue has {', '.join(known)}; `modelrepo tiers set` adds one")
