"""The calls of the JobQueue about saved states."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo_runtime.jobs import Fence, KeptState
from modelrepo_runtime.queue.relational import states
from modelrepo_runtime.queue.relational.transaction import Database


class StateCalls:
    """See States."""

    _database: Database

    def save_state(self, job_id: str, fence: Fence, state: KeptState) -> None:
        """See States."""
        states.check_key(job_id, fence, state)
        self._database.write(lambda tx: states.save(tx, job_id, fence, state), alone=False)

    def wanted_states(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """See States."""
        return self._database.read(lambda tx: states.wanted(tx, job_ids))

    def dropped_states(self, limit: int = 100) -> tuple[str, ...]:
        """See States."""
        return self._database.read(lambda tx: states.dropped(tx, limit))

    def forget_dropped_states(self, keys: Sequence[str]) -> None:
        """See States."""
        self._database.write(lambda tx: tx.run_many("state_dropped_delete", [(key,) for key in keys]), alone=False)
