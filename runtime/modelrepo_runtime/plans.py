"""A version's stages, as the queue must know them, and the processes that run them."""

from __future__ import annotations

from collections.abc import Iterable

from modelrepo.contract.spec import ModelSpec, StageSpec
from modelrepo_runtime.jobs import StageNeed


def plan_of(spec: ModelSpec) -> tuple[StageNeed, ...]:
    """Return all stages of a version in order."""
    return tuple(
        StageNeed(stage.name, stage.on, stage.timeout_s, stage.max_batch, stage.batch_wait_s) for stage in spec.stages
    )


def ranks_of(stages: Iterable[StageSpec]) -> int:
    """How many processes run these stages together: one for each device that one run of them takes."""
    return max((stage.gpus for stage in stages if stage.on == "gpu"), default=1)
