"""When memory counts as tight, what is read for it, and what a worker then leaves undone."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.pool.checkpoints import CheckpointPool
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.memory_pressure import (
    CALM_LOOKS,
    MEMORY_TRANSITIONS,
    MemoryState,
    Pressure,
    Reading,
    Room,
    Stall,
    judge,
)
from modelrepo_runtime.worker.pressure_reading import read_pressure
from modelrepo_runtime.worker.pressure_watch import PressureWatch
from modelrepo_runtime.worker.swap_plan import GIB, MIB

from .test_memory import write
from .test_staging import running, staged

if TYPE_CHECKING:
    from .conftest import Bench

DOCS = Path(__file__).parents[3] / "docs"
MEMINFO = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB"
CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1"
WAITING = "some avg10=33.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=4.25 avg60=0.00 avg300=0.00 total=1"
REASON = "memory is tight: 10 MiB are free in a test, 64 MiB should be"


def with_free(free_bytes: int, total_bytes: int = GIB) -> Reading:
    return Reading((Room("in a test", free_bytes, total_bytes),))


@pytest.mark.parametrize(
    ("total_bytes", "least_bytes"),
    [(100 * MIB, 25 * MIB), (512 * MIB, 64 * MIB), (4 * GIB, 4 * GIB // 20), (GIB << 10, 256 * MIB)],
)
def test_a_share_of_each_place_should_be_free_within_bounds(total_bytes: int, least_bytes: int) -> None:
    assert judge(with_free(least_bytes, total_bytes), Pressure()) == Pressure()
    pressure = judge(with_free(least_bytes - 1, total_bytes), Pressure())
    assert pressure.tight
    assert "are free in a test" in pressure.reason


def test_it_is_easy_again_once_twice_as_much_is_free_for_a_while() -> None:
    tight = judge(with_free(10 * MIB), Pressure())
    assert tight.reason == "10 MiB are free in a test, 64 MiB should be"
    still = judge(with_free(100 * MIB), tight)
    assert still.reason == "100 MiB are free in a test, 128 MiB should be"
    pressure = still
    for look in range(1, CALM_LOOKS):
        pressure = judge(with_free(128 * MIB), pressure)
        assert (pressure.state, pressure.calm) == (MemoryState.TIGHT, look)
    assert judge(with_free(100 * MIB), pressure).calm == 0
    assert judge(with_free(128 * MIB), pressure) == Pressure()
    assert judge(with_free(100 * MIB), Pressure()) == Pressure()


@pytest.mark.parametrize(("some", "full", "tight"), [(20.0, 0.0, True), (0.0, 10.0, True), (19.9, 9.9, False)])
def test_processes_that_wait_for_memory_make_it_tight(some: float, full: float, tight: bool) -> None:
    pressure = judge(Reading(stalls=(Stall("on this box", some, full),)), Pressure())
    assert pressure.tight is tight
    assert ("processes on this box wait for memory" in pressure.reason) is tight


def test_waiting_must_halve_before_it_is_easy() -> None:
    tight = judge(Reading(stalls=(Stall("on this box", 30.0, 0.0),)), Pressure())
    assert judge(Reading(stalls=(Stall("on this box", 10.0, 0.0),)), tight).calm == 0
    assert judge(Reading(stalls=(Stall("on this box", 9.9, 0.0),)), tight).calm == 1


def test_what_has_to_be_given_back_is_what_the_place_lacks_that_lacks_most() -> None:
    reading = Reading((Room("a", 100 * MIB, GIB), Room("b", 50 * MIB, GIB)))
    assert reading.lacking_bytes == 78 * MIB
    assert Reading().lacking_bytes == 0


def test_a_group_of_version_2_with_a_limit_is_read_by_its_own_files(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/pod"
    write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/pressure/memory": WAITING,
            "proc/self/cgroup": "0::/pod/worker",
            f"{group}/worker/memory.max": "max",
            f"{group}/worker/memory.current": 5 * MIB,
            f"{group}/memory.max": GIB,
            f"{group}/memory.high": 800 * MIB,
            f"{group}/memory.current": 700 * MIB,
            f"{group}/memory.stat": f"anon 5\nshmem 7\ninactive_file {100 * MIB}\nactive_file {150 * MIB}",
            f"{group}/memory.pressure": CALM,
        },
    )
    place = "the control group's 800 MiB"
    assert read_pressure(tmp_path) == Reading(
        (Room("on this box", 8 * GIB, 16 * GIB), Room(f"in {place}", 350 * MIB, 800 * MIB)),
        (Stall(f"in {place}", 0.0, 0.0),),
    )


def test_a_group_of_version_1_is_read_with_the_pressure_of_the_box(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/box"
    write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/pressure/memory": WAITING,
            "proc/self/cgroup": "4:memory:/box\n0::/",
            f"{group}/memory.limit_in_bytes": GIB,
            f"{group}/memory.usage_in_bytes": GIB,
            f"{group}/memory.stat": f"active_file 1\ntotal_inactive_file {30 * MIB}\ntotal_active_file {20 * MIB}",
        },
    )
    reading = read_pressure(tmp_path)
    assert reading.rooms[1] == Room("in the control group's 1.0 GiB", 50 * MIB, GIB)
    assert (reading.stalls, reading.missing) == ((Stall("on this box", 33.5, 4.25),), ())


def test_files_that_are_missing_are_named_and_the_rest_is_relied_on(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/pod"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod",
            f"{group}/memory.max": GIB,
            f"{group}/memory.current": GIB,
            "proc/pressure/memory": CALM,
        },
    )
    reading = read_pressure(tmp_path)
    assert reading.rooms == (Room("in the control group's 1.0 GiB", 0, GIB),)
    assert reading.stalls == (Stall("on this box", 0.0, 0.0),)
    assert reading.missing == (str(tmp_path / group / "memory.pressure"), str(tmp_path / "proc/meminfo"))


def test_the_kernel_here_says_what_is_read() -> None:
    reading = read_pressure()
    assert reading.rooms[0].place == "on this box"
    assert 0 < reading.rooms[0].free_bytes <= reading.rooms[0].total_bytes


class FakePool(CheckpointPool):
    """A pool of entries of 40 MiB that nobody holds."""

    def __init__(self, entries: int) -> None:
        super().__init__(None)
        self.entries = entries

    def shrink(self, size_bytes: int) -> int:
        gone = min(self.entries, -(-size_bytes // (40 * MIB)))
        self.entries -= gone
        return gone * 40 * MIB


def test_a_watch_says_when_it_begins_and_ends_and_gives_back_what_is_spare() -> None:
    said, heard, now = io.StringIO(), list[bool](), [100.0]
    readings = [with_free(GIB), with_free(10 * MIB), Reading(missing=("/proc/x",)), *[with_free(GIB)] * 4]
    pool = FakePool(9)
    watch = PressureWatch(
        pool,
        Journal(said),
        lambda: heard.append(watch.tight() is not None),
        read=lambda: readings.pop(0),
        clock=lambda: now[0],
    )
    watch.look()
    watch.relieve()
    assert (watch.tight(), heard, pool.entries) == (None, [], 9)
    watch.look()
    assert watch.tight() == REASON
    watch.relieve()
    assert pool.entries == 6, "118 MiB are lacking"
    watch.look()
    watch.relieve()
    assert pool.entries == 5, "nothing is lacking, and it is tight still: one more"
    now[0] = 107.5
    while watch.tight() is not None:
        watch.look()
    watch.relieve()
    assert (heard, pool.entries) == ([True, False], 5)
    lines = [line.split(" ", 1)[1] for line in said.getvalue().splitlines()]
    assert lines == [
        'memory-tight reason="10 MiB are free in a test, 64 MiB should be"',
        'memory-not-watched missing=/proc/x next="the rest is relied on"',
        f"memory-easy after_s=7.500 dropped_from_pool_bytes={160 * MIB}",
    ]


def test_while_it_is_tight_no_job_is_claimed_and_the_slot_says_why(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.until(slot, lambda _: bool(bench.claimer._posted))
    bench.tighten(REASON)
    bench.until(slot, lambda _: not bench.claimer._posted)
    job = bench.submit()
    report = slot.report()
    assert (report.state, report.reason) == ("cordoned", REASON)
    assert report.next_action is not None and "see what takes the memory" in report.next_action
    assert bench.queue.get(job).status is Status.QUEUED
    bench.tighten(None)
    assert bench.done(job).status is Status.SUCCEEDED
    assert slot.report().state == "open"


def test_what_is_staged_goes_back_where_it_has_become_tight(bench: Bench) -> None:
    slot, first, second = running(bench)
    bench.until(slot, lambda slot: staged(bench, slot, second))
    bench.tighten(REASON)
    bench.plant.gates["g"].set()
    assert bench.done(first).status is Status.SUCCEEDED
    bench.until(slot, lambda slot: slot.held is None)
    assert not bench.session.holds()
    bench.tighten(None)
    assert bench.done(second).status is Status.SUCCEEDED


def test_a_version_is_neither_fetched_nor_started_while_it_is_tight(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.tighten(REASON)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "waiting for memory")
    assert bench.plant.fetched == ["v1"]
    bench.tighten(None)
    bench.serves(slot, "v2")


def test_a_swap_that_waits_for_memory_gives_way_to_another(bench: Bench) -> None:
    slot = bench.slot()
    bench.tighten(REASON)
    bench.target("v1")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "waiting for memory")
    bench.target("v2")
    bench.tighten(None)
    bench.serves(slot, "v2")
    assert bench.plant.fetched == ["v2"]


def test_a_child_that_has_died_comes_back_once_there_is_memory(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.tighten(REASON)
    bench.plant.children[0].alive = False
    bench.until(slot, lambda slot: slot.report().state == "cordoned")
    assert len(bench.plant.children) == 1
    bench.tighten(None)
    assert bench.done(bench.submit()).status is Status.SUCCEEDED
    assert len(bench.plant.children) == 2


def test_the_drawing_of_memory_states_is_the_table() -> None:
    section = re.search(r"^## Memory$(.*?)(?=^## |\Z)", (DOCS / "states.md").read_text(encoding="utf-8"), re.M | re.S)
    assert section is not None, "docs/states.md has no section on memory"
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", section[1], re.M))
    assert drawn == {(state.value, after.value) for state, others in MEMORY_TRANSITIONS.items() for after in others}


def test_leaving_ends_a_wait_for_memory(bench: Bench) -> None:
    slot = bench.slot()
    bench.tighten(REASON)
    bench.target("v1")
    bench.until(slot, lambda slot: slot.incoming is not None)
    slot.leave()
    assert bench.left()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("swap ")]
