"""What becomes of a slot's swaps: the one under way, phase by phase, and the last that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelrepo_runtime.worker.swap_plan import SwapPlan
from modelrepo_runtime.worker.target import Target

Result = Literal["done", "refused", "dropped"]
_WAITS = "waiting"


@dataclass(frozen=True, slots=True)
class LastSwap:
    """A swap that has ended. `phases`: seconds spent in each, in their order; waiting of every kind is one of them."""

    old: str | None
    new: str
    mode: str | None
    """None where nothing was swapped: a first start, or an end before there was a plan."""
    reasons: tuple[str, ...]
    result: Result
    why: str | None
    ended_at: float
    """Epoch seconds."""
    took_s: float
    phases: Mapping[str, float]


@dataclass(slots=True)
class SwapUnderWay:
    """A swap as it goes. Times are epoch seconds, but for `began` and `phase_began` of the monotonic clock."""

    target: Target
    phase: str
    since: float
    phase_since: float
    began: float
    phase_began: float
    plan: SwapPlan | None = None
    done_bytes: int = 0
    total_bytes: int | None = None
    """Of what is fetched; None: nothing is, or nobody knows how much."""
    phases: dict[str, float] = field(default_factory=dict)

    def leave_phase(self, monotonic: float) -> None:
        """Add the time that the phase took to what is known of it."""
        name = _WAITS if self.phase.startswith(_WAITS) else self.phase
        self.phases[name] = self.phases.get(name, 0.0) + monotonic - self.phase_began


class SwapRecord:
    """One slot's; its calls are made while the slot's `changed` is held."""

    def __init__(self) -> None:
        self.now: SwapUnderWay | None = None
        self.last: LastSwap | None = None

    def enter(self, target: Target, phase: str, *, monotonic: float, wall: float) -> None:
        """A swap to `target` is in `phase` from now on; a repeat changes nothing."""
        now = self.now
        if now is None or now.target != target:
            self.now = SwapUnderWay(target, phase, wall, wall, monotonic, monotonic)
            return
        if now.phase == phase:
            return
        now.leave_phase(monotonic)
        now.phase, now.phase_since, now.phase_began = phase, wall, monotonic
        now.done_bytes, now.total_bytes = 0, None

    def decide(self, plan: SwapPlan) -> None:
        """Keep how the swap is made, and why so."""
        if self.now is not None:
            self.now.plan = plan

    def fetched(self, target: Target, done_bytes: int, total_bytes: int | None) -> None:
        """Keep how far its fetch is."""
        if self.now is not None and self.now.target == target:
            self.now.done_bytes, self.now.total_bytes = done_bytes, total_bytes

    def end(self, result: Result, old: str | None, why: str | None, *, monotonic: float, wall: float) -> None:
        """The swap is over; one that never came to a phase leaves the last one as it is."""
        now, self.now = self.now, None
        if now is None:
            return
        now.leave_phase(monotonic)
        plan = now.plan
        self.last = LastSwap(
            old=old,
            new=now.target.version,
            mode=plan.mode if plan else None,
            reasons=plan.reasons if plan else (),
            result=result,
            why=why,
            ended_at=wall,
            took_s=monotonic - now.began,
            phases=dict(now.phases),
        )
