import pytest

from modelrepo.errors import NotConverged
from modelrepo_cli import convergence, fleet_facts, fleet_text
from modelrepo_cli.convergence import Target
from modelrepo_cli.fleet_facts import Which
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo, WorkerReport

TARGET = Target("cats", "v2", "b" * 64, 7)


def slot(version: str = "v2", digest: str = "b" * 64, generation: int = 7, **more: object) -> SlotReport:
    values = {"slot": "0", "state": "open", "model": "cats", "version": version, "digest": digest, **more}
    return SlotReport(generation=generation, **values)  # type: ignore[arg-type]


def worker(*slots: SlotReport, silent_s: float = 0.4) -> WorkerReport:
    return WorkerReport(WorkerInfo("box", "box", 1), "s", silent_s, slots)


OLD = slot("v1", "a" * 64, 6, reason="v2 does not fit", next_action="try again")


def test_slots_of_other_models_and_converged_ones_are_not_waited_for() -> None:
    assert convergence.behind([worker(slot(), slot(model="dogs", version="v1"))], TARGET) == ()


def test_workers_that_have_gone_silent_are_not_waited_for() -> None:
    lost = worker(OLD, silent_s=60)
    assert convergence.behind([lost], TARGET) == ()
    assert "silent, 1 min ago" in fleet_text.slots([lost])


def test_a_dead_worker_whose_slot_the_next_one_has_taken_over_is_left_out() -> None:
    dead, lives = worker(OLD, silent_s=4.0), worker(slot(), silent_s=0.2)
    assert convergence.present([dead, lives]) == (lives,)
    assert convergence.present([dead]) == (dead,)
    beating = worker(OLD, silent_s=0.9)
    assert convergence.present([beating, lives]) == (beating, lives)


def test_the_same_version_with_older_config_is_behind() -> None:
    assert len(convergence.behind([worker(slot(generation=6))], TARGET)) == 1


def test_waiting_ends_when_the_last_slot_has_changed() -> None:
    fleets = [[worker(OLD)], [worker(OLD)], [worker(slot())]]
    heard: list[object] = []
    slots = convergence.wait(
        lambda: fleets.pop(0), TARGET, 60, changed=heard.append, clock=lambda: 0.0, sleep=lambda _s: None
    )
    assert (slots, fleets) == (1, [])
    assert len(heard) == 1


def test_when_the_time_is_over_the_error_says_who_is_where() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(NotConverged, match=r"1 slot does not run it yet: box slot 0 runs v1 \(v2 does not fit\)"):
        convergence.wait(lambda: [worker(OLD)], TARGET, 3, clock=lambda: now[0], sleep=sleep)
    assert now[0] == 3.0


def test_what_a_slot_does_to_change_is_said_while_it_is_waited_for() -> None:
    loads = slot("v1", "a" * 64, 6, incoming={"version": "v2", "phase": "warming"})
    (late,) = convergence.behind([worker(loads)], TARGET)
    assert str(late) == "box slot 0 runs v1 (warming v2)"


def test_status_shows_what_stands_in_the_way_below_the_slots() -> None:
    text = fleet_text.slots([worker(slot(job_id="job_1", incoming={"version": "v3", "phase": "loading"}), OLD)])
    assert "cats@v2  job_1, loading v3" in text
    assert text.endswith("  box 0: v2 does not fit; next: try again")
    assert fleet_text.slots([]) == "no live worker; start one with `modelrepo worker`"


def test_status_says_where_a_child_has_no_memory_group() -> None:
    text = fleet_text.slots([worker(slot(extra={"memory_group": False, "notes": ["edited by hand"]}))])
    assert "box 0: edited by hand\n  box 0: no memory group of its own" in text


def test_status_can_be_narrowed_to_one_model() -> None:
    both = [worker(slot(), slot(model="dogs"))]
    assert [found.model for box in fleet_facts.only(both, Which("cats")) for found in box.slots] == ["cats"]
    assert fleet_facts.only(both, Which("birds")) == ()
