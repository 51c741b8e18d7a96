from dataclasses import replace

import pytest

from modelrepo_runtime.jobs import Eta, StageNeed
from modelrepo_runtime.queue.estimates import Estimates, Ran, ServiceKey, ServiceTime, fold
from modelrepo_runtime.queue.forecast import Asked, Forecaster, LaneLoad, Load, Running, SlotLoad, rest_s

NOW = 1000.0
TEN_S = Estimates(fold({}, [Ran(ServiceKey("m", "run"), 10.0), Ran(ServiceKey("m", "prepare"), 2.0)]))
RUN = (StageNeed("run"),)
BOTH = (StageNeed("prepare", "cpu"), StageNeed("run"))
WEIGHTS = {"free": 1 / 100, "api": 1 / 10, "strict": 1.0}
SLOT = SlotLoad("m", "v1")


def lane(depth: int, **facts: object) -> LaneLoad:
    known = LaneLoad("m", "run", "gpu", "free", 1 / 100, depth, NOW - 50, NOW - 10)
    return replace(known, **facts)  # type: ignore[arg-type]


def eta(
    job: Asked, lanes: tuple[LaneLoad, ...] = (), slots: tuple[SlotLoad, ...] = (SLOT,), known: Estimates = TEN_S
) -> Eta | None:
    return Forecaster(Load(NOW, lanes, slots, known, WEIGHTS)).eta(job)


def job(**facts: object) -> Asked:
    return replace(Asked("m", RUN, NOW, "free"), **facts)  # type: ignore[arg-type]


def test_an_idle_slot_takes_the_job_now() -> None:
    assert eta(job()) == Eta(NOW, NOW + 10)


def test_the_work_ahead_is_shared_by_the_live_slots() -> None:
    assert eta(job(), (lane(40),)) == Eta(NOW + 400, NOW + 410)
    assert eta(job(), (lane(40),), (SLOT,) * 4) == Eta(NOW + 100, NOW + 110)


def test_slots_first_end_what_they_run() -> None:
    busy = replace(SLOT, running=Running("run", NOW - 4))
    assert eta(job(), slots=(busy,)) == Eta(NOW + 6, NOW + 16)
    assert eta(job(), (lane(1),), (busy, SLOT)) == Eta(NOW + 6, NOW + 16)


def test_a_job_in_the_middle_of_its_lane_has_only_the_older_ones_ahead() -> None:
    found = eta(job(enqueued=NOW - 30), (lane(41),))
    assert found is not None and found.start_at == pytest.approx(NOW + 200)


def test_a_stricter_tier_overtakes_what_waits_long_enough() -> None:
    strict = lane(100, tier="api", weight=1 / 10)
    alone = eta(job(), (lane(100),))
    among = eta(job(), (lane(100), strict))
    assert alone is not None and among is not None
    assert alone.start_at == NOW + 1000
    assert among.start_at == pytest.approx(NOW + 2000, rel=0.02)


def test_a_laxer_tier_does_not_keep_a_strict_job_waiting() -> None:
    found = eta(job(tier="strict", enqueued=NOW - 20), (lane(1000, weight=1 / 7200),))
    assert found == Eta(NOW, NOW + 10)


def test_nothing_is_predicted_without_a_live_slot_or_a_learnt_time() -> None:
    assert eta(job(), slots=()) is None
    assert eta(job(), slots=(replace(SLOT, model="n"),)) is None
    assert eta(job(version="v2")) is None
    assert eta(job(), (lane(1, paused=True),)) is None
    assert eta(job(), known=Estimates()) == Eta(NOW, None)
    assert eta(job(), (lane(1),), known=Estimates()) is None


def test_only_slots_that_may_take_it_count() -> None:
    slots = (SLOT, replace(SLOT, version="v2"), replace(SLOT, incoming="v2", cluster="b"))
    assert eta(job(version="v2"), (lane(4),), slots) == Eta(NOW + 20, NOW + 30)
    assert eta(job(version="v2", cluster="b"), (lane(4),), slots) == Eta(NOW + 40, NOW + 50)


def test_paused_lanes_and_those_ahead_of_their_share_keep_nobody_waiting() -> None:
    assert eta(job(), (lane(40, paused=True, tier="api"), lane(40, over=True))) == Eta(NOW, NOW + 10)
    assert eta(job(over=True), (lane(40),)) == Eta(NOW + 400, NOW + 410)


def test_a_delay_is_waited_out() -> None:
    assert eta(job(due=NOW + 60)) == Eta(NOW + 60, NOW + 70)


def test_the_wait_of_a_job_with_stages_ends_at_the_accelerator() -> None:
    cpu, gpu = replace(SLOT, on=("cpu",)), replace(SLOT, on=("gpu",))
    assert eta(job(stages=BOTH), slots=(cpu, gpu)) == Eta(NOW + 2, NOW + 12)
    assert eta(job(stages=BOTH), (lane(40),), (cpu, gpu)) == Eta(NOW + 400, NOW + 410)
    assert eta(job(stages=BOTH), (lane(20, stage="prepare", on="cpu"),), (cpu, gpu)) == Eta(NOW + 42, NOW + 52)


def test_a_running_job_ends_by_its_progress_and_the_learnt_time() -> None:
    running = Running("run", NOW - 4)
    assert eta(job(running=running, started_at=NOW - 4)) == Eta(NOW - 4, NOW + 6)
    half = eta(job(running=replace(running, progress=0.5), started_at=NOW - 4))
    assert half == Eta(NOW - 4, NOW + 4.5)


def test_progress_alone_tells_the_rest_where_nothing_is_learnt() -> None:
    assert rest_s(None, 30.0, 0.75) == pytest.approx(10)
    assert rest_s(None, 30.0, 0.01) is None
    assert rest_s(None, 30.0, None) is None
    assert rest_s(ServiceTime(9, 100.0, 0.0), 30.0, 1.0) == 0


def test_the_stages_to_come_are_added_to_a_running_one() -> None:
    running = Running("prepare", NOW - 1)
    found = eta(job(stages=BOTH, running=running), slots=(replace(SLOT, on=("gpu",)),))
    assert found == Eta(NOW + 1, NOW + 11)


def test_a_lane_says_how_long_a_job_waits_that_joins_it_now() -> None:
    full, paused = lane(40), lane(3, paused=True, tier="api")
    forecaster = Forecaster(Load(NOW, (full, paused), (SLOT, SLOT), TEN_S, WEIGHTS))
    assert forecaster.wait_s(full) == 200
    assert forecaster.wait_s(paused) is None


def test_predictions_are_near_what_comes_to_pass() -> None:
    tiers = {"api": 60.0, "unlimited": 600.0, "free": 7200.0}
    weights = {tier: 1 / slo_s for tier, slo_s in tiers.items()}
    used = {"api": 0.7, "unlimited": 1.3, "free": 0.9}  # of its SLO, by the oldest of each tier
    waiting = {tier: [NOW - slo_s * used[tier] * (50 - n) / 50 for n in range(50)] for tier, slo_s in tiers.items()}
    lanes = tuple(
        LaneLoad("m", "run", "gpu", tier, weights[tier], len(came), came[0], came[-1]) for tier, came in waiting.items()
    )
    forecaster = Forecaster(Load(NOW, lanes, (SLOT,) * 4, TEN_S, weights))
    free, off = [NOW] * 4, []
    while any(waiting.values()):
        at = min(free)
        tier = max((tier for tier in tiers if waiting[tier]), key=lambda tier: (at - waiting[tier][0]) * weights[tier])
        found = forecaster.eta(Asked("m", RUN, waiting[tier].pop(0), tier))
        assert found is not None and found.start_at is not None
        off.append(abs(found.start_at - at))
        free[free.index(at)] = at + 10
    assert sorted(off)[len(off) // 2] == 0 and max(off) <= 20


def test_a_lane_is_long_before_a_moment_only_where_that_is_sure() -> None:
    full = lane(8000)
    assert full.has_before(NOW, 1000) and full.has_before(NOW - 30, 1000)
    assert not full.has_before(NOW - 40, 1000) and not full.has_before(NOW - 60, 1000)
    assert not lane(3999).has_before(NOW, 1000)
