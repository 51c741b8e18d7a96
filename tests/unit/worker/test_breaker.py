import pytest

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.worker.breaker import Breaker


def fail(breaker: Breaker, *jobs: str, now: float = 0.0, cause: Cause = Cause.CRASH) -> Breaker:
    for job in jobs:
        breaker = breaker.after(job, cause, last_stage=True, now=now)
    return breaker


@pytest.mark.parametrize("cause", [Cause.CRASH, Cause.HANG, Cause.OUT_OF_MEMORY, Cause.EXCEPTION])
def test_three_different_jobs_in_a_row_cordon_the_slot(cause: Cause) -> None:
    two = fail(Breaker(), "a", "b", cause=cause)
    assert two.may_claim(0.0)
    three = fail(two, "c", cause=cause)
    assert three.cordoned
    assert not three.may_claim(59.0)
    assert three.reason == f"3 different jobs in a row failed here, the last by {cause.value}"


def test_one_job_that_fails_again_and_again_is_the_jobs_fault() -> None:
    assert not fail(Breaker(), "a", "a", "a", "b").cordoned


@pytest.mark.parametrize("healthy", [Cause.SUCCEEDED, Cause.REJECTED])
def test_a_good_job_in_between_clears_the_record(healthy: Cause) -> None:
    breaker = fail(Breaker(), "a", "b").after("c", healthy, last_stage=True, now=0.0)
    assert not fail(breaker, "d", "e").cordoned


def test_a_stage_in_the_middle_that_succeeds_clears_nothing() -> None:
    breaker = Breaker()
    for job in ("a", "b", "c"):
        breaker = breaker.after(job, Cause.SUCCEEDED, last_stage=False, now=0.0)
        breaker = breaker.after(job, Cause.CRASH, last_stage=True, now=0.0)
    assert breaker.cordoned


@pytest.mark.parametrize("cause", [Cause.LOAD_FAILED, Cause.PREEMPTED, Cause.CANCELLED, Cause.WORKER_LOST, Cause.RETRY])
def test_what_is_not_the_slots_fault_is_not_counted(cause: Cause) -> None:
    assert fail(Breaker(), "a", "b", cause=cause) == Breaker()
    assert fail(fail(Breaker(), "a", "b"), "c", cause=cause) == fail(Breaker(), "a", "b")


def test_the_first_job_after_the_back_off_is_a_probe() -> None:
    breaker = fail(Breaker(), "a", "b", "c", now=100.0)
    assert breaker.may_claim(160.0)
    again = fail(breaker, "d", now=160.0)
    assert not again.may_claim(279.0)
    assert again.may_claim(280.0)
    assert again.reason == "the probe job d failed here, the last by crash"
    assert again.after("e", Cause.SUCCEEDED, last_stage=True, now=300.0) == Breaker()


def test_the_back_off_doubles_to_half_an_hour() -> None:
    breaker, waits = fail(Breaker(), "a", "b", "c"), []
    for job in range(7):
        assert breaker.cordoned_until is not None
        now = breaker.cordoned_until
        breaker = fail(breaker, f"probe{job}", now=now)
        waits.append((breaker.cordoned_until or 0) - now)
    assert waits == [120.0, 240.0, 480.0, 960.0, 1800.0, 1800.0, 1800.0]


def test_another_version_is_probed_at_once() -> None:
    breaker = fail(Breaker(), "a", "b", "c", now=10.0).swapped(20.0)
    assert breaker.cordoned
    assert breaker.may_claim(20.0)
    assert fail(Breaker(), "a", "b").swapped(20.0) == Breaker()
