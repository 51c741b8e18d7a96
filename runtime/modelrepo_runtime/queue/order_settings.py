"""What operators set of the order in which jobs go: tenants' shares, the policy, and what is not given out."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.rank import Policy

LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whoever jobs are counted against, and its share."""

    name: str
    weight: float = 1.0
    """Its share of a flow, beside those of other tenants with waiting jobs."""
    burst_jobs: float | None = 10.0
    """How many of its jobs' estimates it may be ahead before its jobs stand back; None: any number."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Jobs that are not given out until `resume`; None stands for all models or tiers."""

    model: str | None
    tier: str | None
    at: float

    @property
    def ended_by(self) -> str:
        """The command that ends it: in the words in which it was given."""
        words = [shlex.quote(self.model)] if self.model else []
        if self.tier:
            words += ["--tier", shlex.quote(self.tier)]
        return " ".join(["modelrepo queue resume", *words])


class OrderSettings(Protocol):
    """Part of the JobQueue port."""

    def tenants(self) -> tuple[Tenant, ...]:
        """Return the tenants that were set, and those that submitted lately, by name."""

    def set_tenant(
        self, name: str, *, weight: float | None = None, burst_jobs: float | None = None, any_burst: bool = False
    ) -> Tenant:
        """Set a tenant's share; what is not given stays. Holds for jobs submitted from now on.

        Raises: InvalidInput.
        """

    def forget_accounts(self) -> int:
        """Forget how far ahead tenants were of whom no job is left; return how many accounts went."""

    def policy(self) -> Policy:
        """Return how lanes are compared."""

    def set_policy(self, policy: Policy) -> None:
        """Choose how lanes are compared; waiting jobs are ranked by it at once."""

    def pause(self, model: str | None = None, tier: str | None = None) -> Pause:
        """Give out no more jobs of a model, of a tier, of both, or none at all; what runs runs on.

        Pausing what is paused is legal. Raises: InvalidInput for an unknown tier; ModelNotFound for a model of which
        the queue has seen neither a job nor a slot.
        """

    def resume(self, model: str | None = None, tier: str | None = None) -> bool:
        """End exactly this pause; False if there was none."""

    def pauses(self) -> tuple[Pause, ...]:
        """Return all pauses."""


def is_paused(pauses: Collection[tuple[str, str]], model: str, tier: str) -> bool:
    """True where a pause holds for these jobs; '' in a pause stands for all."""
    return any((m, t) in pauses for m in ("", model) for t in ("", tier))


def checked_tenant(known: Tenant, weight: float | None, burst_jobs: float | None) -> Tenant:
    """Return a tenant with its new figures; any burst: inf. Raises: InvalidInput."""
    name = known.name
    if not name or len(name) > LONGEST_NAME:
        raise InvalidInput(f"cannot set tenant {name!r}: a tenant's name has 1 to {LONGEST_NAME} characters")
    share = known.weight if weight is None else weight
    if not (math.isfinite(share) and share > 0):
        raise InvalidInput(f"cannot set tenant {name}: its weight is {share:g}; it must be above 0")
    burst = known.burst_jobs if burst_jobs is None else burst_jobs
    if burst is not None and not burst >= 0:
        raise InvalidInput(f"cannot set tenant {name}: its burst is {burst:g} jobs; it must not be below 0")
    return Tenant(name, share, None if burst == math.inf else burst)
