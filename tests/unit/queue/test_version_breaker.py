import re
from pathlib import Path

import pytest

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.queue.version_breaker import (
    FAILED,
    FINE,
    VERSION_TRANSITIONS,
    WINDOW_S,
    Report,
    VersionRecord,
    VersionState,
    closes,
    tally,
    verdict,
    window_start,
)

STATES = Path(__file__).parents[3] / "docs" / "states.md"


def failures(count: int, workers: int) -> list[Report]:
    return [Report(f"w{number % workers}/0", 0.0, 1, 1) for number in range(count)]


def fail(
    record: VersionRecord, count: int, *, workers: int = 3, cause: Cause = Cause.EXCEPTION, at: float = 0.0
) -> list[bool]:
    return [record.ended(f"w{number % workers}/0", "c", cause, claimed_at=at, now=at) for number in range(count)]


def test_the_drawing_of_version_states_is_the_table() -> None:
    section = re.search(r"^## Versions$(.*?)(?=^## |\Z)", STATES.read_text(encoding="utf-8"), re.M | re.S)
    assert section is not None, "docs/states.md has no section on versions"
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", section[1], re.M))
    assert drawn == {(state.value, after.value) for state, others in VERSION_TRANSITIONS.items() for after in others}
    assert set(VERSION_TRANSITIONS) == set(VersionState)


def test_ten_attempts_on_three_workers_of_which_half_failed_trip() -> None:
    assert tally(failures(10, 3)).trips
    assert not tally(failures(9, 3)).trips
    assert not tally(failures(100, 2)).trips
    assert tally([*failures(5, 3), Report("w9/0", 0.0, 5, 0)]).trips
    assert not tally([*failures(5, 3), Report("w9/0", 0.0, 6, 0)]).trips


def test_every_cause_speaks_for_a_version_against_it_or_not_at_all() -> None:
    assert not FAILED & FINE
    assert {cause for cause in Cause if verdict(cause) is None} == {
        Cause.PREEMPTED,
        Cause.WORKER_LOST,
        Cause.CANCELLED,
    }
    assert verdict(Cause.LOAD_FAILED) is False and verdict(Cause.REJECTED) is True


def test_what_came_before_the_breaker_closed_is_spent() -> None:
    assert window_start(1000.0, None) == 1000.0 - WINDOW_S
    assert window_start(1000.0, 100.0) == 1000.0 - WINDOW_S
    assert window_start(1000.0, 900.0) == 900.0


def test_only_a_probe_that_reaches_the_failing_stage_closes() -> None:
    assert closes(Cause.SUCCEEDED, probe=True, at_failing_stage=True, last_stage=False)
    assert closes(Cause.SUCCEEDED, probe=True, at_failing_stage=False, last_stage=True)
    assert not closes(Cause.SUCCEEDED, probe=False, at_failing_stage=True, last_stage=True)
    assert not closes(Cause.SUCCEEDED, probe=True, at_failing_stage=False, last_stage=False)
    assert not closes(Cause.PREEMPTED, probe=True, at_failing_stage=True, last_stage=True)


def test_the_failure_that_trips_is_not_held_against_its_job() -> None:
    record = VersionRecord()
    assert fail(record, 10) == [True] * 9 + [False]
    assert record.state is VersionState.FAILING


def test_each_cluster_probes_with_one_lease_at_a_time() -> None:
    record = VersionRecord()
    assert record.allowed("c", 50) == 50
    fail(record, 10)
    assert (record.allowed("c", 50), record.allowed("d", 50)) == (1, 1)
    record.claimed("c")
    assert (record.allowed("c", 50), record.allowed("d", 50)) == (0, 1)
    assert record.state is VersionState.PROBING


def test_a_probe_that_fails_makes_room_for_the_next() -> None:
    record = VersionRecord()
    fail(record, 10)
    record.claimed("c")
    assert not record.ended("w0/0", "c", Cause.CRASH, claimed_at=1.0, now=2.0)
    assert record.state is VersionState.FAILING and record.allowed("c", 50) == 1


def test_the_end_of_an_older_lease_is_no_probes_end() -> None:
    record = VersionRecord()
    fail(record, 10, at=5.0)
    record.claimed("c")
    assert not record.ended("w0/0", "c", Cause.CRASH, claimed_at=4.0, now=6.0)
    assert record.ended("w0/0", "c", Cause.SUCCEEDED, claimed_at=4.0, now=6.0)
    assert record.state is VersionState.PROBING


def test_a_probes_success_closes_and_the_counting_begins_anew() -> None:
    record = VersionRecord()
    fail(record, 10)
    record.claimed("c")
    assert record.ended("w0/0", "c", Cause.SUCCEEDED, claimed_at=1.0, now=2.0)
    assert record.state is VersionState.HEALTHY and record.allowed("c", 50) == 50
    assert fail(record, 9, at=3.0) == [True] * 9
    assert fail(record, 1, at=3.0) == [False]


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.WORKER_LOST, Cause.CANCELLED])
def test_what_says_nothing_of_a_version_does_not_count(cause: Cause) -> None:
    record = VersionRecord()
    assert all(fail(record, 100, cause=cause))
    assert record.state is VersionState.HEALTHY


def test_failures_five_minutes_apart_do_not_add_up() -> None:
    record = VersionRecord()
    fail(record, 9)
    assert fail(record, 1, at=WINDOW_S) == [True]
