"""What is live of a model, or why that cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelrepo.errors import InvalidActiveFile
from modelrepo_cli.output import plain

if TYPE_CHECKING:
    from modelrepo.promotion import ActiveState
    from modelrepo.repository import Repository


@dataclass(frozen=True, slots=True)
class Standing:
    """A model's active state, or the problem with its hand-edited file; one broken file hides no other model."""

    model: str
    state: ActiveState | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the state, with `problem` beside it."""
        known = {"model": self.model} if self.state is None else plain(self.state)
        return {**known, "problem": self.problem}


def standing(repository: Repository, model: str) -> Standing:
    """Read what is live of one model."""
    try:
        return Standing(model, repository.promotions.state(model))
    except InvalidActiveFile as error:
        return Standing(model, None, str(error))
