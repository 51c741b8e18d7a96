"""The rows of swaps: turns, refusals, and what is halted by them."""

from __future__ import annotations

from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.relational import fleet_events
from modelrepo_runtime.queue.relational.transaction import Database, Snapshot, Transaction
from modelrepo_runtime.queue.swaps import Halt, Refused, Swap, halts
from modelrepo_runtime.queue.turns import SWAP, slots_allowed

MOST_REFUSALS = 100
"""Of a fleet that refuses as one, so many are read: more say nothing new."""
LONGEST_REASON = 1000


class SwapCalls:
    """See Swaps."""

    _database: Database

    def take_turn(
        self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float, kind: str = SWAP
    ) -> bool:
        """See Swaps."""
        turn, allowed = (model, kind, slot_key), slots_allowed(max_unavailable, slots_total)
        if not self._database.read(lambda tx: _is_free(tx, turn, allowed, ttl_s)):
            return False  # thousands ask while few may: only who is likely to get one keeps others waiting
        return self._database.write(lambda tx: _take(tx, turn, allowed, ttl_s), alone=False, model=model)

    def renew_turn(self, model: str, slot_key: str, ttl_s: float, kind: str = SWAP) -> bool:
        """See Swaps."""
        return self._database.write(lambda tx: _renew(tx, (model, kind, slot_key), ttl_s), alone=False)

    def end_turn(self, model: str, slot_key: str, kind: str = SWAP) -> None:
        """See Swaps."""
        self._database.write(lambda tx: tx.run("turn_delete", model, kind, slot_key), alone=False)

    def refuse_swap(self, swap: Swap, worker: str, slot: str, reason: str) -> bool:
        """See Swaps."""
        found = Refused(worker, slot, reason[:LONGEST_REASON])
        return self._database.write(lambda tx: _refuse(tx, swap, found), alone=False, model=swap.model)

    def accept_swap(self, swap: Swap, worker: str, slot: str) -> None:
        """See Swaps."""
        self._database.write(lambda tx: tx.run("refusal_delete", *_key(swap), worker, slot), alone=False)

    def halt_of(self, swap: Swap) -> Halt | None:
        """See Swaps."""
        return self._database.read(lambda tx: _halt_of(tx, swap))


def _is_free(tx: Snapshot, turn: tuple[str, str, str], allowed: int, ttl_s: float) -> bool:
    """True where fewer than the allowed number of others have a turn."""
    return len(_turns(tx, turn, ttl_s) - {turn[2]}) < allowed


def _take(tx: Transaction, turn: tuple[str, str, str], allowed: int, ttl_s: float) -> bool:
    # Nobody else takes a turn of the model meanwhile, but one may be renewed. What has run out goes first: whoever
    # renews it came before that, and is counted, or finds it gone.
    tx.run("turns_run_out", turn[0], turn[1], tx.now)
    if not _is_free(tx, turn, allowed, ttl_s):
        return False
    tx.run("turn_put", *turn, tx.now + ttl_s)
    return True


def _renew(tx: Transaction, turn: tuple[str, str, str], ttl_s: float) -> bool:
    """Prolong a turn that has not run out."""
    return tx.row("turn_renew", tx.now + ttl_s, *turn, tx.now, _latest(tx, ttl_s)) is not None


def _latest(tx: Snapshot, ttl_s: float) -> float:
    """Return until when a turn may run at most: another call may work with a moment a little later than ours."""
    return tx.now + 2 * ttl_s


def _turns(tx: Snapshot, turn: tuple[str, str, str], ttl_s: float) -> set[str]:
    model, kind, _ = turn
    return {row["slot"] for row in tx.rows("turns_of_model", model, kind, tx.now, _latest(tx, ttl_s))}


def _refuse(tx: Transaction, swap: Swap, found: Refused) -> bool:
    tx.run("refusals_before", swap.model, swap.generation)
    tx.run("halts_before", swap.model, swap.generation)
    tx.run("refusal_put", *_key(swap), found.worker, found.slot, found.reason, tx.now)
    if tx.row("halt_get", *_key(swap)) is not None:
        return True
    refused = _refused(tx, swap)
    if not halts(refused, int(tx.only("workers_of_model", swap.model)["workers"])):
        return False
    tx.run("halt_put", *_key(swap), tx.now)
    text = f"{Halt(swap, tx.now, refused)}; `modelrepo promote {swap.model}@{swap.version} --retry` lets slots try it"
    fleet_events.note(tx, Happened.SWAP_HALTED, text, model=swap.model, version=swap.version)
    return True


def _halt_of(tx: Snapshot, swap: Swap) -> Halt | None:
    row = tx.row("halt_get", *_key(swap))
    return None if row is None else Halt(swap, row["since"], _refused(tx, swap))


def _refused(tx: Snapshot, swap: Swap) -> tuple[Refused, ...]:
    rows = tx.rows("refusals", *_key(swap), MOST_REFUSALS)
    return tuple(Refused(row["worker"], row["slot"], row["reason"], row["at"]) for row in rows)


def _key(swap: Swap) -> tuple[str, int, str]:
    return swap.model, swap.generation, swap.digest
