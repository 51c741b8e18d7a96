"""Learning service times and memory from what ended, off the hot path."""

from __future__ import annotations

from collections.abc import Iterable

from modelrepo_runtime.queue.estimates import Estimates, Ran, ServiceKey, ServiceTime, fold
from modelrepo_runtime.queue.relational import memory
from modelrepo_runtime.queue.relational.fleet import read_report
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction

MOST_LEARNT = 1000
"""Rows that one look reads; where more happened, the newest teach enough."""


def learn(tx: Transaction) -> None:
    """Take in what ended since the last look; of all who look at once, one does."""
    known, newest = tx.only("learnt_upto"), tx.row("verdict_newest")
    mark, upto = known["upto"], newest["id"] if newest is not None else 0
    if upto <= mark or tx.row("learnt_move", mark, upto) is None:
        return
    since = max(mark, upto - MOST_LEARNT)
    memory.learn(tx, tx.rows("verdicts_measured", since, upto))
    rows = tx.rows("verdicts_fine", since, upto)
    if not rows:
        return
    devices = _accelerators(tx, {row["slot"].rpartition("/")[0] for row in rows})
    ran: list[Ran] = []
    for row in rows:
        key = ServiceKey(row["model"], row["stage"], row["size"], devices.get(row["slot"]))
        ran += [Ran(key, row["taken_s"] / row["attempts"])] * row["attempts"]
    tx.run_many("service_time_put", [_row(key, time) for key, time in fold(estimates(tx).times, ran).items()])


def _accelerators(tx: Snapshot, workers: Iterable[str]) -> dict[str, str | None]:
    """Return what the slots of these workers run on, as they last said."""
    condition = f"where {tx.statements.among('session.worker')}"
    found = tx.select("slots_on_devices", condition, tx.array(sorted(workers)))
    return {f"{row['worker']}/{row['slot']}": read_report(row["report"]).accelerator for row in found}


def _row(key: ServiceKey, time: ServiceTime) -> tuple[object, ...]:
    what = (key.model, key.stage, key.size or "", key.accelerator or "")
    return (*what, time.count, time.mean_s, time.deviation_s)


def estimates(tx: Snapshot) -> Estimates:
    """Return all that has been learnt."""
    found: dict[ServiceKey, ServiceTime] = {}
    for row in tx.rows("service_times"):
        key = ServiceKey(row["model"], row["stage"], row["size"] or None, row["accelerator"] or None)
        found[key] = ServiceTime(row["count"], row["mean_s"], row["deviation_s"])
    return Estimates(found)
