from itertools import pairwise

import pytest

from modelrepo_runtime.jobs import StageNeed
from modelrepo_runtime.queue.estimates import Estimates, Ran, ServiceKey, ServiceTime, fold


def ran(taken_s: float, size: str | None = None, accelerator: str | None = None) -> Ran:
    return Ran(ServiceKey("m", "run", size, accelerator), taken_s)


def test_the_first_attempts_are_averaged() -> None:
    times = fold({}, [ran(10.0), ran(20.0), ran(30.0)])
    (time,) = times.values()
    assert time.count == 3
    assert time.mean_s == pytest.approx(20.0)
    assert time.deviation_s == pytest.approx(8.165, abs=0.01)


def test_later_ones_move_the_mean_by_a_tenth() -> None:
    assert ServiceTime(100, 10.0, 0.0).after(20.0).mean_s == pytest.approx(11.0)


def test_a_change_shows_after_twenty_attempts() -> None:
    time = ServiceTime(1000, 10.0, 1.0)
    for _ in range(20):
        time = time.after(30.0)
    assert time.mean_s > 27


def test_folding_in_parts_is_folding_at_once() -> None:
    attempts = [ran(float(taken), "s", "H100") for taken in (3, 5, 8, 1, 9, 2)]
    first = fold({}, attempts[:2])
    assert {**first, **fold(first, attempts[2:])} == fold({}, attempts)


def test_a_look_up_falls_back_to_what_is_known_of_the_coarser() -> None:
    known = Estimates(fold({}, [ran(10.0, "small", "H100"), ran(100.0, "large", "H100"), ran(40.0, "small", "A10")]))

    def mean(size: str | None, accelerator: str | None) -> float:
        time = known.of("m", "run", size, accelerator)
        assert time is not None
        return time.mean_s

    assert mean("small", "H100") == 10
    assert mean("small", None) == pytest.approx(25)
    assert mean("small", "B200") == pytest.approx(25)
    assert mean("huge", "A10") == 40
    assert mean("huge", "B200") == pytest.approx(50)


def test_what_never_ran_is_unknown() -> None:
    assert Estimates().of("m", "run") is None
    known = Estimates(fold({}, [ran(10.0)]))
    assert known.of("m", "other") is None and known.of("n", "run") is None


def test_work_is_the_time_on_an_accelerator_or_on_the_cpu_where_there_is_none() -> None:
    known = Estimates(
        fold({}, [Ran(ServiceKey("m", "prepare"), 5.0), Ran(ServiceKey("m", "run"), 60.0), ran(60.0)]),
    )
    stages = (StageNeed("prepare", "cpu"), StageNeed("run"))
    assert known.work_s("m", stages) == 60
    assert known.work_s("m", stages[:1]) == 5
    assert known.work_s("m", (*stages, StageNeed("upscale"))) is None


def test_a_clock_that_went_back_teaches_nothing() -> None:
    assert fold({}, [ran(-5.0), ran(float("nan"))]) == {}


def test_the_rest_shrinks_but_an_overdue_attempt_does_not_end_at_once() -> None:
    time = ServiceTime(50, 100.0, 10.0)
    rests = [time.rest_s(float(elapsed)) for elapsed in range(0, 400, 10)]
    assert rests[0] == pytest.approx(100, abs=0.1)
    assert all(later < earlier for earlier, later in pairwise(rests))
    assert 1 < time.rest_s(130.0) < 10 and rests[-1] > 0
    assert ServiceTime(1, 100.0, 0.0).rest_s(130.0) == 0
