"""Dispatch credits: how many jobs the CPU workers of a cluster may prepare ahead of its accelerators.

A job whose plan begins on the CPU and has an accelerator stage later takes a credit with its first claim, and gives it
back as its accelerator stage starts. Who is refused one stays in its lane, for another cluster or a later poll.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelrepo_runtime.jobs import StageNeed

UNKNOWN_RATIO = 1.0
"""Of preparing to generating, where neither was ever measured."""
LOADING_PHASES = frozenset({"starting", "loading", "warming", "ready"})
"""Phases of an incoming version that will run jobs in moments; a fetch may take hours."""


@dataclass(frozen=True, slots=True)
class CreditKey:
    """Whose accelerators a credit counts against."""

    cluster: str
    model: str
    version: str


def takes_credits(plan: Sequence[StageNeed]) -> bool:
    """True for plans that prepare on the CPU what an accelerator takes up later."""
    return bool(plan) and plan[0].on == "cpu" and any(stage.on == "gpu" for stage in plan[1:])


def takes_one(plan: Sequence[StageNeed], stage_index: int) -> bool:
    """True where a claim of this stage needs a credit: the first one; the job keeps it through retries of it."""
    return stage_index == 0 and takes_credits(plan)


def gives_back(plan: Sequence[StageNeed], stage_index: int) -> bool:
    """True where the start of this stage, in whatever cluster, gives the job's credit back."""
    return plan[stage_index].on == "gpu"


def enters_again(plan: Sequence[StageNeed], stage_index: int) -> bool:
    """True where a job that goes back to this stage takes a credit, whatever the limit: it is prepared already."""
    return stage_index > 0 and plan[stage_index].on == "gpu" and takes_credits(plan)


def is_ahead(plan: Sequence[StageNeed], stage_index: int) -> bool:
    """True where a job that waits for this stage, or runs it, may hold a credit."""
    first = next((n for n, stage in enumerate(plan) if stage.on == "gpu"), -1)
    return takes_credits(plan) and stage_index <= first


def ratio(prepare_s: float | None, generate_s: float | None) -> float:
    """Return how many jobs a slot runs while one is prepared."""
    if prepare_s is None or generate_s is None or generate_s <= 0:
        return UNKNOWN_RATIO
    return prepare_s / generate_s


def limit(slots: int, prepare_to_generate: float = UNKNOWN_RATIO) -> int:
    """Return how many jobs may be in flight ahead of so many slots: one each, what is prepared meanwhile, and a tenth.

    None without slots.
    """
    return slots * (1 + max(0, math.ceil(prepare_to_generate))) * 11 // 10


def grants(most: int, in_flight: int) -> int:
    """Return how many more jobs may take a credit now: none while there are as many in flight as the limit."""
    return max(0, most - in_flight)
