"""Which slot serves which model: one model a slot, the busiest models first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assignment:
    """The model of each slot, and the models that no slot is left for."""

    by_slot: Mapping[str, str]
    unserved: tuple[str, ...]


def assign(
    slots: Sequence[str],
    waiting: Mapping[str, int],
    taken: Mapping[str, str] | None = None,
    able: Callable[[str, str], bool] = lambda _slot, _model: True,
) -> Assignment:
    """Give every free slot a model, in turn, the one with most jobs waiting first; `taken` slots keep theirs.

    Models that no slot serves yet come before a second slot for any other. `able(slot, model)` says whether the slot
    runs any of the model's stages; a slot that runs none of any model's stays free.
    """
    by_slot = {slot: model for slot, model in (taken or {}).items() if slot in slots}
    share = {model: sum(1 for held in by_slot.values() if held == model) for model in waiting}
    for slot in slots:
        fitting = [model for model in waiting if able(slot, model)]
        if slot in by_slot or not fitting:
            continue
        model = min(fitting, key=lambda name: (share[name], -waiting[name], name))
        by_slot[slot] = model
        share[model] += 1
    return Assignment(by_slot, tuple(sorted(model for model in waiting if not share[model])))
