"""A version's stages, as the queue must know them."""

from __future__ import annotations

from modelrepo.contract.spec import ModelSpec
from modelrepo_runtime.jobs import StageNeed


def plan_of(spec: ModelSpec) -> tuple[StageNeed, ...]:
    """Return all stages of a version in order."""
    return tuple(
        StageNeed(stage.name, stage.on, stage.timeout_s, stage.max_batch, stage.batch_wait_s) for stage in spec.stages
    )
