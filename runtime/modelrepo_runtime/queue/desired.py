"""What the slots of a model should serve, as its active file says it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelrepo.promotion import ActiveState
from modelrepo.promotion.active_file import MOST_FETCHING
from modelrepo_runtime.jobs import Json


@dataclass(frozen=True, slots=True)
class Target:
    """The version and configuration that a model's slots should serve, and the change that said so."""

    model: str
    version: str
    digest: str | None
    generation: int
    config: Mapping[str, Json] = field(default_factory=dict)
    max_unavailable: str = "10%"
    end_running: bool = False
    """Attempts of any other version are to end now, uncounted."""
    notes: tuple[str, ...] = ()
    pinned: bool = False
    """An operator, or the queue for jobs that must go on as they began, wants this version whatever is active."""
    max_fetching: int = MOST_FETCHING
    """Boxes of a cluster that may fetch it at once."""

    @property
    def key(self) -> str:
        """Name what would run: equal keys are no swap, whatever their generations."""
        config = json.dumps(self.config, sort_keys=True, default=str)
        return f"{self.digest or self.version}+{hashlib.sha256(config.encode()).hexdigest()[:16]}"

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


def pinned_target(model: str, version: str, known: Target | None) -> Target:
    """Return what a slot serves that is pinned to a version; `known` is what is active of the model.

    The active configuration goes with the active version only: another one may not declare its keys.
    """
    if known is None:
        return Target(model, version, None, 0, pinned=True)
    if known.version == version:
        return replace(known, pinned=True)
    return replace(known, version=version, digest=None, config={}, end_running=False, notes=(), pinned=True)


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a model's active version: `seen` is equal as long as nothing changed."""

    seen: str
    target: Target | None
    seq: int = 0
    """Grows with every change where a gateway counts them: one that is lower is older. 0: nobody counts."""
    model: str = ""
    recorded: Target | None = None
    """Set where `target` is an edit by hand that nobody has confirmed: what the history says, for slots that serve
    nothing yet."""


def target_of(state: ActiveState) -> Target | None:
    """Say what a model's slots should serve by its active state; None where nothing is active."""
    if state.version is None:
        return None
    return Target(
        model=state.model,
        version=state.version,
        digest=state.digest,
        generation=state.generation,
        config=dict(state.config),
        max_unavailable=state.rollout.max_unavailable,
        end_running=state.rollout.now,
        notes=state.notes,
        max_fetching=state.rollout.max_fetching,
    )
