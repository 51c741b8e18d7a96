"""What running stages have saved: the part of the JobQueue port by which a later attempt finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelrepo_runtime.jobs import Fence, KeptState

KEPT = 2
"""States of a job that are kept: where the newest turns out to be damaged, the one before it serves."""


class States(Protocol):
    """Each claim carries the states of its job; they go with the stage, by whichever end."""

    def save_state(self, job_id: str, fence: Fence, state: KeptState) -> None:
        """Make a state that lies in the JobStore the newest of its job; the two newest are kept. A repeat is legal.

        Raises: StaleFence; InvalidInput for a key that is not the attempt's own.
        """

    def wanted_states(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Return those of the jobs that have not ended, so that a later attempt may go on from what was saved."""

    def dropped_states(self, limit: int = 100) -> tuple[str, ...]:
        """Return keys of states that nobody needs any more; whoever has deleted them says `forget_dropped_states`."""

    def forget_dropped_states(self, keys: Sequence[str]) -> None:
        """Say that the files of dropped states are deleted; a repeat is legal."""
