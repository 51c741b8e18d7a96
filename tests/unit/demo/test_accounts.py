"""The demo's sums come from the queue's records, and say when something is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from modelrepo_cli.demo.accounts import Accounts, count
from modelrepo_runtime.jobs import Job, Status
from modelrepo_runtime.queue.port import HistoryRow, Tier

STAGES = ("prepare", "generate")
TIERS = (Tier("free", 7200, 0.2), Tier("api", 60, 0.01))


def job(identifier: str, *, tier: str = "api", status: Status = Status.SUCCEEDED, enqueued: float = 0.0) -> Job:
    return Job(identifier, "m", tier, "default", status, created_at=enqueued, enqueued=enqueued, version="v1")


def attempt(
    identifier: str,
    stage: str,
    claimed_at: float,
    at: float,
    *,
    version: str = "v1",
    slot: str = "w/0",
    cause: str = "succeeded",
    event: str = "attempt",
) -> HistoryRow:
    return HistoryRow(
        identifier, event, at, cause, stage=stage, attempt=1, slot=slot, version=version, claimed_at=claimed_at
    )


def whole(identifier: str, start: float, *, version: str = "v1", slot: str = "w/0") -> list[HistoryRow]:
    return [
        attempt(identifier, "prepare", start, start + 1, version=version, slot=slot),
        attempt(identifier, "generate", start + 1, start + 2, version=version, slot=slot),
    ]


def accounts(jobs: Sequence[Job], history: Sequence[HistoryRow], *, submitted: Sequence[str] | None = None) -> Accounts:
    ids = [one.id for one in jobs] if submitted is None else submitted
    return count(ids, {one.id: one for one in jobs}, history, TIERS, STAGES, "generate")


def test_jobs_that_succeeded_once_are_neither_lost_nor_duplicates() -> None:
    found = accounts([job("a"), job("b")], [*whole("a", 0), *whole("b", 2)])
    assert (found.jobs, found.lost, found.duplicates_accepted, found.retried, found.swaps) == (2, 0, 0, 0, 0)
    assert found.swap_gap_s is None
    assert found.by_version == {"v1": 2}


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.SUCCEEDED])
def test_a_job_that_did_not_succeed_is_lost(status: Status) -> None:
    assert accounts([job("a", status=status)], []).lost == 1


def test_a_job_that_the_queue_does_not_know_is_lost() -> None:
    assert accounts([job("a")], whole("a", 0), submitted=["a", "gone"]).lost == 1


def test_a_second_result_that_was_accepted_is_a_duplicate() -> None:
    rows = [*whole("a", 0), attempt("a", "generate", 5, 6)]
    assert accounts([job("a")], rows).duplicates_accepted == 1


def test_refused_finishes_and_lost_workers_are_counted_apart() -> None:
    rows = [
        attempt("a", "prepare", 0, 1),
        attempt("a", "generate", 1, 8, cause="worker_lost"),
        attempt("a", "generate", 9, 10, slot="other/0"),
        attempt("a", "generate", 1, 11, event="refused", cause="succeeded"),
    ]
    found = accounts([job("a")], rows)
    assert (found.lost, found.duplicates_accepted, found.retried, found.stale_refused) == (0, 0, 1, 1)


def test_a_swap_costs_what_a_waiting_job_waited_for_it() -> None:
    rows = [*whole("a", 0), *whole("b", 2.5, version="v2"), *whole("c", 20, version="v1")]
    found = accounts([job("a"), job("b", enqueued=1.0), job("c", enqueued=19.9)], rows)
    assert found.swaps == 2
    assert found.swap_gap_s == pytest.approx(0.5)


def test_versions_on_different_slots_are_no_swap() -> None:
    rows = [*whole("a", 0), *whole("b", 5, version="v2", slot="w/1")]
    assert accounts([job("a"), job("b")], rows).swaps == 0


def test_a_wait_ends_with_the_first_start_of_the_accelerator_stage() -> None:
    rows = [*whole("a", 3), attempt("a", "generate", 50, 51), *whole("b", 9)]
    found = accounts([job("a"), job("b", tier="free", enqueued=6.0)], rows)
    assert [(waits.tier, waits.jobs, waits.worst_s) for waits in found.waits] == [("api", 1, 4.0), ("free", 1, 4.0)]
    assert found.waits[0].worst_share == pytest.approx(4 / 60)


def test_jobs_of_others_are_not_counted() -> None:
    found = accounts([job("a"), job("x")], [*whole("a", 0), *whole("x", 2, version="v2")], submitted=["a"])
    assert (found.jobs, found.swaps) == (1, 0)
