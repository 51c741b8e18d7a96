"""What a gateway shows of queue and fleet."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelrepo.errors import Unreachable
from modelrepo_runtime.gateway import fleet_metrics
from modelrepo_runtime.gateway.fleet_metrics import FleetMetrics, figures
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo, WorkerReport
from modelrepo_runtime.queue.reports import CreditReport, FailingVersion, LaneReport, QueueReport

from .gateways import Bench


def lane(tier: str = "api", *, version: str | None = None, **facts: object) -> LaneReport:
    said: dict[str, object] = {
        "waiting": 2,
        "delayed": 1,
        "oldest_s": 30.0,
        "share": 0.5,
        "wait_s": None,
        "paused": False,
    }
    return LaneReport("toy", "run", "gpu", tier, version, None, False, (), **{**said, **facts})  # type: ignore[arg-type]


def report(*lanes: LaneReport) -> QueueReport:
    failing = FailingVersion("toy", "v2", "run", 0.0, 12, 12, 3)
    granted = CreditReport("east", "toy", "v1", 3, 8), CreditReport("west", "toy", "v1", 0, None)
    return QueueReport(0.0, "slo-share", lanes, (), (failing,), granted)


def worker(name: str, *slots: SlotReport, silent_s: float = 0.0) -> WorkerReport:
    return WorkerReport(WorkerInfo(name, "box", 1, cluster="east"), name, silent_s, slots)


def test_lanes_of_a_tier_are_summed_and_the_most_urgent_counts() -> None:
    late = lane(version="v1", waiting=5, oldest_s=90.0, share=1.5, wait_s=7.0, paused=True)
    seen = figures(report(lane(), late, lane("free", oldest_s=None, share=None)), [])
    key = ("toy", "run", "api")
    assert seen[fleet_metrics.WAITING][key] == 7
    assert seen[fleet_metrics.DELAYED][key] == 2
    assert seen[fleet_metrics.OLDEST] == {key: 90.0}
    assert seen[fleet_metrics.SHARE] == {key: 1.5}
    assert seen[fleet_metrics.WAIT] == {key: 7.0}
    assert seen[fleet_metrics.PAUSED] == {key: 1.0, ("toy", "run", "free"): 0.0}


def test_versions_that_fail_and_credits_are_told_by_name() -> None:
    seen = figures(report(), [])
    assert seen[fleet_metrics.FAILING] == {("toy", "v2", "run"): 1.0}
    assert seen[fleet_metrics.IN_FLIGHT] == {("east", "toy", "v1"): 3, ("west", "toy", "v1"): 0}
    assert seen[fleet_metrics.LIMIT] == {("east", "toy", "v1"): 8}


def test_slots_of_silent_workers_do_not_count() -> None:
    busy = SlotReport("0", "open", "toy", "v1", job_id="job_1")
    swapping = SlotReport("1", "refused", "toy", "v1", incoming={"version": "v2", "phase": "loading"})
    seen = figures(report(), [worker("a", busy, swapping), worker("b", busy, silent_s=60.0)])
    assert seen[fleet_metrics.SLOTS] == {("east", "toy", "v1", "open"): 1, ("east", "toy", "v1", "refused"): 1}
    assert seen[fleet_metrics.BUSY] == {("east", "toy"): 1}
    assert seen[fleet_metrics.SWAPPING] == {("east", "toy"): 1}
    assert seen[fleet_metrics.WORKERS] == {("east", "live"): 1, ("east", "silent"): 1}


@dataclass
class Away:
    """A queue that answers or not, and counts how often it is asked."""

    answers: bool = True
    asked: list[str] = field(default_factory=list)

    def queue_report(self) -> QueueReport:
        self.asked.append("queue")
        if not self.answers:
            raise Unreachable("queue is away")
        return report(lane())

    def fleet(self) -> tuple[WorkerReport, ...]:
        return ()


def test_a_queue_is_looked_at_once_in_a_while_however_often_it_is_asked_for() -> None:
    queue = Away()
    clock = [0.0]
    metrics = FleetMetrics(queue, clock=lambda: clock[0])  # type: ignore[arg-type]
    for clock[0] in (0.0, 1.0, fleet_metrics.KEPT_S - 0.1):
        assert 'modelrepo_queue_waiting_jobs{model="toy",stage="run",tier="api"} 2.0' in metrics.text().decode()
    assert len(queue.asked) == 1
    clock[0] = fleet_metrics.KEPT_S
    metrics.text()
    assert len(queue.asked) == 2


def test_a_queue_that_is_away_is_shown_as_away_and_nothing_else() -> None:
    text = FleetMetrics(Away(answers=False)).text().decode()  # type: ignore[arg-type]
    assert "modelrepo_queue_up 0.0" in text
    assert "modelrepo_queue_waiting_jobs" not in text


def test_a_gateway_shows_both_its_own_counters_and_the_queue(bench: Bench) -> None:
    job = bench.submit(tier="api")
    text = bench.ask("GET", "/metrics", who="boss").body.decode()
    assert "modelrepo_gateway_requests_total" in text
    assert 'modelrepo_queue_waiting_jobs{model="toy",stage="run",tier="api"} 1.0' in text
    assert "modelrepo_queue_up 1.0" in text
    assert job["id"] not in text
