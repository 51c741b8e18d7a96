"""Each rule of the history's oracle finds what it is there for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelrepo_runtime.jobs import Fence
from modelrepo_runtime.queue.port import HistoryRow
from tests.acceptance.history.oracle import Evidence, Said, Submitted, judge

SLO_S = {"api": 60.0, "free": 7200.0}


def attempt(job: str, number: int, claimed: float, cause: str = "succeeded") -> HistoryRow:
    return HistoryRow(job, "attempt", claimed + 1, cause, fence=Fence(number, "t"), claimed_at=claimed)


GOOD = Evidence(
    submitted=(Submitted("a", "api", 100.0), Submitted("b", "api", 101.0), Submitted("c", "free", 50.0)),
    statuses={"a": "succeeded", "b": "succeeded", "c": "succeeded"},
    history=(
        attempt("a", 1, 110.0, "worker_lost"),
        attempt("b", 2, 111.0),
        attempt("c", 3, 112.0),
        attempt("a", 4, 120.0),
    ),
    said=(Said("w", "claimed", "a", Fence(4, "t")), Said("w", "accepted", "a", Fence(4, "t"))),
    slo_s=SLO_S,
)


def test_a_good_history_has_no_violation() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (replace(GOOD, statuses={"a": "succeeded", "c": "succeeded"}), "b ended as nothing"),
        (replace(GOOD, statuses={**GOOD.statuses, "b": "failed"}), "b ended as failed"),
        (replace(GOOD, statuses={**GOOD.statuses, "x": "succeeded"}), "x was never submitted"),
        (replace(GOOD, history=(*GOOD.history, attempt("b", 5, 130.0))), "b was finished by"),
        (replace(GOOD, history=(*GOOD.history[:3], attempt("a", 0, 120.0))), "order [1, 0]"),
        (replace(GOOD, history=(*GOOD.history[:3], attempt("a", 2, 120.0))), "fence 2 was given to a and to b"),
        (replace(GOOD, history=(*GOOD.history, attempt("a", 5, 130.0, "crash"))), "a went on"),
        (replace(GOOD, said=(Said("w", "accepted", "a", Fence(1, "t")),)), "was told that a"),
        (replace(GOOD, said=(Said("w", "refused", "a", Fence(4, "t")),)), "was refused a 4-t"),
        (replace(GOOD, said=(*GOOD.said, Said("v", "claimed", "a", Fence(4, "t")))), "was claimed by w and v"),
        (replace(GOOD, history=(attempt("b", 2, 105.0), attempt("c", 3, 112.0), attempt("a", 4, 120.0))), "before a"),
        (
            replace(GOOD, history=(attempt("c", 1, 105.0), attempt("a", 2, 106.0), attempt("b", 3, 107.0))),
            "c (free) was claimed at 105.000 before b (api)",
        ),
    ],
)
def test_each_violation_is_found(broken: Evidence, found: str) -> None:
    assert any(found in violation for violation in judge(broken)), judge(broken)


def test_what_was_committed_just_before_a_claim_may_be_overlooked() -> None:
    submitted = (Submitted("a", "api", 100.0), Submitted("b", "api", 100.5))
    history = (attempt("b", 1, 101.0), attempt("a", 2, 101.5))
    statuses = {"a": "succeeded", "b": "succeeded"}
    assert judge(Evidence(submitted, statuses, history, (), SLO_S)) == []
