"""Which slots change their model: pure, from what waits and from what each slot has done.

A slot keeps its model warm while jobs come for it. It leaves it for another one in two cases only. It is idle, and jobs
of another model wait that no slot here is free for. Or a model without a slot here has a job that used up `COLD_SHARE`
of its SLO, more than any job that waits for the slot's own; then a slot goes that has served for several times what
the change takes, so that most of its time is spent on jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelrepo_runtime.queue.demand import Demand

COLD_SHARE = 0.8
"""A job of a model without a slot may use up so much of its SLO before a slot leaves a model that has work."""
SERVES_TIMES = 4.0
"""A slot that has work serves its model for so many times what bringing up another one takes."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """A slot that could have another model: what it has, and how it stands with it. Times in seconds."""

    slot: str
    model: str
    idle_s: float
    """Since when it has run no job; 0 while it runs one."""
    served_s: float
    """Since when it has served the model; 0 while it comes up."""
    up: bool
    """Whether its model serves, or is refused; else it is on its way."""


@dataclass(frozen=True, slots=True)
class Move:
    """A slot that gets another model, and why."""

    slot: str
    old: str
    new: str
    why: str
    urgent: bool
    """Whether it leaves a model that has work."""


Demands = Callable[[str, str], Demand]
"""(slot, model) -> what waits for the model that this slot could take; nothing where it runs none of its stages."""


def moves(
    tenures: Sequence[Tenure],
    models: Sequence[str],
    demand: Demands,
    bring_up_s: Mapping[str, float],
) -> Iterator[Move]:
    """Return the changes to begin now: for each model at most one, the most urgent model first.

    `bring_up_s`: what it took to bring up each model here; a model that is not named costs nothing as far as is known.
    """
    left = [tenure for tenure in tenures if tenure.up]
    coming = {tenure.model for tenure in tenures if not tenure.up}
    wanted = {
        model: max((demand(tenure.slot, model) for tenure in left), key=_urgency, default=Demand()) for model in models
    }
    for model in sorted(wanted, key=lambda name: (*_urgency(wanted[name]), name), reverse=True):
        if model in coming or not wanted[model].waiting:
            continue
        if any(tenure.model == model and tenure.idle_s > 0 and tenure.served_s > 0 for tenure in left):
            continue  # a slot is free for it
        found = _idle(left, model, demand, bring_up_s) or _pressed(left, model, demand, bring_up_s)
        if found is not None:
            yield found
            left = [tenure for tenure in left if tenure.slot != found.slot]


def _idle(left: Sequence[Tenure], model: str, demand: Demands, bring_up_s: Mapping[str, float]) -> Move | None:
    """Choose the slot that has rested longest with nothing to do; what was dear to load stays for as long again.

    For a model that other slots here have, it stays longer: they get there by themselves.
    """
    has_slot = any(tenure.model == model and tenure.served_s > 0 for tenure in left)
    times = SERVES_TIMES if has_slot else 1.0
    free = [
        tenure
        for tenure in left
        if tenure.model != model
        and demand(tenure.slot, model).waiting
        and (not tenure.served_s or _rests(tenure, demand, times * bring_up_s.get(tenure.model, 0.0)))
    ]
    chosen = max(free, key=lambda tenure: (tenure.idle_s, tenure.slot), default=None)
    if chosen is None:
        return None
    waiting = demand(chosen.slot, model).waiting
    rest = f"no job for {chosen.model} since {chosen.idle_s:.0f} s" if chosen.served_s else f"{chosen.model} is refused"
    why = f"{rest}, and {waiting} wait for {model}"
    return Move(chosen.slot, chosen.model, model, why, urgent=False)


def _rests(tenure: Tenure, demand: Demands, longer_than_s: float) -> bool:
    """Tell whether nothing comes for a slot any more."""
    return not demand(tenure.slot, tenure.model).waiting and tenure.idle_s > longer_than_s


def _pressed(left: Sequence[Tenure], model: str, demand: Demands, bring_up_s: Mapping[str, float]) -> Move | None:
    """Choose the slot whose own jobs are least urgent, where no slot here has the model and its jobs are late."""
    if any(tenure.model == model and tenure.served_s > 0 for tenure in left):
        return None
    served = SERVES_TIMES * bring_up_s.get(model, 0.0)
    able = [
        tenure
        for tenure in left
        if demand(tenure.slot, model).share >= COLD_SHARE
        and demand(tenure.slot, model).share > demand(tenure.slot, tenure.model).share
        and tenure.served_s > served
    ]
    chosen = min(able, key=lambda tenure: (demand(tenure.slot, tenure.model).share, tenure.slot), default=None)
    if chosen is None:
        return None
    share, own = demand(chosen.slot, model).share, demand(chosen.slot, chosen.model).share
    why = f"a job for {model} has used {share:.0%} of its SLO, and none for {chosen.model} more than {own:.0%}"
    return Move(chosen.slot, chosen.model, model, why, urgent=True)


def _urgency(demand: Demand) -> tuple[float, int]:
    return demand.share, demand.waiting
