"""What several ranks' ends make of a job, and of their group."""

from __future__ import annotations

import itertools
import random

import pytest

from modelrepo_runtime.jobs import Cause, JobError
from modelrepo_runtime.supervision.rank_ends import (
    FAILURE_GRACE_S,
    STACKS_GRACE_S,
    RankEnd,
    are_in_step,
    joined,
    patience_s,
)
from modelrepo_runtime.supervision.spec import ChildOutcome, MemoryPeaks
from modelrepo_runtime.supervision.states import CHILD_TRANSITIONS, ChildState, joint_state

DIES = {Cause.CRASH, Cause.HANG}


def an_end(rank: int, cause: Cause, text: str = "", *, alive: bool | None = None, result: int = 0) -> RankEnd:
    error = None if cause is Cause.SUCCEEDED else JobError(cause.value, text or cause.value, True)
    outcome = ChildOutcome(cause, result if cause is Cause.SUCCEEDED else None, error=error, runtime_s=float(rank))
    return RankEnd(rank, (outcome,), cause not in DIES if alive is None else alive)


def test_a_job_that_all_ranks_did_is_rank_0s_and_took_as_long_as_the_slowest() -> None:
    (outcome,) = joined([an_end(1, Cause.SUCCEEDED, result=1), an_end(0, Cause.SUCCEEDED)], stop_asked=False)
    assert (outcome.cause, outcome.result, outcome.runtime_s) == (Cause.SUCCEEDED, 0, 1.0)


def test_of_several_ranks_the_fullest_device_and_the_hosts_memory_of_all_count() -> None:
    peaks = (MemoryPeaks(50, 10), MemoryPeaks(70, 20), MemoryPeaks(None, 30))
    ends = [
        RankEnd(rank, (ChildOutcome(Cause.SUCCEEDED, memory=memory),), alive=True) for rank, memory in enumerate(peaks)
    ]
    (outcome,) = joined(ends, stop_asked=False)
    assert outcome.memory == MemoryPeaks(70, 60)


@pytest.mark.parametrize(
    ("causes", "stop_asked", "expected"),
    [
        ([Cause.EXCEPTION, Cause.CRASH, Cause.PREEMPTED], False, (Cause.CRASH, "rank 1: crash")),
        ([Cause.SUCCEEDED, Cause.EXCEPTION, Cause.PREEMPTED], False, (Cause.EXCEPTION, "rank 1: exception")),
        ([Cause.EXCEPTION, Cause.PREEMPTED, Cause.SUCCEEDED], True, (Cause.PREEMPTED, "rank 1: preempted")),
        ([Cause.CRASH, Cause.CANCELLED, Cause.SUCCEEDED], False, (Cause.CANCELLED, "rank 1: cancelled")),
        ([Cause.HANG, Cause.HANG, Cause.HANG], False, (Cause.HANG, "hang")),
        ([Cause.REJECTED, Cause.PREEMPTED, Cause.PREEMPTED], False, (Cause.REJECTED, "rank 0: rejected")),
    ],
)
def test_the_end_that_explains_the_others_counts_in_whatever_order_they_come(
    causes: list[Cause], stop_asked: bool, expected: tuple[Cause, str]
) -> None:
    ends = [an_end(rank, cause, alive=cause not in DIES) for rank, cause in enumerate(causes)]
    for order in itertools.permutations(ends):
        (outcome,) = joined(order, stop_asked=stop_asked)
        assert outcome.error is not None
        assert (outcome.cause, outcome.error.message) == expected


def test_of_deaths_the_first_one_is_named_though_all_are_told_alike() -> None:
    for cause in (Cause.CRASH, Cause.OUT_OF_MEMORY):
        ends = [an_end(rank, cause, alive=False) for rank in (1, 0)]
        (outcome,) = joined(ends, stop_asked=False)
        assert outcome.error is not None and outcome.error.message == f"rank 1: {cause.value}"


def test_of_two_failures_the_first_one_counts() -> None:
    zero, one = an_end(0, Cause.EXCEPTION, "ValueError: late"), an_end(1, Cause.EXCEPTION, "KeyError: early")
    (outcome,) = joined([one, zero], stop_asked=False)
    assert outcome.error is not None and outcome.error.message == "rank 1: KeyError: early"


@pytest.mark.parametrize(
    ("end", "cancel_asked", "limit_s"),
    [
        (an_end(1, Cause.CRASH), False, 0.0),
        (an_end(1, Cause.OUT_OF_MEMORY, alive=False), False, 0.0),
        (an_end(1, Cause.HANG), False, STACKS_GRACE_S),
        (an_end(1, Cause.CANCELLED, alive=False), True, STACKS_GRACE_S),
        (an_end(1, Cause.PREEMPTED, alive=False), False, None),
        (an_end(1, Cause.SUCCEEDED), False, None),
        (an_end(1, Cause.CANCELLED), True, None),
        (an_end(1, Cause.CANCELLED), False, FAILURE_GRACE_S),
        (an_end(1, Cause.EXCEPTION), True, FAILURE_GRACE_S),
        (an_end(1, Cause.OUT_OF_MEMORY), False, FAILURE_GRACE_S),
    ],
)
def test_others_may_go_on_for_as_long_as_it_can_help(end: RankEnd, cancel_asked: bool, limit_s: float | None) -> None:
    assert patience_s(end, cancel_asked=cancel_asked) == limit_s


@pytest.mark.parametrize(
    ("first", "second", "in_step"),
    [
        (an_end(0, Cause.SUCCEEDED), an_end(1, Cause.SUCCEEDED), True),
        (an_end(0, Cause.CANCELLED), an_end(1, Cause.CANCELLED), True),
        (an_end(0, Cause.EXCEPTION, "ValueError: a"), an_end(1, Cause.EXCEPTION, "ValueError: b"), True),
        (an_end(0, Cause.EXCEPTION, "ValueError: a"), an_end(1, Cause.EXCEPTION, "KeyError: a"), False),
        (an_end(0, Cause.SUCCEEDED), an_end(1, Cause.REJECTED), False),
        (an_end(0, Cause.HANG), an_end(1, Cause.HANG), False),
        (an_end(0, Cause.EXCEPTION, "DistStoreError: x"), an_end(1, Cause.EXCEPTION, "DistStoreError: x"), False),
        (an_end(0, Cause.EXCEPTION, "RuntimeError: NCCL"), an_end(1, Cause.EXCEPTION, "RuntimeError: NCCL"), False),
    ],
)
def test_only_ranks_that_ended_alike_are_in_step(first: RankEnd, second: RankEnd, in_step: bool) -> None:
    assert are_in_step([first, second]) == in_step


def test_a_group_goes_through_the_states_of_a_child() -> None:
    ways = {
        ChildState.STARTING: ChildState.LOADING,
        ChildState.LOADING: ChildState.WARMING,
        ChildState.WARMING: ChildState.READY,
    }
    for seed in range(300):
        rng = random.Random(seed)
        ranks = [ChildState.STARTING] * rng.randint(2, 4)
        busy = ChildState.READY
        seen = [joint_state(ranks)]
        for _ in range(40):
            rank = rng.randrange(len(ranks))
            if ranks == [ChildState.READY] * len(ranks):
                busy = rng.choice([ChildState.RUNNING, ChildState.RELOADING])
                ranks = [busy if rng.random() < 0.5 else state for state in ranks]
            elif rng.random() < 0.02:
                ranks[rank] = ChildState.STOPPING
            else:
                ranks[rank] = ways.get(ranks[rank], ChildState.READY if ranks[rank] is busy else ranks[rank])
            seen.append(joint_state(ranks))
        for old, new in itertools.pairwise(seen):
            assert old is new or new in CHILD_TRANSITIONS[old], (seed, old, new)
