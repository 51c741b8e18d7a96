"""What a slot says of itself: its swap as it goes and as it ended, its job, its next action, and how much that is."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from modelrepo_runtime.jobs import Claim, Fence
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.figures import Steady
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.refusal import Refusal
from modelrepo_runtime.worker.report_size import MOST_REPORT_BYTES, clip, clip_all
from modelrepo_runtime.worker.slot_report import Coming, Identity, Moment, SlotFacts, Standing, report_of, with_box
from modelrepo_runtime.worker.swap_plan import SwapPlan
from modelrepo_runtime.worker.swap_record import SwapRecord
from modelrepo_runtime.worker.target import Target

if TYPE_CHECKING:
    from tests.unit.worker.conftest import Bench

NOW = Moment(1000.0, 5000.4)
LONG, NAME = "\N{SNOWMAN}" * 4000, "n" * 64
IDENTITY = Identity("s0", "cuda:0", "m", ("cpu", "gpu"))


def target(version: str = "v2", **facts: Any) -> Target:
    return Target("m", version, None, 2, **facts)


def size_of(report: SlotReport) -> int:
    return len(json.dumps(asdict(report)))


def test_a_report_that_says_as_much_as_it_can_is_bounded() -> None:
    record = SwapRecord()
    record.enter(target(NAME), "fetching", monotonic=1.0, wall=1.0)
    record.decide(SwapPlan("overlap", (LONG,) * 9))
    record.end("refused", NAME, LONG, monotonic=9.0, wall=9.0)
    record.enter(target(NAME), LONG, monotonic=10.0, wall=10.0)
    record.fetched(target(NAME), 1 << 40, 1 << 42)
    version = SimpleNamespace(version=NAME, digest="d" * 64)
    prepared = SimpleNamespace(version=version, chosen=SimpleNamespace(ranks=8), pooled=SimpleNamespace(problem=LONG))
    child = SimpleNamespace(pid=4_194_304, has_memory_group=True)
    phases = dict.fromkeys(
        ("spawn_s", "import_s", "load_s", "warmup_s", "start_s", "ready_at", "gap_s"), 1234567.123456
    )
    serving: Any = SimpleNamespace(prepared=prepared, child=child, target=target(), phases=phases)
    claim: Any = SimpleNamespace(job_id="job_" + "x" * 26, stage=NAME, attempt=99)
    memory = dict.fromkeys(("device_used_bytes", "device_total_bytes", "child_bytes"), 1 << 50)
    facts = SlotFacts(
        Identity(NAME, NAME, NAME, ("cpu", "gpu"), NAME),
        Standing(Breaker(), Refusal("k", LONG, 1.0, LONG)),
        target(NAME, notes=(LONG,) * 9, pinned=True),
        serving,
        Coming((target(NAME), LONG), None, None, SwapPlan("overlap", (LONG,) * 9), record),
        Held(claim, 0.0),
        8,
        tuple(f"{n:x<64}" for n in range(12)),
        memory,
    )
    box = {"sick": clip_all([LONG] * 99, 160, 4), "notes": clip_all([LONG] * 99, 160, 4), "pool": {"reason": LONG[:48]}}
    (report,) = with_box([report_of(facts, NOW)], box)
    assert MOST_REPORT_BYTES / 2 < size_of(report) <= MOST_REPORT_BYTES


def test_texts_are_cut_by_what_they_take_as_json() -> None:
    assert clip("short", 5) == "short"
    assert clip("longer", 5) == "lon.."
    assert len(json.dumps(clip(LONG, 100))) <= 102
    assert clip_all(["a", "b", "c"], 9, 2) == ["a", "and 2 more"]


def test_nothing_of_a_report_moves_by_itself() -> None:
    """Each report that differs from the one before is a row that is written, for each of thousands of slots."""
    standing = Standing(Breaker(cordoned_until=990.0, reason="3 jobs failed"))
    facts = SlotFacts(IDENTITY, standing, target())
    later = Moment(NOW.monotonic + 4.0, NOW.wall + 4.0001)
    assert report_of(facts, NOW) == report_of(facts, later)
    assert report_of(facts, NOW).deadline == 4990.0


def test_figures_that_waver_are_told_anew_once_they_matter() -> None:
    steady = Steady()
    assert [steady.of("m", value, 3200) for value in (1000, 1099, 901, 1100, 1050, None, 1050)] == [
        1000, 1000, 1000, 1100, 1100, None, 1050,
    ]  # fmt: skip


def test_a_slot_that_serves_nothing_says_what_it_waits_for() -> None:
    empty = report_of(SlotFacts(IDENTITY, Standing(Breaker())), NOW)
    assert empty.reason is None and "promote a version of m" in str(empty.next_action)
    loading = Coming((target(), "starting"), "loading", 1600.0)
    coming = report_of(SlotFacts(IDENTITY, Standing(Breaker()), target(), coming=loading), NOW)
    assert coming.deadline == 5600.0 and "it serves v2 once that has come up (loading)" in str(coming.next_action)


def test_what_others_decided_hides_what_the_slot_would_be() -> None:
    standing = Standing(Breaker(), Refusal("k", "no memory", 1001.0, "mend it"), ordered="drained by an operator")
    report = report_of(SlotFacts(IDENTITY, standing), NOW)
    assert (report.state, report.reason, report.deadline) == ("cordoned", "drained by an operator", None)


def test_a_job_is_told_with_its_stage_its_attempt_and_its_beginning() -> None:
    claim = Claim("job_1", Fence(1, "t"), "m", "v1", "generate", 1, True, 2, {}, None, "free", 0.0, 60.0, 0.0)
    held = Held(claim, 0.0)
    held.began_at = 4321.0
    report = report_of(SlotFacts(IDENTITY, Standing(Breaker()), held=held, batch=3), NOW)
    assert report.job_id == "job_1"
    assert report.extra["job"] == {"stage": "generate", "attempt": 2, "since": 4321.0, "batch": 3}


def test_the_facts_of_a_box_go_with_its_first_slot() -> None:
    both = with_box((SlotReport("0", "open"), SlotReport("1", "open")), {"states": {"waiting": 2}})
    assert [each.extra for each in both] == [{"box": {"states": {"waiting": 2}}}, {}]
    assert with_box((), {"states": 1}) == ()


def test_a_fetch_shows_how_far_it_is_and_a_swap_what_it_took(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.fetch_bytes, bench.plant.fetch_gates["v2"] = (300, 400), threading.Event()
    bench.target("v2")
    bench.until(slot, lambda slot: slot.swaps.now is not None and slot.swaps.now.total_bytes == 400)
    incoming = slot.report().incoming
    assert incoming is not None
    assert (incoming["version"], incoming["phase"]) == ("v2", "fetching")
    assert (incoming["done_bytes"], incoming["total_bytes"]) == (300, 400)
    bench.plant.fetch_gates["v2"].set()
    bench.until(slot, lambda slot: slot.swaps.last is not None and slot.swaps.last.new == "v2")
    last: Any = slot.report().extra["last_swap"]
    assert (last["old"], last["new"], last["mode"], last["result"]) == ("v1", "v2", "overlap", "done")
    assert last["reasons"] and {"fetching", "building", "starting"} <= last["phases"].keys()
    assert last["took_s"] >= sum(last["phases"].values()) - 0.01


def test_a_swap_that_is_refused_is_kept_with_its_reason(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.unfit["v2"] = "layer 7 has the wrong shape"
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    last: Any = slot.report().extra["last_swap"]
    assert (last["old"], last["result"]) == ("v1", "refused") and "layer 7" in last["why"]
