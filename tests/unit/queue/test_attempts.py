from __future__ import annotations

import pytest

from modelrepo_runtime.attempts import RULES, Attempt, Elsewhere, decide, kept_away_from
from modelrepo_runtime.jobs import Cause, JobError, Outcome, Status
from modelrepo_runtime.timing import Timing

TIMING = Timing()


def attempt(cause: Cause, slot: str = "w/0", box: str = "box", *, counted: bool = True) -> Attempt:
    return Attempt(cause, counted, slot, box)


@pytest.mark.parametrize("cause", [cause for cause, rule in RULES.items() if rule.tries and rule.tries > 1])
def test_the_last_try_ends_the_job(cause: Cause) -> None:
    tries = RULES[cause].tries
    assert tries is not None
    earlier = [attempt(cause)] * (tries - 1)
    assert decide(Outcome(cause), attempt(cause), earlier[:-1], TIMING).ends_as is None
    ended = decide(Outcome(cause), attempt(cause), earlier, TIMING)
    assert ended.ends_as is Status.FAILED
    assert ended.error is not None and ended.error.code == cause.value and str(tries) in ended.error.message


def test_the_models_own_words_are_kept() -> None:
    error = JobError("boom", "it broke", True)
    ended = decide(Outcome(Cause.EXCEPTION, error=error), attempt(Cause.EXCEPTION), [attempt(Cause.EXCEPTION)], TIMING)
    assert ended.error == error


def test_causes_of_different_rows_are_counted_apart() -> None:
    earlier = [attempt(Cause.CRASH), attempt(Cause.CRASH), attempt(Cause.OUT_OF_MEMORY)]
    assert decide(Outcome(Cause.EXCEPTION), attempt(Cause.EXCEPTION), earlier, TIMING).ends_as is None
    assert decide(Outcome(Cause.HANG), attempt(Cause.HANG), earlier, TIMING).ends_as is Status.FAILED


def test_delays_grow_and_then_stay() -> None:
    delays = [
        decide(Outcome(Cause.LOAD_FAILED), attempt(Cause.LOAD_FAILED), [attempt(Cause.LOAD_FAILED)] * n, TIMING).delay_s
        for n in range(5)
    ]
    assert delays == [1, 10, 60, 60, 60]
    assert decide(Outcome(Cause.PREEMPTED), attempt(Cause.PREEMPTED), [], TIMING).delay_s == 0


def test_a_job_keeps_away_from_where_it_failed() -> None:
    earlier = [attempt(Cause.CRASH, "a/0"), attempt(Cause.WORKER_LOST, "b/0", "far"), attempt(Cause.PREEMPTED, "c/0")]
    found = decide(Outcome(Cause.EXCEPTION), attempt(Cause.EXCEPTION, "d/1"), earlier, TIMING)
    assert found.avoid == {"slot:a/0", "box:far", "slot:d/1"}


def test_every_place_to_avoid_is_said_by_its_rule() -> None:
    for cause, rule in RULES.items():
        assert bool(kept_away_from([attempt(cause)])) == (rule.elsewhere is not Elsewhere.ANYWHERE)
