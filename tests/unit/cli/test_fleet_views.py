"""What `status` and `top` make of fixed reports: text as it is read, order by what wants attention, and JSON."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest

from modelrepo_cli import fleet_facts, fleet_text, slot_text, top_page
from modelrepo_cli.fleet_facts import Attention, Which
from modelrepo_runtime.jobs import Eta, Job, Status
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo, WorkerReport
from modelrepo_runtime.queue.reports import QueueReport

GIB = 1 << 30
NOW = 1_800_000_000.0
BOX = {
    "memory": {
        "total_bytes": 512 * GIB, "available_bytes": 300 * GIB, "group_limit_bytes": 400 * GIB,
        "group_free_bytes": 250 * GIB,
    },
    "pool": {
        "state": "on", "folder": "/dev/shm/pool", "entries": 3, "used_bytes": 60 * GIB, "held_bytes": 40 * GIB,
        "limit_bytes": 128 * GIB,
    },
    "states": {"waiting": 2},
    "sick": ["2: cuda:2 is not well: Xid 79"],
}  # fmt: skip
RUNS = SlotReport(
    "0", "open", "video", "v42", "d", 7, job_id="job_1", device="cuda:0",
    phases={"load_s": 31.0, "warmup_s": 4.0, "gap_s": 0.2},
    extra={
        "box": BOX,
        "job": {"stage": "generate", "attempt": 2, "since": NOW - 185},
        "memory": {"device_used_bytes": 61 * GIB, "device_total_bytes": 80 * GIB, "child_bytes": 9 * GIB},
        "last_swap": {
            "old": "v41", "new": "v42", "mode": "overlap", "reasons": ["device needs 30.0 GiB, 40.0 GiB are free"],
            "result": "done", "why": None, "ended_at": NOW - 7200, "took_s": 95.0,
            "phases": {"fetching": 55.0, "building": 0.0, "starting": 40.0},
        },
    },
)  # fmt: skip
FETCHES = SlotReport(
    "1", "open", "video", device="cuda:1", next_action="it serves v43 once that has come up (fetching)",
    incoming={
        "version": "v43", "phase": "fetching", "since": NOW - 60, "phase_since": NOW - 45, "done_bytes": 15 * GIB,
        "total_bytes": 60 * GIB,
    },
)  # fmt: skip
REFUSES = SlotReport(
    "3", "refused", "video", "v42", reason="the third slot refused video@v43", device="cuda:3",
    deadline=NOW - 1, next_action="roll back",
)  # fmt: skip
CORDONED = SlotReport("2", "cordoned", "video", reason="cuda:2 is not well: Xid 79", device="cuda:2")
JOB = Job(
    "job_1", "video", "api", "acme", Status.RUNNING, NOW - 200, NOW - 200, "v42", "generate", 2, 0.4, "frame 10",
    NOW - 190, eta=Eta(NOW - 190, NOW + 130),
)  # fmt: skip


def worker(name: str, *slots: SlotReport, silent_s: float = 1.0, cluster: str = "east") -> WorkerReport:
    return WorkerReport(WorkerInfo(name, "host", 1, cluster), name, silent_s, slots)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_slots_are_told_with_job_memory_swaps_reasons_and_next_actions() -> None:
    text = fleet_text.slots([worker("box", RUNS, FETCHES, REFUSES)], {"job_1": JOB}, NOW)
    assert [re.sub(r"(?<=\S) {2,}", " | ", line) for line in text.splitlines()] == [
        "WORKER | SLOT | DEVICE | STATE | SERVES | DOES | MEMORY | HEARD",
        "box | 0 | cuda:0 | open | video@v42 | job_1 generate (try 2) 40% frame 10 for 3 min 5 s about 2 min 10 s left"
        " | 61.0 GiB of 80.0 GiB | 1 s ago",
        "box | 1 | cuda:1 | open | video (nothing yet) | fetching v43, 25% of 60.0 GiB for 45 s | - | 1 s ago",
        "box | 3 | cuda:3 | refused | video@v42 | idle | - | 1 s ago",
        "  box 0: its child has 9.0 GiB of the host's memory",
        "  box 0: last swap: v41 -> v42 done by overlap in 1 min 35 s, 2 h ago (fetching 55 s, starting 40 s,"
        " load 31 s, warm-up 4 s, gap 0.2 s); why so: device needs 30.0 GiB, 40.0 GiB are free",
        "  box 1: next: it serves v43 once that has come up (fetching)",
        "  box 3: the third slot refused video@v43 (tried again now); next: roll back",
        "  box: memory: 300.0 GiB of 512.0 GiB available, 250.0 GiB of 400.0 GiB free in the control group",
        "  box: pool: 60.0 GiB of 128.0 GiB in /dev/shm/pool, 3 entries, 40.0 GiB in use",
        "  box: 2 saved states not beyond this box yet",
        "  box: not well: 2: cuda:2 is not well: Xid 79",
    ]


def test_a_pool_that_is_off_says_why() -> None:
    slot = SlotReport("0", "open", extra={"box": {"pool": {"state": "off", "reason": "/dev/shm is too small"}}})
    assert slot_text.box(worker("box", slot)) == ["pool: off: /dev/shm is too small"]


def test_what_wants_to_be_looked_at_comes_first() -> None:
    calm, swaps = replace(RUNS, slot="4"), replace(RUNS, slot="5", incoming={"version": "v43", "phase": "loading"})
    fleet = [worker("a", calm), worker("b", swaps, REFUSES, FETCHES, CORDONED), worker("c", calm, silent_s=60.0)]
    assert [
        (each.info.name, slot.slot, fleet_facts.attention(each, slot))
        for each, slot in fleet_facts.slots_of(fleet_facts.by_attention(fleet))
    ] == [
        ("c", "4", Attention.SILENT),
        ("b", "3", Attention.REFUSED),
        ("b", "2", Attention.CORDONED),
        ("b", "1", Attention.STARTS),
        ("b", "5", Attention.SWAPS),
        ("a", "4", Attention.NONE),
    ]


def test_slots_are_chosen_by_model_pool_and_worker_and_the_box_stays_told() -> None:
    fleet = [worker("a", RUNS, replace(FETCHES, model="cats")), worker("b", CORDONED, cluster="west")]
    (kept,) = fleet_facts.only(fleet, Which("cats"))
    assert [slot.slot for slot in kept.slots] == ["1"] and fleet_facts.box_of(kept) == BOX
    assert [each.info.name for each in fleet_facts.only(fleet, Which(cluster="west"))] == ["b"]
    assert [each.info.name for each in fleet_facts.only(fleet, Which(worker="a"))] == ["a"]
    assert fleet_facts.only(fleet, Which("video", "west", "a")) == ()


def test_programs_are_told_each_fact_in_its_place() -> None:
    (told,) = fleet_facts.document([worker("box", RUNS, REFUSES)], {"job_1": JOB})
    assert told["live"] is True and told["box"] == BOX
    busy, refused = told["slots"]
    last: Any = RUNS.extra["last_swap"]
    assert busy["job"] == {
        "id": "job_1", "stage": "generate", "attempt": 2, "batch": 1, "since": "2027-01-15T07:56:55.000Z",
        "progress": 0.4, "message": "frame 10", "expected_end": "2027-01-15T08:02:10.000Z",
    }  # fmt: skip
    assert busy["memory"] == RUNS.extra["memory"] and busy["extra"] == {}
    assert busy["last_swap"] == {**last, "ended_at": "2027-01-15T06:00:00.000Z"}
    assert refused["deadline"] == "2027-01-15T07:59:59.000Z"
    assert (refused["attention"], refused["job"], refused["memory"], refused["last_swap"]) == ("refused", *[None] * 3)


def test_a_queue_that_is_away_leaves_the_last_view_with_its_time() -> None:
    report = QueueReport(NOW, "slo-share", (), (), (), ())
    view = top_page.View(NOW, report, (worker("box", RUNS, REFUSES),), {"job_1": JOB}, (JOB,))
    here, away = top_page.live_page(view, None, None), top_page.live_page(view, "no answer", NOW + 9)
    assert here.splitlines()[:2] == [
        "08:00:00  q leaves",
        "0 waiting in 0 lanes, policy slo-share; 1 of 2 slots run, 1 not ready",
    ]
    assert away.splitlines()[:2] == [
        "QUEUE AWAY since 08:00:09: no answer",
        "this is how it was at 08:00:00; asking again  q leaves",
    ]
    assert away.splitlines()[2:] == here.splitlines()[1:]
    document: Any = top_page.document(view)
    assert document.keys() == {"queue", "workers", "running"} and document["running"][0]["id"] == "job_1"
