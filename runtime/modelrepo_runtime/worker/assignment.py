"""Which slot serves which model: one model a slot, the busiest models first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assignment:
    """The model of each slot, and the models that no slot is left for."""

    by_slot: Mapping[str, str]
    unserved: tuple[str, ...]


def assign(slots: Sequence[str], waiting: Mapping[str, int], taken: Mapping[str, str] | None = None) -> Assignment:
    """Give every free slot a model, in turn, the one with most jobs waiting first; `taken` slots keep theirs.

    Models that no slot serves yet come before a second slot for any other.
    """
    by_slot = {slot: model for slot, model in (taken or {}).items() if slot in slots}
    share = {model: sum(1 for held in by_slot.values() if held == model) for model in waiting}
    for slot in slots:
        if slot in by_slot or not waiting:
            continue
        model = min(waiting, key=lambda name: (share[name], -waiting[name], name))
        by_slot[slot] = model
        share[model] += 1
    return Assignment(by_slot, tuple(sorted(model for model in waiting if not share[model])))
